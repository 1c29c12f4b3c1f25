"""The endpoint as an ASGI app: mounted or alone, beside a worker in the same process, or without one."""

import asyncio
import json
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import Holdfast
from holdfast.errors import StoreAway
from holdfast.integrations.asgi import endpoint
from holdfast.stores.memory.store import MemoryStore


def asking(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")


def values(text: str) -> dict[tuple[str, str], float]:
    """Samples by name and the first label's value."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, next(iter(sorted(sample.labels.values())), "")): sample.value for sample in found}


async def test_a_worker_in_the_same_process_is_told_of() -> None:
    jobs = Holdfast("memory://")

    @jobs.task(name="shop.send", queue="mail")
    async def send() -> None: ...

    app = Starlette(routes=[Mount("/ops", app=endpoint(jobs))])
    async with jobs.worker(concurrency=3), asking(app) as client:
        assert values((await client.get("/ops/metrics")).text)["worker_queue_depth", "mail"] == 0, "not known yet"
        await (await send.aenqueue()).aresult(timeout=30)

        async def counted() -> dict[tuple[str, str], float]:
            return values((await client.get("/ops/metrics")).text)

        async with asyncio.timeout(40):
            while ("worker_jobs_total", "mail") not in (found := await counted()):  # noqa: ASYNC110  # as scrapers look
                await asyncio.sleep(0.01)
        assert found["worker_jobs_total", "mail"] == 1
        assert found["worker_slots", ""] == 3
        assert found["worker_queue_depth", "mail"] == 0
        ready = await client.get("/ops/ready")
        async with asyncio.timeout(40):
            while ready.status_code != 200:
                await asyncio.sleep(0.01)
                ready = await client.get("/ops/ready")
        assert {check["check"] for check in ready.json()["checks"]} >= {"store", "lease", "loop", "claiming"}
        live = await client.get("/ops/live")
        assert (live.status_code, live.json()["live"]) == (200, True)
    async with asking(app) as client:
        assert values((await client.get("/ops/metrics")).text)["worker_jobs_total", "mail"] == 1


async def test_a_worker_on_a_loop_of_its_own_is_told_of() -> None:
    jobs = Holdfast("memory://")
    worker = jobs.worker()
    await asyncio.to_thread(worker.start)
    try:
        async with asking(endpoint(jobs)) as client:
            async with asyncio.timeout(40):
                while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110  # as probes look
                    await asyncio.sleep(0.01)
            assert values((await client.get("/metrics")).text)["worker_ready", ""] == 1
    finally:
        await asyncio.to_thread(worker.stop)


async def test_each_worker_keeps_its_number_and_the_memory_is_told_once() -> None:
    jobs = Holdfast("memory://")
    workers = [jobs.worker(concurrency=1) for _ in range(3)]

    async def processes(name: str) -> list[str]:
        async with asking(endpoint(jobs)) as client:  # a new one: a page is shared for a moment
            families = text_string_to_metric_families((await client.get("/metrics")).text)
        return [sample.labels["process"] for family in families for sample in family.samples if sample.name == name]

    try:
        for worker in reversed(workers):
            await asyncio.to_thread(worker.start)
        assert await processes("worker_event_loop_lag_seconds") == ["0", "1", "2"]
        assert await processes("worker_memory_bytes") == ["own"]
        await asyncio.to_thread(workers[0].stop)
        assert await processes("worker_event_loop_lag_seconds") == ["1", "2"]
    finally:
        for worker in workers[1:]:
            await asyncio.to_thread(worker.stop)


async def test_without_a_worker_it_says_whether_the_store_answers(monkeypatch: Any) -> None:
    jobs = Holdfast("memory://")

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreAway("connection refused")

    async with asking(endpoint(jobs)) as client:
        ready = await client.get("/ready")
        assert ready.status_code == 200
        assert [check["check"] for check in ready.json()["checks"]] == ["store"]
        with monkeypatch.context() as patched:
            patched.setattr(MemoryStore, "find", away)
            patched.setattr(MemoryStore, "stats", away)
            red = await client.get("/ready")
            assert red.status_code == 503
            assert "connection refused" in red.json()["checks"][0]["why"]
            assert (await client.get("/live")).status_code == 200
            assert values((await client.get("/metrics")).text)["worker_store_up", ""] == 0
        assert (await client.get("/ready")).status_code == 200
    jobs.close()


async def test_only_who_asks_for_the_store_waits_for_it_and_all_together(monkeypatch: Any) -> None:
    jobs = Holdfast("memory://")
    asked, answers = list[str](), asyncio.Event()

    async def slow(*_: Any, **__: Any) -> Any:
        asked.append("find")
        await answers.wait()
        raise StoreAway("connection refused")

    async with asking(endpoint(jobs)) as client:
        assert (await client.get("/ready")).status_code == 200
        monkeypatch.setattr(MemoryStore, "find", slow)
        assert (await client.get("/live")).status_code == 200
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.post("/ready")).status_code == 405
        assert asked == []
        asking_ = [asyncio.create_task(client.get(path)) for path in ("/ready", "/ready", "/metrics")]
        async with asyncio.timeout(40):
            while not asked:  # noqa: ASYNC110  # the question goes by another loop
                await asyncio.sleep(0.01)
        answers.set()
        assert [(await one).status_code for one in asking_] == [503, 503, 200]
        assert asked == ["find"], "each asked by itself"
    jobs.close()


async def test_other_methods_paths_and_protocols_are_refused() -> None:
    jobs = Holdfast("memory://")
    app = endpoint(jobs)
    async with asking(app) as client:
        post = await client.post("/ready")
        assert (post.status_code, post.headers["allow"]) == (405, "GET, HEAD")
        head = await client.head("/live")
        assert (head.status_code, head.text) == (200, "")
        assert int(head.headers["content-length"]) > 0
        assert (await client.get("/nothing")).status_code == 404
        assert "no-store" in (await client.get("/live")).headers["cache-control"]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "lifespan.startup" if not sent else "lifespan.shutdown"}

    await app({"type": "websocket"}, receive, send)
    sent.clear()
    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    jobs.close()


async def test_what_is_told_is_json_that_a_probe_can_read() -> None:
    jobs = Holdfast("memory://")
    async with asking(endpoint(jobs)) as client:
        answer = await client.get("/ready")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.content)["ready"] is True
    jobs.close()
