"""What handlers find around them in a sandbox: their job, hooks, carried variables, resources; bounds and keys."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from holdfast import (
    ConfigError,
    CurrentJob,
    Holdfast,
    JobCancelled,
    QueueFull,
    Retry,
    Unique,
    UniqueConflict,
    current_job,
)
from holdfast.app import parts_of
from holdfast.testing import Sandbox

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
locale: ContextVar[str] = ContextVar("locale", default="en")


class App:
    """An app with two resources, a hook and a carried variable, which notes what happens."""

    def __init__(self) -> None:
        self.jobs = Holdfast(carry=[tenant])
        self.did: list[Any] = []
        self.plain = self.jobs.resource(self._plain)
        self.client = self.jobs.resource(self._client)
        self.jobs.around(self._hook)

    def _plain(self) -> Iterator[str]:
        self.did.append("plain opens")
        yield "plain"
        self.did.append("plain closes")

    async def _client(self) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        self.did.append("client opens")
        yield "client"
        await asyncio.sleep(0)
        self.did.append("client closes")

    def _hook(self, job: CurrentJob) -> Iterator[None]:
        self.did.append(f"before {job.task}")
        yield
        self.did.append(f"after {job.task}")


@pytest.fixture
def app() -> App:
    return App()


# --- the job itself


def test_progress_log_and_saved_are_kept(app: App) -> None:
    @app.jobs.task(name="steps", retry=Retry(max_attempts=3, base_delay=10, jitter=0))
    def steps() -> int:
        job = current_job()
        start = job.saved(int, 0)
        job.log(f"from {start}")
        job.progress(start, 4, text=f"page {start}")
        job.save(start + 2)
        if start < 4:
            raise OSError("away")
        return start

    with Sandbox(app.jobs) as box:
        job = steps.enqueue()
        first = box.run()[0]
        assert (first.progress, first.text) == (0.0, "page 0")
        box.advance("1h")
        assert job.result() == 4
        assert (job.status().progress, job.status().text) == (1.0, "page 4")
        lines = parts_of(app.jobs).operating.log(job.id)
        assert [line.text for line in lines] == ["from 0", "from 2", "from 4"]
        assert [line.at - lines[0].at for line in lines] == [0, 10_000, 30_000]


def test_save_in_an_async_handler_is_awaited(app: App) -> None:
    @app.jobs.task(name="asteps")
    async def asteps() -> list[int]:
        job = current_job()
        with pytest.raises(ConfigError, match="asave"):
            job.save([1])
        await job.asave([1, 2])
        return job.saved(list[int], [])

    with Sandbox(app.jobs) as box:
        job = asteps.enqueue()
        box.run()
        assert job.result() == [1, 2]


def test_outside_of_handlers_there_is_no_job(app: App) -> None:
    with Sandbox(app.jobs), pytest.raises(LookupError):
        current_job()


def test_every_handler_is_run_within_the_hooks(app: App) -> None:
    @app.jobs.task(name="plain")
    def plain() -> None:
        app.did.append("runs")

    @app.jobs.task(name="async")
    async def asynchronous() -> None:
        app.did.append("runs")

    with Sandbox(app.jobs) as box, app.plain.override("x"), app.client.override("x"):
        plain.enqueue()
        asynchronous.enqueue()
        box.run()
    assert app.did == ["before plain", "runs", "after plain", "before async", "runs", "after async"]


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_handlers_see_carried_variables_and_no_others_of_the_test(app: App, kind: str) -> None:
    @app.jobs.task(name="plain")
    def plain() -> list[str]:
        seen = [tenant.get(), locale.get()]
        tenant.set("the handler's own")
        return seen

    @app.jobs.task(name="async")
    async def asynchronous() -> list[str]:
        return [tenant.get(), locale.get()]

    task = plain if kind == "plain" else asynchronous
    with Sandbox(app.jobs) as box:
        tokens = tenant.set("acme"), locale.set("nl")
        job = task.enqueue()
        tenant.set("other")
        box.run()
        assert job.result() == ["acme", "en"]
        assert tenant.get() == "other"
        locale.reset(tokens[1])
        tenant.reset(tokens[0])


# --- resources


def test_resources_open_for_the_first_job_and_close_with_the_sandbox(app: App) -> None:
    @app.jobs.task(name="uses")
    async def uses() -> list[str]:
        return [app.plain(), app.client()]

    with Sandbox(app.jobs) as box:
        box.run()
        assert app.did == []
        first, second = uses.enqueue(), uses.enqueue()
        box.run()
        assert first.result() == second.result() == ["plain", "client"]
        assert app.did[:2] == ["plain opens", "client opens"]
        assert "plain closes" not in app.did
    assert app.did[-2:] == ["client closes", "plain closes"]
    assert app.did.count("plain opens") == 1


def test_a_plain_handler_opens_the_plain_ones(app: App) -> None:
    @app.jobs.task(name="uses")
    def uses() -> str:
        return app.plain()

    with Sandbox(app.jobs) as box:
        job = uses.enqueue()
        box.run()
        assert job.result() == "plain"
    assert app.did == ["plain opens", "before uses", "after uses", "plain closes"]


def test_what_is_overridden_is_not_opened(app: App) -> None:
    @app.jobs.task(name="uses")
    async def uses() -> list[str]:
        return [app.plain(), app.client()]

    with Sandbox(app.jobs) as box, app.plain.override("fake"), app.client.override("fake too"):
        job = uses.enqueue()
        box.run()
        assert job.result() == ["fake", "fake too"]
    assert not any("open" in what for what in app.did)


async def test_on_the_callers_loop_both_kinds_of_handlers_have_them(app: App) -> None:
    @app.jobs.task(name="async")
    async def asynchronous() -> list[str]:
        return [app.plain(), app.client()]

    @app.jobs.task(name="plain")
    def plain() -> str:
        return app.plain()

    async with Sandbox(app.jobs) as box:
        jobs = [await plain.aenqueue(), await asynchronous.aenqueue()]
        await box.arun()
        assert [await job.aresult() for job in jobs] == ["plain", ["plain", "client"]]
    assert app.did[-2:] == ["client closes", "plain closes"]


async def test_jobs_that_run_at_once_open_them_once(app: App) -> None:
    @app.jobs.task(name="uses")
    async def uses() -> list[str]:
        return [app.plain(), app.client()]

    async with Sandbox(app.jobs, inline=True):
        jobs = await asyncio.gather(*(uses.aenqueue() for _ in range(5)))
        assert [await job.aresult() for job in jobs] == [["plain", "client"]] * 5
    for what in ("plain opens", "client opens", "client closes", "plain closes"):
        assert app.did.count(what) == 1


def test_threads_open_them_once(app: App) -> None:
    @app.jobs.task(name="uses")
    def uses() -> str:
        return app.plain()

    with Sandbox(app.jobs, inline=True):
        threads = [threading.Thread(target=uses.enqueue) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert {str(status.state) for status in app.jobs.find()} == {"succeeded"}
    assert (app.did.count("plain opens"), app.did.count("plain closes")) == (1, 1)


def test_they_close_when_the_block_raises(app: App) -> None:
    @app.jobs.task(name="uses")
    async def uses() -> None: ...

    def fails() -> None:
        with Sandbox(app.jobs) as box:
            uses.enqueue()
            box.run()
            raise LookupError("own")

    with pytest.raises(LookupError):
        fails()
    assert app.did[-2:] == ["client closes", "plain closes"]


# --- bounds and unique keys


def test_a_bound_holds_and_running_makes_room(app: App) -> None:
    app.jobs.queue("mail", max_size=2)

    @app.jobs.task(name="send", queue="mail")
    def send(number: int) -> int:
        return number

    with Sandbox(app.jobs) as box:
        send.enqueue(1)
        send.enqueue(2)
        with pytest.raises(QueueFull) as caught:
            send.enqueue(3)
        assert (caught.value.queue, caught.value.depth, caught.value.bound) == ("mail", 2, 2)
        box.run()
        send.enqueue(3)
        assert len(box.enqueued(send)) == 3


def test_a_producer_never_waits_for_a_place(app: App) -> None:
    app.jobs.queue("mail", max_size=1, when_full="block")

    @app.jobs.task(name="send", queue="mail")
    def send(number: int) -> int:
        return number

    with Sandbox(app.jobs):
        send.enqueue(1)
        with pytest.raises(QueueFull):
            send.enqueue(2)


@pytest.mark.parametrize(("when_full", "kept"), [("drop_oldest", [2]), ("drop_newest", [1])])
def test_drops_are_dropped(app: App, when_full: Any, kept: list[int]) -> None:
    app.jobs.queue("mail", max_size=1, when_full=when_full)

    @app.jobs.task(name="send", queue="mail")
    def send(number: int) -> int:
        return number

    with Sandbox(app.jobs) as box:
        made = {1: send.enqueue(1), 2: send.enqueue(2)}
        assert [made[number].id for number in kept] == [status.id for status in box.run()]
        (dropped,) = made.keys() - kept
        with pytest.raises(JobCancelled, match="dropped"):
            made[dropped].result()


def test_unique_keys_hold_and_their_time_passes(app: App) -> None:
    @app.jobs.task(name="send", unique=lambda number: f"order:{number}")
    def send(number: int) -> int:
        return number

    with Sandbox(app.jobs) as box:
        first, again = send.enqueue(1), send.enqueue(1)
        assert (first == again, again.created) == (True, False)
        with pytest.raises(UniqueConflict):
            send.using(unique=Unique("order:1", on_clash="raise")).enqueue(1)
        box.run()
        assert send.enqueue(1).created
        held = Unique("order:2", hold="1h")
        send.using(unique=held).enqueue(2)
        box.advance("59m")
        assert not send.using(unique=held).enqueue(2).created
        box.advance("1m")
        assert send.using(unique=held).enqueue(2).created


def test_process_tasks_run_in_the_tests_process() -> None:
    jobs = Holdfast()

    task = jobs.task(name="pid", run_in="process")(_pid)
    with Sandbox(jobs) as box:
        job = task.enqueue()
        assert [str(status.state) for status in box.run()] == ["succeeded"]
        assert job.result() == _pid()


def _pid() -> int:
    import os

    return os.getpid()
