"""Where handlers run: every attempt that starts ends once, on the loop, whatever leaves the handler."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from holdfast import Stop, current_job
from holdfast.context import CurrentJob
from holdfast.errors import StopReason
from holdfast.job import Cancelled, Failed, Released, Succeeded, Terms, Verdict
from holdfast.worker.executors import InThreads, OnLoop
from holdfast.worker.runner import Run, begun, run_async, run_plain, waited
from tests.worker.rig import PATIENCE, claim, run_of, soon, task_of, until


class Ends:
    """Notes how attempts end, and where it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Run, Verdict | None]] = []
        self.threads: set[int] = set()
        self._changed = asyncio.Event()

    def __call__(self, run: Run, verdict: Verdict | None) -> None:
        self.told.append((run, verdict))
        self.threads.add(threading.get_ident())

    def of(self, run: Run) -> Verdict | None:
        (verdict,) = [verdict for told, verdict in self.told if told is run]
        return verdict

    async def wait(self, number: int) -> None:
        await until(lambda: len(self.told) >= number, f"{len(self.told)} of {number} attempts have ended")


@pytest.fixture
def ends() -> Ends:
    return Ends()


# --- on the loop


async def test_async_handlers_run_beside_each_other_on_the_loop(ends: Ends) -> None:
    together, threads = asyncio.Barrier(5), set[int]()

    async def handler() -> int:
        threads.add(threading.get_ident())
        await together.wait()
        return 5

    executor = OnLoop(ends)
    runs = [run_of(claim(), handler) for _ in range(5)]
    for run in runs:
        executor.start(run)
    await ends.wait(5)
    assert [ends.of(run) for run in runs] == [Succeeded(b"5")] * 5
    assert threads == ends.threads == {threading.get_ident()}
    assert all(run.over for run in runs)


async def test_each_async_handler_has_a_job_and_a_context_of_its_own(ends: Ends) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[tuple[CurrentJob, int]] = []

    async def handler() -> None:
        seen.append((current_job(), variable.get()))
        variable.set(variable.get() + 1)

    executor = OnLoop(ends)
    runs = [run_of(claim(), handler) for _ in range(3)]
    for run in runs:
        executor.start(run)
    await ends.wait(3)
    assert [job for job, _ in seen] == [run.job for run in runs]
    assert [value for _, value in seen] == [0, 0, 0]
    with pytest.raises(LookupError):
        current_job()


@pytest.mark.parametrize(
    ("why", "verdict"),
    [
        ("cancelled", Cancelled("cancelled while running")),
        ("shutdown", Released("interrupted, as its worker was leaving")),
        ("lost", None),
    ],
)
async def test_a_running_async_handler_is_cancelled(ends: Ends, why: StopReason, verdict: Verdict | None) -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def handler() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    run = run_of(claim(), handler)
    OnLoop(ends).start(run)
    await soon(begun.wait(), "the handler does not begin")
    run.stop(why)
    run.stop("timeout")  # the first reason wins
    await ends.wait(1)
    assert ends.of(run) == verdict
    assert cleaned.is_set()
    assert run.over


@pytest.mark.parametrize(
    ("why", "verdict"),
    [
        ("cancelled", Cancelled("cancelled while running")),
        ("shutdown", Released("interrupted, as its worker was leaving")),
        ("lost", None),
    ],
)
async def test_an_attempt_that_is_stopped_before_its_first_step_still_ends(
    ends: Ends, why: StopReason, verdict: Verdict | None
) -> None:
    begun: list[str] = []

    async def handler() -> None:
        begun.append("async")

    run = run_of(claim(), handler)
    OnLoop(ends).start(run)
    run.stop(why)
    await ends.wait(1)
    assert ends.of(run) == verdict
    assert begun == [], "there was no need to begin"


async def test_a_timeout_of_an_async_handler_is_a_failure_that_says_how_long_it_was(ends: Ends) -> None:
    async def handler() -> None:
        await asyncio.Event().wait()

    run = run_of(claim(terms=Terms(timeout=90_000)), handler)
    OnLoop(ends).start(run)
    await asyncio.sleep(0)
    run.stop("timeout")
    await ends.wait(1)
    verdict = ends.of(run)
    assert isinstance(verdict, Failed)
    assert (verdict.error.type, verdict.error.message) == (
        "TimeoutError",
        "ran longer than its timeout of 1 m 30 s",
    )
    assert "CancelledError" in verdict.error.traceback, "it shows where the time was spent"


class Odd(BaseException):
    pass


LEAVES: list[tuple[BaseException, str]] = [
    (ValueError("no"), "ValueError"),
    (SystemExit(3), "SystemExit"),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (GeneratorExit(), "GeneratorExit"),
    (StopIteration(5), "RuntimeError"),
    (Odd("odd"), "Odd"),
    (asyncio.CancelledError(), "CancelledError"),
    (Stop("cancelled"), "Stop"),
    (RecursionError("deep"), "RecursionError"),
    (MemoryError(), "MemoryError"),
]


