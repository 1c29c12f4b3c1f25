"""What type checkers must accept; and, on each line with a suppression, what they must refuse.

Nothing here runs. `make check` fails on a suppression that suppresses nothing, so each refusal must stay one;
test_contract.py strips them all and compares.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from holdfast import (
    CurrentJob,
    Holdfast,
    Job,
    JobStatus,
    NewJob,
    Pool,
    PoolJob,
    PoolStats,
    QueueFull,
    Resource,
    Retry,
    Task,
    Unique,
    UniqueConflict,
    current_job,
)
from holdfast.testing import Sandbox

tenant: ContextVar[str] = ContextVar("tenant")
jobs = Holdfast("memory://", carry=[tenant])
jobs.queue("q", max_size=100, when_full="block", block_timeout="5s", weight=6)


@jobs.task
async def send(to: str, *, html: bool = False) -> str:
    return f"<{to}>" if html else to


@jobs.task
def resize(path: str, width: int = 80) -> int:
    return len(path) * width


@jobs.task(queue="q", retry=Retry(), timeout="5s")
async def opt(x: int) -> bytes:
    return bytes(x)


@jobs.task(queue="q")
async def areport(region: str = "eu") -> None:
    print(region)


def by_order(order: int, mail: bool = False) -> str:
    return f"invoice:{order}"


@jobs.task(queue="q", unique=by_order)
def invoice(order: int, mail: bool = False) -> str:
    return f"{order} {mail}"


@jobs.task(unique=Unique(hold="5m", on_clash="raise"))
async def report(day: str) -> int:
    return len(day)


@jobs.cron("0 9 * * *", tz="Europe/Amsterdam", missed="all", overlap="allow", jitter="5m", name="daily")
@jobs.task(queue="q")
async def daily(region: str = "eu") -> int:
    return len(region)


@jobs.every("5m")
def flush() -> str:
    return "flushed"


async def scheduled() -> None:
    assert_type(await daily("us"), int)
    assert_type(flush(), str)
    assert_type(flush.enqueue(), Job[str])
    assert_type(await daily.using(priority=1).aenqueue("us"), Job[int])
    jobs.schedule("us", daily.bind("us"), every=30, missed="skip")
    jobs.add_schedule("eu", daily.bind("eu"), cron="@daily", tz="Europe/Amsterdam")
    assert_type(jobs.schedules()[0].coming(2), list[datetime])
    assert_type((await jobs.aschedules())[0].ticks[-1].due, datetime)
    assert_type(await jobs.atrigger_schedule("us"), Job[Any])
    jobs.cron("@daily", missed="twice")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    jobs.every("5m", tz="UTC")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    jobs.schedule("us", daily, every=30)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def good() -> None:
    assert_type(await send("a", html=True), str)
    assert_type(resize("a"), int)
    assert_type(resize.enqueue("a", width=3), Job[int])
    assert_type(await send.aenqueue("a"), Job[str])
    assert_type(resize.using(delay="1m", priority=10).enqueue("a"), Job[int])
    assert_type(await resize.enqueue("a").aresult(timeout=1), int)
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert_type(resize.using(expires="5m", deadline=soon).enqueue("a"), Job[int])
    jobs.pause("q", until=soon, reason="the provider is down")
    await jobs.apause("q", until="2h")
    assert_type((jobs.resume("q"), await jobs.aresume("q")), tuple[bool, bool])
    jobs.worker(queues=["q"], strict=True)
    assert_type(opt.bind(1), NewJob[bytes])
    assert_type(jobs.enqueue_many([opt.bind(1), opt.bind(2)]), list[Job[bytes]])
    assert_type(await jobs.aenqueue_many([opt.bind(1), opt.bind(2)]), list[Job[bytes]])
    assert_type(resize.job("x").status(), JobStatus[int])
    assert_type(resize.job("x").status().job, Job[int])
    assert_type(await areport.aenqueue("us"), Job[None])
    mixed = jobs.enqueue_many([opt.bind(1), send.using(delay=5).bind("a")])
    print(mixed[-1].id)
    assert_type(invoice.using(unique="thumb:42", headers={"trace": "4bf9"}).enqueue(1), Job[str])
    assert_type(invoice.using(unique=Unique(by_order, until="started")).bind(1, mail=True), NewJob[str])
    assert_type(await report.using(unique=None).aenqueue("today"), Job[int])
    assert_type(resize.job("x").status().progress, float | None)
    assert_type(resize.job("x").status().text, str | None)
    assert_type(resize.enqueue("a").delete(), None)
    assert_type(jobs.delete(state="dead", queue="q", dry_run=True), int)
    assert_type(await jobs.adelete(task="shop.send"), int)
    try:
        invoice.enqueue(1)
    except QueueFull as full:
        assert_type(full.retry_after, float)
        jobs.enqueue_many(full.refused)
    except UniqueConflict as clash:
        clash.job.cancel()
    either: list[Task[[int], bytes]] = [opt]
    either[0].enqueue(1)
    _loose: Task[..., int] = resize  # Task[[str], int] is refused by pyright: the parameters are invariant


async def bad() -> None:
    resize.enqueue(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    resize.enqueue("a", widht=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    send.enqueue("a", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    send.using(dely=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    send.using(priority="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    send.using(delay=1).bind()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    send.using(headers={"trace": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    send.using(unique=42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    jobs.task(unique="one key for all")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Unique(until="done")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    jobs.queue("q", when_full="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    jobs.queue("q", max_siz=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    jobs.delete(quue="q")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Holdfast(carry=["tenant"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    jobs.task(queu="q")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    send.aenqueue("a")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    _x: str = resize.enqueue("a").result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class Mailer:
    @jobs.task
    def method(self, x: int) -> int:
        return x

    @staticmethod
    @jobs.task
    def static(x: int) -> int:
        return x


def methods() -> None:
    Mailer.static.enqueue(1)
    Mailer().method.enqueue(1)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]


async def tests() -> None:
    with Sandbox(jobs, now="2026-11-22T09:00:00Z", inline=True) as box:
        assert_type(box.assert_enqueued(send, "a", html=True), Job[str])
        assert_type(box.enqueued(resize), list[Job[int]])
        assert_type(box.advance("2h"), list[JobStatus[Any]])
        box.assert_enqueued(resize, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        box.assert_enqueued(send, "a", htlm=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async with Sandbox(jobs) as box:
        assert_type(await box.arun(), list[JobStatus[Any]])
        box.arun()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


def pow2(n: int) -> int:
    return n * n


async def asleep(n: int) -> int:
    return n


async def pools() -> None:
    with Pool(4) as pool:
        assert_type(pool.submit(pow2, 3), PoolJob[int])
        assert_type(pool.using(timeout=5).submit(asleep, 3), PoolJob[int])
        assert_type(pool.submit(resize, "a", width=1), PoolJob[int])
        assert_type(pool.submit(send, "a", html=True), PoolJob[str])
        assert_type(await pool.asubmit(asleep, 3), PoolJob[int])
        assert_type([j.result() for j in pool.each(asleep, [1, 2])], list[int])
        assert_type(list(pool.map(pow2, [1, 2])), list[int])
        assert_type([await j.aresult() async for j in pool.aeach(asleep, [1, 2])], list[int])
        assert_type(pool.stop(drain=False), list[PoolJob[Any]])
        assert_type(pool.stats(), PoolStats)
        pool.submit(pow2, "3")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
        pool.submit(pow2, 3, timeout=5)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
        pool.using(tiemout=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        pool.asubmit(pow2, 3)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


class Client:
    async def send(self, text: str) -> int:
        return len(text)


@dataclass
class Mark:
    page: int


@jobs.resource
async def client() -> AsyncIterator[Client]:
    yield Client()


@jobs.resource
def words() -> Iterator[list[str]]:
    yield ["a"]


@jobs.around
def timed(job: CurrentJob) -> Iterator[None]:
    print(job.id)
    yield


async def inside() -> None:
    assert_type(client, Resource[Client])
    assert_type(words(), list[str])
    assert_type(await client().send("a"), int)
    assert_type(words.override(["b"]), AbstractContextManager[None])
    assert_type(timed, Callable[[CurrentJob], Iterator[None]])
    job = current_job()
    assert_type(job.saved(int, 0), int)
    assert_type(job.saved(Mark, Mark(0)), Mark)
    assert_type(job.saved(list[str], []), list[str])
    assert_type(job.time_left, float | None)
    assert_type(job.headers, Mapping[str, str])
    assert_type(job.scheduled_for, datetime | None)
    job.progress(1, 3, text="a")
    job.save(Mark(1))
    await job.asave(1)
    words.override(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    job.progress(0.5, "rendered")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    job.progress(0.5, 1, "rendered")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    job.log(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    job.asave(1)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    _x: str = words()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def no_resource() -> int:
    return 5


def two_parameters(job: CurrentJob, other: int) -> Iterator[None]:
    yield


jobs.resource(no_resource)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
jobs.around(two_parameters)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
