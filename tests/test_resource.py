"""Resources: opened before, closed after, in order; where they may be used, and what is said where they may not."""

import asyncio
import functools
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest

from holdfast import ConfigError, Holdfast
from holdfast.app import parts_of
from holdfast.errors import ResourceError
from holdfast.resource import Resource
from holdfast.resource import steps as resources
from tests.worker.rig import events, fields, soon, until

jobs = Holdfast("memory://")


class Shelf:
    """An app with resources that note when they are opened and closed."""

    def __init__(self) -> None:
        self.jobs = Holdfast("memory://")
        self.seen: list[str] = []

    def plain(self, name: str, value: Any = None, needs: Callable[[], Any] = lambda: None) -> Resource[Any]:
        def fn() -> Iterator[Any]:
            needs()
            self.seen.append(f"+{name}")
            yield value or name
            self.seen.append(f"-{name}")

        fn.__qualname__ = name
        return self.jobs.resource(fn)

    def on_loop(self, name: str, needs: Callable[[], Any] = lambda: None) -> Resource[Any]:
        async def fn() -> AsyncIterator[Any]:
            needs()
            await asyncio.sleep(0)
            self.seen.append(f"+{name}")
            yield name
            await asyncio.sleep(0)
            self.seen.append(f"-{name}")

        fn.__qualname__ = name
        return self.jobs.resource(fn)


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.001)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


# --- definitions


def plain_function() -> Any:
    return 5


async def coroutine() -> Any:
    return 5


def takes_one(url: str) -> Iterator[str]:
    yield url


@contextmanager
def managed() -> Iterator[int]:
    yield 5


@asynccontextmanager
async def managed_async() -> AsyncIterator[int]:
    yield 5


