"""around and carry: what is put round every attempt, in the handler's own context, and what its errors mean."""

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from holdfast import Cancel, ConfigError, CurrentJob, Holdfast, JobFailed, Permanent, Retry, Snooze, Stop, current_job
from holdfast.app import parts_of
from holdfast.context import asked
from holdfast.job import State
from tests.worker.rig import Shop, soon

tenant: ContextVar[Any] = ContextVar("tenant")
locale: ContextVar[Any] = ContextVar("locale", default="en")
within: ContextVar[str] = ContextVar("within", default="")
BOTH = pytest.mark.parametrize("kind", ["plain", "async"])


class BrokenError(Exception):
    pass


class Circle:
    """An app of one task, which runs `does` as a plain or as an async function, with hooks round it."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.jobs = Holdfast("memory://", **options)
        self.seen: list[str] = []
        self.does: Callable[[], Any] = lambda: "done"
        define = self.jobs.task(name="it", retry=Retry(max_attempts=2, base_delay=0))
        if kind == "plain":

            def plain() -> Any:
                self.seen.append("handler")
                return self.does()

            self.task: Any = define(plain)
        else:

            async def coro() -> Any:
                self.seen.append("handler")
                return self.does()

            self.task = define(coro)

    def hook(self, name: str, swallow: bool = False) -> None:
        def fn(job: CurrentJob) -> Iterator[None]:
            self.seen.append(f"+{name}")
            try:
                yield
            except BaseException as error:
                self.seen.append(f"{name} saw {type(error).__name__}")
                if not swallow:
                    raise
            finally:
                self.seen.append(f"-{name}")

        self.jobs.around(fn)

    async def result(self) -> Any:
        async with self.jobs.worker():
            return await soon((await self.task.aenqueue()).aresult(), "the job does not end")

    async def failure(self, attempts: int = 2) -> str:
        with pytest.raises(JobFailed) as failed:
            await self.result()
        assert failed.value.error.attempt == attempts
        return f"{failed.value.error.type}: {failed.value.error.message}"


# --- definitions


def plain_function(job: CurrentJob) -> Any:
    return None


async def coroutine(job: CurrentJob) -> Any:
    return None


async def async_generator(job: CurrentJob) -> AsyncIterator[None]:
    yield


def takes_none() -> Iterator[None]:
    yield


def takes_two(job: CurrentJob, other: int) -> Iterator[None]:
    yield


def takes_a_name(*, job: CurrentJob) -> Iterator[None]:
    yield


@contextmanager
def managed(job: CurrentJob) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("fn", "what"),
    [
        (plain_function, r"^@around on <function plain_function.*: a generator function with one yield"),
        (coroutine, r"a generator function with one yield"),
        (async_generator, r"a generator function with one yield.*without async: it runs in threads too"),
        (takes_none, r"^@around on <function takes_none.*: it is called with one argument, the CurrentJob \(too many"),
        (takes_two, r"it is called with one argument, the CurrentJob \(missing a required argument: 'other'"),
        (takes_a_name, r"it is called with one argument"),
        (managed, r"leave @contextmanager out"),
        (None, r"^@around on None"),
    ],
)
def test_what_is_no_generator_function_of_one_parameter_is_refused(fn: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Holdfast("memory://").around(fn)


def test_a_hook_is_what_it_was() -> None:
    def hook(job: CurrentJob, note: str = "") -> Iterator[None]:
        yield

    assert Holdfast("memory://").around(hook) is hook
    Holdfast("memory://").around(functools.partial(hook, note="a"))


# --- order and context


@BOTH
async def test_the_first_hook_is_the_outermost_and_all_run_round_every_attempt(kind: str) -> None:
    it = Circle(kind)
    it.hook("one")
    it.hook("two")
    tries = iter([BrokenError("no"), None])

    def does() -> None:
        error = next(tries)
        if error:
            raise error

    it.does = does
    await it.result()
    failed = ["+one", "+two", "handler", "two saw BrokenError", "-two", "one saw BrokenError", "-one"]
    assert it.seen == [*failed, "+one", "+two", "handler", "-two", "-one"]


@BOTH
async def test_a_hook_runs_in_the_handlers_own_context_thread_and_task(kind: str) -> None:
    it, places = Circle(kind), list[Any]()

    def here() -> tuple[Any, ...]:
        try:
            return threading.get_ident(), asyncio.current_task()
        except RuntimeError:
            return (threading.get_ident(),)

    def hook(job: CurrentJob) -> Iterator[None]:
        assert job is current_job()
        places.append(here())
        token = within.set(f"job {job.attempt}")
        yield
        places.append(here())
        within.reset(token)

    it.jobs.around(hook)
    it.does = lambda: places.append(here()) or within.get()
    assert await it.result() == "job 1"
    assert within.get() == "", "nothing of it is left outside"
    assert len(places) == 3
    assert len(set(places)) == 1
    assert (len(places[0]) == 1) is (kind == "plain")


def test_a_direct_call_runs_without() -> None:
    it = Circle("plain")
    it.hook("one")
    assert it.task() == "done"
    assert it.seen == ["handler"]


@BOTH
async def test_a_hook_defined_after_the_workers_start_is_round_the_next_attempt(kind: str) -> None:
    it = Circle(kind)
    async with it.jobs.worker():
        await soon((await it.task.aenqueue()).aresult(), "the first job does not end")
        it.hook("late")
        await soon((await it.task.aenqueue()).aresult(), "the second job does not end")
    assert it.seen == ["handler", "+late", "handler", "-late"]


# --- errors


@BOTH
async def test_a_hook_that_swallows_the_error_changes_nothing(kind: str) -> None:
    it = Circle(kind)
    it.hook("one")
    it.hook("two", swallow=True)

    def does() -> None:
        raise BrokenError("no")

    it.does = does
    assert await it.failure() == "BrokenError: no"
    assert "one saw BrokenError" in it.seen


@BOTH
@pytest.mark.parametrize("error", [StopIteration("a"), StopAsyncIteration("b"), GeneratorExit("c"), KeyError("d")])
async def test_an_error_that_generators_take_for_their_own_passes_too(kind: str, error: BaseException) -> None:
    it = Circle(kind)
    it.hook("one")

    def does() -> None:
        raise error

    it.does = does
    text = await it.failure(attempts=2 if isinstance(error, Exception) else 1)
    if kind == "async" and isinstance(error, StopIteration):  # what Python itself makes of it in a coroutine
        assert text == "RuntimeError: coroutine raised StopIteration"
    else:
        assert text.startswith(f"{type(error).__name__}: ")


@BOTH
async def test_a_hook_that_raises_another_error_replaces_it(kind: str) -> None:
    it = Circle(kind)
    it.hook("outer")

    def hook(job: CurrentJob) -> Iterator[None]:
        try:
            yield
        except BrokenError as error:
            raise Permanent("wrapped") from error

    it.jobs.around(hook)
    it.hook("inner")

    def does() -> None:
        raise BrokenError("no")

    it.does = does
    assert await it.failure(attempts=1) == "Permanent: wrapped"
    assert it.seen == [
        "+outer",
        "+inner",
        "handler",
        "inner saw BrokenError",
        "-inner",
        "outer saw Permanent",
        "-outer",
    ]


@BOTH
async def test_a_hook_that_fails_after_the_handler_fails_the_attempt(kind: str) -> None:
    it = Circle(kind)

    def hook(job: CurrentJob) -> Iterator[None]:
        yield
        if job.attempt == 1:
            raise BrokenError("behind")

    it.jobs.around(hook)
    assert await it.result() == "done"
    assert it.seen == ["handler", "handler"]


@BOTH
async def test_what_a_hook_raises_before_the_handler_means_what_it_means_in_a_handler(kind: str) -> None:
    it, raised = Circle(kind), iter([Snooze(0), Snooze(0), Cancel("closed")])
    it.hook("outer")

    def hook(job: CurrentJob) -> Iterator[None]:
        raise next(raised)
        yield

    it.jobs.around(hook)
    it.hook("never")
    async with it.jobs.worker():
        job = await it.task.aenqueue()
        with pytest.raises(Exception, match="closed"):
            await soon(job.aresult(), "the job does not end")
        assert (await job.astatus()).state == "cancelled"
    ends = [f"outer saw {kind}" for kind in ("Snooze", "Snooze", "Cancel")]
    assert it.seen == [line for end in ends for line in ("+outer", end, "-outer")]


@BOTH
@pytest.mark.parametrize("yields", [0, 2])
async def test_a_hook_that_yields_not_once_is_a_failure_that_names_it(kind: str, yields: int) -> None:
    it, left = Circle(kind), list[str]()
    it.hook("outer")

    def restless(job: CurrentJob) -> Iterator[None]:
        try:
            for _ in range(yields):
                yield
        finally:
            left.append("left")

    it.jobs.around(restless)
    what = "did not yield, so the handler did not run" if yields == 0 else "yielded twice"
    text = await it.failure()
    assert text.startswith("ConfigError: around tests.worker.test_around.")
    assert f"restless: it {what}" in text
    assert left == ["left", "left"]
    assert it.seen.count("handler") == yields
    assert it.seen.count("outer saw ConfigError") == 2, "the others hear of it"


@BOTH
async def test_a_hook_that_yields_again_at_an_error_does_not_hide_it(kind: str) -> None:
    it = Circle(kind)

    def hook(job: CurrentJob) -> Iterator[None]:
        try:
            yield
        except BrokenError:
            yield

    it.jobs.around(hook)

    def does() -> None:
        raise BrokenError("the cause")

    it.does = does
    with pytest.raises(JobFailed) as failed:
        await it.result()
    assert "yielded twice" in failed.value.error.message
    assert "BrokenError: the cause" in failed.value.error.traceback


@BOTH
async def test_a_traceback_shows_the_handler_and_nothing_of_what_surrounds_it(kind: str) -> None:
    it = Circle(kind)
    it.hook("one")

    def does() -> None:
        raise BrokenError("no")

    it.does = does
    with pytest.raises(JobFailed) as failed:
        await it.result()
    assert "in does" in failed.value.error.traceback
    assert "around.py" not in failed.value.error.traceback.replace(__file__, "")


async def test_a_hook_sees_how_an_async_handler_is_stopped_and_cannot_hide_it(shop: Shop) -> None:
    seen, running = list[str](), asyncio.Event()

    @shop.task
    async def waits() -> None:
        running.set()
        await asyncio.Event().wait()

    def hook(job: CurrentJob) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            seen.append(str(asked(job)))

    shop.jobs.around(hook)
    await shop.started()
    job = await waits.aenqueue()
    await soon(running.wait(), "it does not begin")
    await job.acancel()
    assert (await shop.state(job, State.CANCELLED, State.SUCCEEDED, State.DEAD)).state is State.CANCELLED
    assert seen == ["cancelled"]


async def test_a_hook_sees_the_stop_of_a_plain_handler(shop: Shop) -> None:
    seen, running = list[str](), threading.Event()

    @shop.task
    def spins() -> None:
        running.set()
        while True:
            current_job().check()

    def hook(job: CurrentJob) -> Iterator[None]:
        try:
            yield
        except Stop as stop:
            seen.append(stop.why)

    shop.jobs.around(hook)
    await shop.started()
    job = await spins.aenqueue()
    assert await asyncio.to_thread(running.wait, 30), "it does not begin"
    await job.acancel()
    assert (await shop.state(job, State.CANCELLED, State.SUCCEEDED, State.DEAD)).state is State.CANCELLED
    assert seen == ["cancelled"]


async def test_a_copy_that_a_handler_forks_leaves_the_hooks_to_the_worker(shop: Shop) -> None:
    left = list[int]()
    reading, writing = os.pipe()

    @shop.task
    def forks() -> int:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        return pid

    def hook(job: CurrentJob) -> Iterator[None]:
        yield
        left.append(os.getpid())
        os.write(writing, b"x")

    shop.jobs.around(hook)
    await shop.started()
    await shop.state(await forks.aenqueue(), State.SUCCEEDED)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        assert said.read() == b"x", "the copy ran the hook, too"
    assert left == [os.getpid()]


# --- carry


@BOTH
async def test_carried_variables_are_set_for_the_hooks_and_the_handler(kind: str) -> None:
    it = Circle(kind, carry=[tenant, locale])

    def hook(job: CurrentJob) -> Iterator[None]:
        it.seen.append(f"hook {tenant.get()}")
        yield

    it.jobs.around(hook)
    it.does = lambda: [tenant.get(), locale.get(), dict(current_job().headers)]
    tenant.set({"id": 5, "ü": [None, True, 1.5]})
    async with it.jobs.worker():
        job = await it.task.using(headers={"trace": "4bf9"}).aenqueue()
        tenant.set("another since")
        seen = await soon(job.aresult(), "the job does not end")
    assert seen[:2] == [{"id": 5, "ü": [None, True, 1.5]}, "en"]
    assert (seen[2]["trace"], seen[2]["tenant"]) == ("4bf9", '{"id":5,"ü":[null,true,1.5]}')
    assert it.seen == ["hook {'id': 5, 'ü': [None, True, 1.5]}", "handler"]
    assert tenant.get() == "another since", "nothing of it is left outside"


@BOTH
async def test_jobs_at_the_same_time_have_their_own_values(kind: str) -> None:
    it = Circle(kind, carry=[tenant])
    it.does = tenant.get
    async with it.jobs.worker():
        jobs = []
        for number in range(40):
            tenant.set(number)
            jobs.append(await it.task.aenqueue())
        assert [await soon(job.aresult(), "a job does not end") for job in jobs] == list(range(40))


@BOTH
async def test_a_variable_that_was_not_set_is_not_set(kind: str) -> None:
    unset: ContextVar[str] = ContextVar("unset")
    it = Circle(kind, carry=[unset])
    it.does = lambda: unset.get("nothing")
    assert await it.result() == "nothing"


@BOTH
async def test_a_header_of_anothers_making_is_a_failure_that_names_the_variable(kind: str) -> None:
    it, other = Circle(kind, carry=[tenant]), Holdfast("memory://")

    async with it.jobs.worker():
        stranger: Any = other.task(name="it")(lambda: None)
        draft = stranger.using(headers={"tenant": "no json"}).bind().draft
        await parts_of(it.jobs).link.store.enqueue([draft])
        with pytest.raises(JobFailed) as failed:
            await soon(it.jobs.job(draft.id).aresult(), "the job does not end")
    assert failed.value.error.type == "PayloadError"
    assert "the header 'tenant' of this job is 'no json', which is no JSON" in failed.value.error.message
    assert it.seen == []
