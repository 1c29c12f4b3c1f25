"""Resources: opened before, closed after, in order; where they may be used, and what is said where they may not."""

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from holdfast.resource import steps as resources
from holdfast import ConfigError, Holdfast
from holdfast.app import parts_of
from holdfast.errors import ResourceError
from holdfast.resource import Resource
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