@pytest.mark.parametrize(
    ("fn", "what"),
    [
        (plain_function, r"^@resource on <function plain_function.*: a function that yields its value once"),
        (coroutine, r"a function that yields its value once"),
        (5, r"^@resource on 5: a function that yields"),
        (Holdfast, r"a function that yields"),
        (takes_one, r"^@resource on <function takes_one.*: it is called without arguments \(missing.*'url'\)"),
        (managed, r"leave the decorator out that was put on it"),
        (managed_async, r"leave the decorator out that was put on it"),
    ],
)
def test_what_is_no_generator_function_without_parameters_is_refused(fn: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        jobs.resource(fn)


def test_a_partial_and_a_default_are_as_good_as_none() -> None:
    def url(host: str, port: int = 80) -> Iterator[str]:
        yield f"{host}:{port}"

    app = Holdfast("memory://")
    made = app.resource(functools.partial(url, "there"))
    with app:
        assert made() == "there:80"


# --- opening and closing


def test_with_the_app_opens_the_plain_ones_in_order_and_closes_them_in_reverse(shelf: Shelf) -> None:
    one = shelf.plain("one")
    two = shelf.plain("two", needs=one)
    shelf.on_loop("http")
    with shelf.jobs:
        assert (one(), two(), shelf.seen) == ("one", "two", ["+one", "+two"])
    assert shelf.seen == ["+one", "+two", "-two", "-one"]
    with shelf.jobs:
        assert one() == "one"
    assert shelf.seen[4:] == ["+one", "+two", "-two", "-one"]


async def test_async_with_the_app_opens_both_kinds_in_order_and_closes_them_in_reverse(shelf: Shelf) -> None:
    one = shelf.plain("one")
    http = shelf.on_loop("http", needs=one)
    two = shelf.plain("two", needs=http)
    async with shelf.jobs:
        assert (one(), http(), two()) == ("one", "http", "two")
        assert await asyncio.to_thread(lambda: (one(), two())) == ("one", "two")
    assert shelf.seen == ["+one", "+http", "+two", "-two", "-http", "-one"]


async def test_the_last_of_several_openers_closes(shelf: Shelf) -> None:
    one, http = shelf.plain("one"), shelf.on_loop("http")
    async with shelf.jobs, shelf.jobs.worker():
        async with shelf.jobs.worker():
            assert (one(), http()) == ("one", "http")
        assert (one(), http()) == ("one", "http")
        assert shelf.seen == ["+one", "+http"]
    assert shelf.seen == ["+one", "+http", "-http", "-one"]


def test_a_plain_value_is_the_processes_and_an_async_one_the_loops(shelf: Shelf) -> None:
    one, http = shelf.plain("one", value=object()), shelf.on_loop("http")

    async def both() -> object:
        async with shelf.jobs:
            return one(), http()

    with shelf.jobs, shelf.jobs.worker():
        assert shelf.seen == ["+one", "+http"]
        assert asyncio.run(both()) == (one(), "http")
        assert shelf.seen == ["+one", "+http", "+http", "-http"]
    assert shelf.seen[4:] == ["-http", "-one"]


async def test_one_task_opens_and_closes_what_must_not_change_tasks() -> None:
    app, tasks = Holdfast("memory://"), list[Any]()

    @app.resource
    async def scope() -> AsyncIterator[int]:
        async with asyncio.timeout(60), asyncio.TaskGroup():  # both refuse to be left by another task
            tasks.append(asyncio.current_task())
            yield 1
            tasks.append(asyncio.current_task())

    async with app.worker():
        assert scope() == 1
    assert len(tasks) == 2
    assert tasks[0] is tasks[1] is not asyncio.current_task()


# --- what goes wrong


class BrokenError(Exception):
    pass


async def test_one_that_cannot_be_opened_closes_the_others_and_starts_no_worker(shelf: Shelf) -> None:
    shelf.plain("one")
    shelf.on_loop("http")

    @shelf.jobs.resource
    def broken() -> Iterator[int]:
        raise BrokenError("no such host")
        yield 1

    shelf.on_loop("never")
    worker = shelf.jobs.worker()
    with pytest.raises(ResourceError, match=r"broken could not be opened: BrokenError: no such host") as refused:
        await worker.__aenter__()
    assert isinstance(refused.value.__cause__, BrokenError)
    assert shelf.seen == ["+one", "+http", "-http", "-one"]
    with pytest.raises(ResourceError, match="broken"):
        worker.start()
    with pytest.raises(ResourceError, match="broken"):
        shelf.jobs.__enter__()
    with pytest.raises(ResourceError, match="broken"):
        await shelf.jobs.__aenter__()
    assert shelf.seen.count("+one") == shelf.seen.count("-one") == 4


async def test_an_async_one_that_cannot_be_opened_says_so_and_may_be_tried_again() -> None:
    app, down = Holdfast("memory://"), [True]

    @app.resource
    async def http() -> AsyncIterator[int]:
        if down[0]:
            raise BrokenError("not yet")
        yield 5

    for _ in range(2):
        with pytest.raises(ResourceError, match=r"http could not be opened: BrokenError: not yet"):
            await app.__aenter__()
    down.clear()
    down.append(False)
    async with app:
        assert http() == 5


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_one_that_yields_nothing_or_twice_is_named(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    app, count = Holdfast("memory://"), [0]
    if kind == "plain":

        @app.resource
        def wrong() -> Iterator[int]:
            yield from range(count[0])
    else:

        @app.resource
        async def wrong() -> AsyncIterator[int]:
            for number in range(count[0]):
                yield number

    with pytest.raises(ResourceError, match=r"wrong: it did not yield a value"):
        await app.__aenter__()
    count[0] = 2
    async with app:
        assert wrong() == 0
    assert "yielded twice" in fields(caplog, "not-closed")[0]["error"]


async def test_one_that_cannot_be_closed_is_told_and_the_others_are_closed(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.plain("one")

    @shelf.jobs.resource
    def bad() -> Iterator[int]:
        yield 1
        raise BrokenError("cannot close")

    @shelf.jobs.resource
    async def worse() -> AsyncIterator[int]:
        yield 1
        raise BrokenError("cannot close")

    shelf.on_loop("http")
    async with shelf.jobs.worker():
        pass
    assert shelf.seen == ["+one", "+http", "-http", "-one"]
    told = fields(caplog, "not-closed")
    assert [entry["resource"].rpartition(".")[2] for entry in told] == ["worse", "bad"]
    assert {entry["error"] for entry in told} == {"BrokenError: cannot close"}
    assert sum("BrokenError" in str(entry.exc_info) for entry in caplog.records) == 2, "with its traceback"


async def test_one_that_never_closes_holds_up_its_worker_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resources, "CLOSE_MOST", 0.05)
    app, ended, others = Holdfast("memory://"), asyncio.Event(), list[str]()

    @app.resource
    async def other() -> AsyncIterator[int]:
        yield 1
        others.append("closed")

    @app.resource
    async def stuck() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with app:
        pass
    await soon(ended.wait(), "it was not cut")
    await until(lambda: others == ["closed"], "the others are not closed")
    assert events(caplog, "not-closed") == ["not-closed"]
    async with app:
        assert stuck() == 1


async def test_who_leaves_while_they_are_opened_leaves_nothing_open(shelf: Shelf) -> None:
    reached = asyncio.Event()
    shelf.plain("one")

    @shelf.jobs.resource
    async def slow() -> AsyncIterator[int]:
        reached.set()
        await asyncio.Event().wait()
        yield 1

    opening = asyncio.create_task(shelf.jobs.worker().__aenter__())
    await soon(reached.wait(), "it is not opened")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(opening, "it does not leave")
    assert shelf.seen == ["+one", "-one"]


class FatalError(BaseException):
    pass


def skip() -> None:
    pytest.skip("no server")


def leave() -> None:
    sys.exit(5)


def refuse() -> None:
    raise FatalError("too old")


def cancel() -> None:
    raise asyncio.CancelledError


def end() -> None:
    raise GeneratorExit


HARD = {
    "skip": (skip, "Skipped: no server"),
    "exit": (leave, "SystemExit: 5"),
    "own": (refuse, "FatalError: too old"),
    "cancel": (cancel, "CancelledError"),
    "end": (end, "GeneratorExit"),
}


def hard(shelf: Shelf, kind: str, *, opens: Callable[[], None] = int, closes: Callable[[], None] = int) -> None:
    if kind == "plain":

        @shelf.jobs.resource
        def it() -> Iterator[int]:
            opens()
            yield 1
            closes()
    else:

        @shelf.jobs.resource
        async def it() -> AsyncIterator[int]:
            opens()
            yield 1
            closes()


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("what", HARD)
async def test_whatever_an_opening_raises_comes_to_who_opens(shelf: Shelf, kind: str, what: str) -> None:
    raises, said = HARD[what]
    shelf.plain("one")
    shelf.on_loop("http")
    hard(shelf, kind, opens=raises)
    for _ in range(2):
        with pytest.raises(ResourceError, match=rf"it could not be opened: {said}$"):
            await soon(shelf.jobs.__aenter__(), "it waits for ever")
    with pytest.raises(ResourceError, match=said):
        await soon(asyncio.to_thread(shelf.jobs.worker().start), "it waits for ever")
    assert shelf.seen == ["+one", "+http", "-http", "-one"] * 3


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("what", HARD)
async def test_whatever_a_closing_raises_is_told_and_the_others_are_closed(
    shelf: Shelf, kind: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    raises, said = HARD[what]
    shelf.plain("one")
    shelf.on_loop("http")
    hard(shelf, kind, closes=raises)
    for _ in range(2):
        await soon(shelf.jobs.__aenter__(), "it is not opened")
        await soon(shelf.jobs.__aexit__(), "it is not closed")
    assert shelf.seen == ["+one", "+http", "-http", "-one"] * 2
    assert [entry["error"] for entry in fields(caplog, "not-closed")] == [said] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, FatalError])
def test_in_the_callers_own_thread_what_may_come_from_a_signal_stays_what_it_is(
    shelf: Shelf, error: type[BaseException]
) -> None:
    signals: list[str] = ["opening", "closing"]

    def interrupted(when: str) -> None:
        if when in signals:
            signals.remove(when)
            raise error

    shelf.plain("one")
    hard(shelf, "plain", opens=lambda: interrupted("opening"), closes=lambda: interrupted("closing"))
    with pytest.raises(error):
        shelf.jobs.__enter__()
    assert shelf.seen == ["+one", "-one"]
    shelf.jobs.__enter__()
    if error is FatalError:  # no signal's: a resource that closes badly raises nothing
        shelf.jobs.__exit__()
    else:
        with pytest.raises(error):
            shelf.jobs.__exit__()
    assert shelf.seen == ["+one", "-one"] * 2
    with shelf.jobs:
        assert shelf.seen[4:] == ["+one"]


async def test_one_that_takes_no_notice_of_a_cancel_is_closed_and_no_other_is_opened(shelf: Shelf) -> None:
    reached = asyncio.Event()

    @shelf.jobs.resource
    async def stubborn() -> AsyncIterator[int]:
        reached.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        shelf.seen.append("+stubborn")
        yield 1
        shelf.seen.append("-stubborn")

    shelf.plain("never")
    opening = asyncio.create_task(shelf.jobs.worker().__aenter__())
    await soon(reached.wait(), "it is not opened")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(opening, "it does not leave")
    assert shelf.seen == ["+stubborn", "-stubborn"]


async def test_one_that_is_not_wanted_before_its_opening_has_begun_can_be_opened_later(shelf: Shelf) -> None:
    one, opened = shelf.plain("one"), parts_of(shelf.jobs).resources
    for turns in range(4):
        opening = asyncio.create_task(opened.aopen())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(opening, "it does not leave")
    again = await soon(opened.aopen(), "it waits for what nobody opens")
    assert one() == "one"
    await again.aclose()


# --- those that take long


class Gate:
    """A plain resource that waits while it is opened, or closed."""

    def __init__(self, shelf: Shelf, *, closing: bool = False) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

        def fn() -> Iterator[str]:
            if not closing:
                self._pass()
            shelf.seen.append("+gate")
            yield "gate"
            if closing:
                self._pass()
            shelf.seen.append("-gate")

        fn.__qualname__ = "gate"
        self.resource = shelf.jobs.resource(fn)

    def _pass(self) -> None:
        self.reached.set()
        assert self.go.wait(60), "nobody opens the gate"


async def test_a_plain_one_is_opened_while_the_loop_goes_on(shelf: Shelf) -> None:
    gate = Gate(shelf)
    opening = asyncio.create_task(parts_of(shelf.jobs).resources.aopen())
    await until(gate.reached.is_set, "it is not opened")
    assert not opening.done()
    gate.go.set()
    opened = await soon(opening, "it does not end")
    assert gate.resource() == "gate"
    await opened.aclose()


async def test_plain_ones_are_opened_and_closed_in_one_thread_and_context() -> None:
    app, seen, tenant = Holdfast("memory://"), list[Any](), ContextVar[str]("tenant")

    def note() -> Any:
        return threading.get_ident(), tenant.get("nobody")

    @app.resource
    def first() -> Iterator[int]:
        seen.append(note())
        token = tenant.set("first")
        yield 1
        tenant.reset(token)  # refused in any other context
        seen.append(note())

    @app.resource
    def second() -> Iterator[int]:
        seen.append(note())
        yield first()
        seen.append(note())

    tenant.set("mine")
    async with app:
        assert (second(), tenant.get()) == (1, "mine")
    assert {thread for thread, _ in seen} == {seen[0][0]} != {threading.get_ident()}
    assert [who for _, who in seen] == ["mine", "first", "first", "mine"]


async def test_a_plain_one_that_hangs_is_left_and_closed_should_it_open_yet(shelf: Shelf) -> None:
    shelf.plain("one")
    gate = Gate(shelf)
    shelf.plain("never")
    opening = asyncio.create_task(shelf.jobs.worker().__aenter__())
    await until(gate.reached.is_set, "it is not opened")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(opening, "it does not leave")
    assert shelf.seen == ["+one", "-one"], "the others do not wait for it"
    gate.go.set()
    await until(lambda: shelf.seen == ["+one", "-one", "+gate", "-gate"], "it stays open")
    async with shelf.jobs:
        assert gate.resource() == "gate"


async def test_a_plain_one_that_hangs_while_it_is_closed_holds_up_its_worker_for_a_while_only(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resources, "CLOSE_MOST", 0.05)
    shelf.plain("one")
    gate = Gate(shelf, closing=True)
    async with shelf.jobs:
        pass
    await until(lambda: shelf.seen == ["+one", "+gate", "-one"], "the others are not closed")
    (told,) = fields(caplog, "not-closed")
    assert told["resource"] == gate.resource.name
    async with shelf.jobs:
        assert gate.resource() == "gate", "another is opened meanwhile"
        gate.go.set()
        await until(lambda: "-gate" in shelf.seen, "the first does not end")
        assert gate.resource() == "gate"


@pytest.mark.parametrize("how", ["with", "async with", "async with, async"])
async def test_one_that_takes_long_to_open_is_named(
    shelf: Shelf, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resources, "TELL_AFTER", 0.02)
    go, opened = threading.Event(), parts_of(shelf.jobs).resources
    shelf.plain("quick")
    if how == "async with, async":

        @shelf.jobs.resource
        async def slow() -> AsyncIterator[int]:
            await asyncio.to_thread(go.wait, 60)
            yield 1
    else:

        @shelf.jobs.resource
        def slow() -> Iterator[int]:
            go.wait(60)
            yield 1

    opening: asyncio.Task[Any] = asyncio.create_task(
        asyncio.to_thread(opened.open) if how == "with" else opened.aopen()
    )
    await until(lambda: events(caplog, "opening"), "nothing is told")
    assert [entry["resource"] for entry in fields(caplog, "opening")] == [slow.name]
    go.set()
    held = await soon(opening, "it does not end")
    await (asyncio.to_thread(held.close) if how == "with" else held.aclose())


# --- opened at their first use, as in a slot process


@pytest.fixture
def slot(shelf: Shelf) -> Iterator[Shelf]:
    parts_of(shelf.jobs).resources.at_first_use = True
    yield shelf
    parts_of(shelf.jobs).resources.close()


def in_thread(call: Callable[[], Any]) -> Any:
    """What it gives or raises in a thread of its own."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result(60)


def test_a_thread_of_an_opener_may_ask_for_another(slot: Shelf) -> None:
    one = slot.plain("one")
    two = slot.plain("two", needs=lambda: in_thread(one))
    assert (two(), slot.seen) == ("two", ["+one", "+two"])
    parts_of(slot.jobs).resources.close()
    assert slot.seen[2:] == ["-two", "-one"], "what the other needs is closed after it"


def test_those_that_need_each_other_in_a_circle_say_so(slot: Shelf) -> None:
    found: list[Resource[Any]] = []

    def in_turn(place: int) -> Any:
        return found[place]()

    found.append(slot.plain("one", needs=lambda: in_turn(1)))
    found.append(slot.plain("two", needs=lambda: in_turn(0)))
    with pytest.raises(ResourceError, match=r"one: it is needed for itself, while it is being opened"):
        found[0]()
    assert slot.seen == []


def test_threads_that_would_wait_for_each_other_are_told_so(slot: Shelf) -> None:
    both, errors, found = threading.Barrier(2), list[str](), list[Resource[Any]]()

    def needs(place: int) -> Callable[[], Any]:
        def ask() -> Any:
            both.wait(60)
            return found[place]()

        return ask

    def use(resource: Resource[Any]) -> None:
        try:
            resource()
        except ResourceError as error:
            errors.append(str(error))

    found[:] = [slot.plain("one", needs=needs(1)), slot.plain("two", needs=needs(0))]
    threads = [threading.Thread(target=use, args=(one,), daemon=True) for one in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(errors) == 2, "they wait for each other"
    assert all("it is needed for itself" in error for error in errors)
    assert slot.seen == []


def test_who_comes_while_it_is_opened_waits_and_shares_what_comes_of_it(slot: Shelf) -> None:
    gate, answers = Gate(slot), list[str]()
    threads = [threading.Thread(target=lambda: answers.append(gate.resource())) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert gate.reached.wait(60)
    gate.go.set()
    for thread in threads:
        thread.join(60)
    assert (answers, slot.seen) == (["gate"] * 8, ["+gate"])
    parts_of(slot.jobs).resources.close()
    assert slot.seen == ["+gate", "-gate"]


def test_who_waits_for_one_that_cannot_be_opened_hears_why(slot: Shelf) -> None:
    tries, reached, go = list[int](), threading.Event(), threading.Event()

    @slot.jobs.resource
    def broken() -> Iterator[int]:
        tries.append(1)
        reached.set()
        go.wait(60)
        raise BrokenError("no such host")
        yield 1

    errors: list[ResourceError] = []

    def use() -> None:
        try:
            broken()
        except ResourceError as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(2)]
    threads[0].start()
    assert reached.wait(60)
    threads[1].start()
    shared: Any = parts_of(slot.jobs).resources._shared  # noqa: SLF001
    wait_for(lambda: len(shared._waiting) == 1)  # noqa: SLF001
    go.set()
    for thread in threads:
        thread.join(60)
    assert [str(error).rpartition(".")[2] for error in errors] == [
        "broken could not be opened: BrokenError: no such host"
    ] * 2
    assert {type(error.__cause__) for error in errors} == {BrokenError}
    assert len(tries) == 1


# --- where they may be used


async def test_outside_it_says_what_would_open_it(shelf: Shelf) -> None:
    one, http = shelf.plain("one"), shelf.on_loop("http")
    with pytest.raises(ResourceError, match=r"^resource tests.test_resource.one: it is not open in this process; a w"):
        one()
    with pytest.raises(ResourceError, match=r"http: it is not open on this event loop; .* `async with jobs:`, or ov"):
        http()
    async with shelf.jobs:
        assert one() == "one"
    with pytest.raises(ResourceError, match="not open"):
        one()
    with pytest.raises(ResourceError, match="not open"):
        http()


async def test_an_async_one_in_a_thread_says_what_to_do(shelf: Shelf) -> None:
    http = shelf.on_loop("http")
    async with shelf.jobs:
        with pytest.raises(ResourceError, match=r"it is async.*does not run there; use it in an async handler, or"):
            await asyncio.to_thread(http)
        assert http() == "http"


async def test_one_defined_later_is_not_open(shelf: Shelf) -> None:
    shelf.plain("one")
    async with shelf.jobs:
        late = shelf.plain("late")
        with pytest.raises(ResourceError, match=r"late: it is not open in this process: defined, or overridden, when"):
            late()


async def test_override_needs_nothing_open_and_goes_before_what_is(shelf: Shelf) -> None:
    one, http = shelf.plain("one"), shelf.on_loop("http")
    with one.override("fake"), http.override(None):
        assert (one(), http()) == ("fake", None)
        with one.override("other"):
            assert await asyncio.to_thread(one) == "other"
        assert one() == "fake"
    async with shelf.jobs:
        with one.override("fake"):
            assert one() == "fake"
        assert one() == "one"


async def test_what_is_overridden_when_a_worker_starts_is_not_opened(shelf: Shelf) -> None:
    one, http = shelf.plain("one"), shelf.on_loop("http")
    shelf.plain("two")
    with one.override("fake"), http.override("fake"):
        async with shelf.jobs.worker():
            assert (one(), http(), shelf.seen) == ("fake", "fake", ["+two"])
    assert shelf.seen == ["+two", "-two"]


def test_overrides_that_are_left_in_another_order_than_entered(shelf: Shelf) -> None:
    one, value = shelf.plain("one"), object()
    first, second = one.override(value), one.override("second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert one() == "second"
    second.__exit__(None, None, None)
    with pytest.raises(ResourceError):
        one()


def test_threads_that_open_and_close_at_once_share_one_value(shelf: Shelf) -> None:
    one, opened = shelf.plain("one"), parts_of(shelf.jobs).resources
    started, wrong = threading.Barrier(8), list[str]()

    def use() -> None:
        started.wait(30)
        for _ in range(200):
            opening = opened.open()
            if one() != "one":
                wrong.append("another value")
            opening.close()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert shelf.seen[0::2] == ["+one"] * (len(shelf.seen) // 2)
    assert shelf.seen[1::2] == ["-one"] * (len(shelf.seen) // 2)


# --- fork


def test_a_forked_child_neither_uses_nor_closes_what_its_parent_opened(shelf: Shelf) -> None:
    one = shelf.plain("one")
    reading, writing = os.pipe()
    with shelf.jobs:
        pid = os.fork()
        if pid == 0:
            _child(shelf, one, writing)
        os.close(writing)
        with os.fdopen(reading) as said:
            lines = said.read().splitlines()
        os.waitpid(pid, 0)
        assert (one(), shelf.seen) == ("one", ["+one"])
    assert lines[0].startswith("resource tests.test_resource.one: it is not open in this process")
    assert lines[1:] == ["['+one', '+one'] one", "['+one', '+one', '-one']"], "its own, opened and closed by itself"


def _child(shelf: Shelf, one: Resource[Any], writing: int) -> None:
    lines: list[str] = []
    try:
        try:
            one()
        except ResourceError as error:
            lines.append(str(error))
        opening = parts_of(shelf.jobs).resources.open()
        shelf.jobs.__exit__(None, None, None)  # what its parent entered
        lines.append(f"{shelf.seen} {one()}")
        opening.close()
        lines.append(repr(shelf.seen))
    except BaseException as error:  # noqa: BLE001
        lines.append(repr(error))
    os.write(writing, "\n".join(lines).encode())
    os._exit(0)