@pytest.mark.parametrize(("error", "name"), LEAVES, ids=lambda value: getattr(value, "__name__", str(value))[:20])
async def test_whatever_leaves_an_async_handler_is_its_own_failure(ends: Ends, error: BaseException, name: str) -> None:
    async def handler() -> None:
        raise error

    run = run_of(claim(), handler)
    OnLoop(ends).start(run)
    await ends.wait(1)
    verdict = ends.of(run)
    assert isinstance(verdict, Failed), "nobody asked it to stop"
    assert verdict.error.type == name


@pytest.mark.parametrize(("error", "name"), LEAVES, ids=lambda value: getattr(value, "__name__", str(value))[:20])
async def test_whatever_leaves_a_plain_handler_is_its_own_failure(ends: Ends, error: BaseException, name: str) -> None:
    def handler() -> None:
        raise error

    threads = InThreads(ends, 1)
    bad, good = run_of(claim(), handler), run_of(claim(), lambda: 5)
    threads.start(bad)
    threads.start(good)
    await ends.wait(2)
    threads.close()
    verdict = ends.of(bad)
    assert isinstance(verdict, Failed), "nobody asked it to stop"
    assert verdict.error.type == (type(error).__name__ if isinstance(error, StopIteration) else name)
    assert ends.of(good) == Succeeded(b"5"), "the thread goes on"


# --- in threads


async def test_plain_handlers_run_beside_each_other_in_as_many_threads_as_needed(ends: Ends) -> None:
    together, seen = threading.Barrier(4, timeout=PATIENCE), set[int]()

    def handler() -> int:
        seen.add(threading.get_ident())
        together.wait()
        return 5

    threads = InThreads(ends, 4)
    runs = [run_of(claim(), handler) for _ in range(4)]
    for run in runs:
        threads.start(run)
    await ends.wait(4)
    threads.close()
    assert [ends.of(run) for run in runs] == [Succeeded(b"5")] * 4
    assert len(seen) == 4
    assert ends.threads == {threading.get_ident()}, "ends are told on the loop"


async def test_threads_are_kept_and_used_again(ends: Ends) -> None:
    seen: set[int] = set()

    def handler() -> None:
        seen.add(threading.get_ident())

    threads = InThreads(ends, 8)
    for number in range(1, 21):
        threads.start(run_of(claim(), handler))
        await ends.wait(number)
    threads.close()
    assert len(seen) == 1
    assert not threads.alive


async def test_there_are_never_more_threads_than_allowed(ends: Ends) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def handler() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        with lock:
            at_once -= 1

    threads = InThreads(ends, 3)
    for _ in range(200):
        threads.start(run_of(claim(), handler))
    assert threads.alive
    await ends.wait(200)
    threads.close()
    assert 1 <= most <= 3
    assert not threads.alive


async def test_a_plain_handler_has_its_job_and_a_copy_of_the_context(ends: Ends) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[tuple[CurrentJob, str]] = []

    def handler() -> None:
        seen.append((current_job(), variable.get()))
        variable.set("changed inside")

    variable.set("carried")
    threads = InThreads(ends, 1)
    runs = [run_of(claim(), handler) for _ in range(2)]
    for run in runs:
        threads.start(run)
    await ends.wait(2)
    threads.close()
    assert seen == [(run.job, "carried") for run in runs]
    assert variable.get() == "carried"


@pytest.mark.parametrize(
    ("why", "verdict"),
    [
        ("cancelled", Cancelled("cancelled while running")),
        ("shutdown", Released("interrupted, as its worker was leaving")),
        ("lost", None),
    ],
)
async def test_a_plain_handler_is_flagged_and_ends_at_its_next_check(
    ends: Ends, why: StopReason, verdict: Verdict | None
) -> None:
    begun, go = threading.Event(), threading.Event()

    def handler() -> None:
        begun.set()
        assert go.wait(PATIENCE)
        try:
            current_job().check()
        except Exception:  # noqa: BLE001  # as careless handlers do
            pytest.fail("being stopped must pass `except Exception`")

    threads = InThreads(ends, 1)
    run = run_of(claim(), handler)
    threads.start(run)
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    run.stop(why)
    await asyncio.sleep(0.01)
    assert not ends.told, "its code still runs"
    assert not run.over
    go.set()
    await ends.wait(1)
    threads.close()
    assert ends.of(run) == verdict


async def test_a_plain_handler_stopped_before_it_begins_does_not_begin(ends: Ends) -> None:
    begun, go, ran = threading.Event(), threading.Event(), list[str]()

    def busy() -> None:
        begun.set()
        assert go.wait(PATIENCE)

    threads = InThreads(ends, 1)
    first, second = run_of(claim(), busy), run_of(claim(), lambda: ran.append("it ran"))
    threads.start(first)
    threads.start(second)
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    second.stop("cancelled")
    go.set()
    await ends.wait(2)
    threads.close()
    assert ends.of(second) == Cancelled("cancelled while running")
    assert ran == []


async def test_a_plain_handler_past_its_timeout_is_settled_when_its_code_has_ended(ends: Ends) -> None:
    begun, go = threading.Event(), threading.Event()

    def handler() -> str:
        begun.set()
        assert go.wait(PATIENCE)
        return "too late"

    threads = InThreads(ends, 1)
    run = run_of(claim(terms=Terms(timeout=1_000)), handler)
    threads.start(run)
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    run.stop("timeout")
    await asyncio.sleep(0.01)
    assert not ends.told
    go.set()
    await ends.wait(1)
    threads.close()
    verdict = ends.of(run)
    assert isinstance(verdict, Succeeded), "what has returned is done, however late: to run it again would do it twice"


async def test_a_busy_thread_does_not_keep_the_others_from_closing(ends: Ends) -> None:
    begun, go = threading.Event(), threading.Event()

    def busy() -> None:
        begun.set()
        assert go.wait(PATIENCE)

    threads = InThreads(ends, 4)
    for fn in (busy, lambda: None, lambda: None):
        threads.start(run_of(claim(), fn))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    await ends.wait(2)
    before = {thread for thread in threading.enumerate() if thread.name.startswith("holdfast-job")}
    threads.close()
    await until(lambda: sum(thread.is_alive() for thread in before) <= 1, "idle threads do not end")
    assert threads.alive
    go.set()
    await ends.wait(3)
    await until(lambda: not any(thread.is_alive() for thread in before), "the busy thread does not end after its job")
    assert all(thread.daemon for thread in before), "a stuck handler must not keep the program from ending"


class Switching(deque[Any]):
    """The list of ends, with a thread switch where the interpreter may make one: before an end is put on it."""

    def __init__(self) -> None:
        super().__init__()
        self.armed: Callable[[], object] | None = None

    def append(self, item: Any) -> None:
        if self.armed is not None:
            switch, self.armed = self.armed, None
            switch()
        super().append(item)


async def test_an_end_that_is_reported_while_the_others_are_collected_is_not_forgotten(ends: Ends) -> None:
    arriving, collected = threading.Event(), threading.Event()
    first_go, second_go, begun = threading.Event(), threading.Event(), threading.Barrier(3, timeout=PATIENCE)

    def waiting_for(go: threading.Event) -> Callable[[], None]:
        def handler() -> None:
            begun.wait()
            assert go.wait(PATIENCE)

        return handler

    def switch() -> None:
        arriving.set()
        assert collected.wait(PATIENCE)

    threads = InThreads(ends, 2)
    threads._done = done = Switching()  # noqa: SLF001  # the switch cannot be forced from outside
    threads.start(run_of(claim(), waiting_for(first_go)))
    threads.start(run_of(claim(), waiting_for(second_go)))
    await asyncio.to_thread(begun.wait)
    first_go.set()
    while not done:  # the loop must not turn: what was reported waits to be collected
        pass
    done.armed = switch
    second_go.set()
    assert arriving.wait(PATIENCE)  # the same
    await ends.wait(1)  # now the loop collects the first end
    collected.set()
    await ends.wait(2)
    third = run_of(claim(), lambda: None)
    threads.start(third)
    await ends.wait(3)
    threads.close()


async def test_thousands_of_ends_from_many_threads_all_arrive(ends: Ends) -> None:
    threads = InThreads(ends, 8)
    runs = [run_of(claim(), lambda: None) for _ in range(3_000)]
    for run in runs:
        threads.start(run)
    await ends.wait(len(runs))
    threads.close()
    assert len({id(run) for run, _ in ends.told}) == len(runs), "each attempt ends once"


def test_a_handler_that_outlives_the_loop_ends_quietly() -> None:
    begun, go, before = threading.Event(), threading.Event(), set(threading.enumerate())

    def busy() -> None:
        begun.set()
        assert go.wait(PATIENCE)

    run = run_of(claim(), busy)

    async def leave() -> InThreads:
        threads = InThreads(Ends(), 1)
        threads.start(run)
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        threads.close()
        return threads

    threads = asyncio.run(leave())
    assert (threads.alive, run.over) == (True, False)
    go.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the thread does not end"
    assert (threads.alive, run.over) == (False, True)


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_what_is_in_doubt_when_its_turn_comes_is_given_back_and_never_begins(kind: str) -> None:
    ran: list[int] = []

    async def on_loop() -> None:
        ran.append(1)

    run = begun(claim(), task_of(on_loop if kind == "async" else lambda: ran.append(1)), lambda: False, 0.0)
    verdict = await run_async(run) if kind == "async" else run_plain(run)
    assert isinstance(verdict, Released)
    assert "into doubt" in verdict.reason
    assert ran == []
    assert run.over


# --- what is told of it


def test_how_long_it_waited_is_known_unless_it_was_run_meanwhile() -> None:
    assert waited(claim(due_at=1_000, claimed_at=3_500)) == 2.5
    assert waited(claim(due_at=1_000, claimed_at=900)) == 0
    assert waited(claim(due_at=1_000, claimed_at=3_500, losses=1)) is None
    assert waited(claim(due_at=1_000, claimed_at=3_500, crashes=1)) is None
