"""jobs.resource: what handlers share, such as a client or a pool: opened before the first job, closed after the last.

A plain resource has one value per process, however many workers have opened it. An async one has a value per event
loop, and is for code on that loop. In a slot process the plain ones are opened at their first use.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Generic, TypeVar, cast

from holdfast.errors import ConfigError, ResourceError
from holdfast.observe.logging import tell, workers
from holdfast.observe.tracebacks import text_of

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

CLOSE_MOST = 5.0  # seconds for the async ones of a loop
_CLOSED: Any = object()
_left_by_fork: list[object] = []
_all: weakref.WeakSet[Resources] = weakref.WeakSet()


class Resource(Generic[R_co]):
    """Something that handlers share. Call it for the value: `(await http().get(url))`."""

    def __init__(self, fn: Callable[..., Any], name: str, resources: Resources) -> None:
        self.__wrapped__ = fn
        self.__doc__ = fn.__doc__
        self.name = name
        self.is_async = inspect.isasyncgenfunction(fn)
        self._resources = resources
        self._overrides: list[Any] = []
        self.plain: Any = _CLOSED
        self.on_loops: dict[asyncio.AbstractEventLoop, Any] = {}

    def __call__(self) -> R_co:
        """The open value. Raises ResourceError where it is not open: outside of a worker and of `async with jobs:`."""
        overrides = self._overrides
        if overrides:
            return cast("R_co", overrides[-1])
        value: Any = self.plain
        if self.is_async:
            loop = _loop()
            value = _CLOSED if loop is None else self.on_loops.get(loop, _CLOSED)
        return cast("R_co", value if value is not _CLOSED else self._resources.missing(self))

    def override(self: Resource[T], value: T) -> AbstractContextManager[None]:
        """For tests and scripts: while it is entered, this is the value, in the whole process, open or not."""
        return self._overridden(value)

    @contextmanager
    def _overridden(self, value: object) -> Generator[None]:
        self._overrides = [*self._overrides, value]
        try:
            yield
        finally:
            self._overrides = _without(self._overrides, value)

    @property
    def overridden(self) -> bool:
        """Whether a value stands in for it now."""
        return bool(self._overrides)

    def __repr__(self) -> str:
        return f"<Resource {self.name}>"


class Resources:
    """An app's resources, in the order of their definition."""

    def __init__(self) -> None:
        self.all: list[Resource[Any]] = []
        self.at_first_use = False  # in a slot process
        self._lock = threading.RLock()
        self._plain: dict[Resource[Any], _Shared] = {}
        self._openings: dict[asyncio.AbstractEventLoop, Opening] = {}
        _all.add(self)

    def define(self, fn: Callable[..., Any]) -> Resource[Any]:
        """Makes a resource of a generator function without parameters. ConfigError for what is none."""
        _check(fn)
        made = Resource[Any](fn, _name_of(fn), self)
        self.all.append(made)
        return made

    # --- opening

    async def aopen(self) -> Opening:
        """Opens all on this loop, or counts one opener more. Every opener calls `Opening.aclose` once.

        Raises ResourceError, with nothing left open, if one cannot be opened.
        """
        loop = asyncio.get_running_loop()
        while (opening := self._openings.get(loop)) is not None and opening.leaving:
            await opening.gone()
        if opening is None:
            opening = self._openings[loop] = Opening(self, loop)
        await opening.join()
        return opening

    async def aclose(self) -> None:
        """For an opener on this loop that has not kept its Opening."""
        opening = self._openings.get(asyncio.get_running_loop())
        if opening is not None:
            await opening.aclose()

    def open(self) -> PlainOpening:
        """Opens the plain ones. Raises ResourceError, with nothing left open, if one cannot be opened."""
        opened: list[Resource[Any]] = []
        try:
            for resource in self.wanted():
                if not resource.is_async:
                    self.acquire(resource)
                    opened.append(resource)
        except BaseException:
            self._release_all(opened)
            raise
        return PlainOpening(lambda: self._release_all(opened))

    def close(self) -> None:
        """In a slot process that leaves: closes what was opened at its first use."""
        with self._lock:
            self._release_all(list(self._plain))

    def wanted(self) -> Sequence[Resource[Any]]:
        """Those that an opener has to open now: nothing stands in for them, and they are not for the first use."""
        return [one for one in self.all if not one.overridden and (one.is_async or not self.at_first_use)]

    def acquire(self, resource: Resource[Any]) -> None:
        """Opens a plain one, or counts one opener more."""
        with self._lock:
            shared = self._plain.get(resource)
            if shared is None:
                shared = _Shared(resource.__wrapped__())
                with _opening(resource):
                    resource.plain = next(shared.generator)
                self._plain[resource] = shared
            shared.openers += 1

    def release(self, resource: Resource[Any]) -> None:
        """The last opener closes it."""
        with self._lock:
            shared = self._plain.get(resource)
            if shared is None:  # opened before a fork: it is the parent's
                return
            shared.openers -= 1
            if shared.openers:
                return
            del self._plain[resource]
            resource.plain = _CLOSED
            with _closing(resource, StopIteration):
                next(shared.generator)

    def _release_all(self, opened: Sequence[Resource[Any]]) -> None:
        for resource in reversed(opened):
            self.release(resource)

    def left(self, opening: Opening) -> bool:
        """The resources of a loop are closed, or given up. False: that was known."""
        if self._openings.get(opening.loop) is not opening:
            return False
        del self._openings[opening.loop]
        return True

    # --- where one is asked for and not open

    def missing(self, resource: Resource[Any]) -> Any:
        """The value of one that is opened at its first use. ResourceError, saying what to do, for all others."""
        if self.at_first_use and not resource.is_async:
            with self._lock:
                if resource.plain is _CLOSED:
                    self.acquire(resource)
                return resource.plain
        raise ResourceError(f"resource {resource.name}: {self._why_not(resource)}")

    def _why_not(self, resource: Resource[Any]) -> str:
        if resource.is_async and _loop() is None:
            return (
                "it is async, so it lives on the worker's event loop, and this code does not run there; "
                "use it in an async handler, or make it a plain generator (def, not async def) that threads may share"
            )
        where = "on this event loop" if resource.is_async else "in this process"
        if resource.overridden or any(other is not resource for other in self._open_here()):
            return f"it is not open {where}: defined, or overridden, when the others were opened"
        with_jobs = "`async with jobs:`" if resource.is_async else "`with jobs:` or `async with jobs:`"
        return f"it is not open {where}; a worker opens it for its handlers; elsewhere use {with_jobs}, or override()"

    def _open_here(self) -> list[Resource[Any]]:
        return [one for one in self.all if one.plain is not _CLOSED or _loop() in one.on_loops]

    def forget(self) -> None:
        """In a forked child: what is open is the parent's. It stays referenced, so that no finalizer closes it."""
        _left_by_fork.append((self._plain, self._openings, [(one.plain, one.on_loops) for one in self.all]))
        self._lock, self._plain, self._openings = threading.RLock(), {}, {}
        for resource in self.all:
            resource.plain, resource.on_loops = _CLOSED, {}


class PlainOpening:
    """The plain resources, as one opener holds them."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close
        self._pid = os.getpid()

    def close(self) -> None:
        """Closes them, in reverse order, unless others hold them. Never raises: what goes wrong is logged."""
        if os.getpid() == self._pid:
            self._close()


class Opening:
    """The resources that are open on one loop. The last of its openers closes them.

    One task opens and closes them, because what libraries open in one task often cannot be closed in another.
    """

    def __init__(self, resources: Resources, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.leaving = False
        self._resources = resources
        self._openers = 0
        self._ready: asyncio.Future[None] = loop.create_future()
        self._over = asyncio.Event()
        self._pid = os.getpid()
        self._task: asyncio.Task[None] | None = None
        if resources.wanted():
            self._task = loop.create_task(self._hold(), name="holdfast-resources")
        else:
            self._ready.set_result(None)

    async def join(self) -> None:
        """One opener more. Raises ResourceError if one of them cannot be opened."""
        self._openers += 1
        try:
            await asyncio.shield(self._ready)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """One opener less. Never raises: what goes wrong is logged."""
        self._openers -= 1
        if self._openers or os.getpid() != self._pid:
            return
        self.leaving = True
        self._over.set()
        if self._task is not None and not self._ready.done():
            self._task.cancel()
        await self.gone()

    async def gone(self) -> None:
        """Waits until they are closed, at most CLOSE_MOST seconds."""
        if self._task is None:
            self._resources.left(self)
            return
        _, late = await asyncio.wait({self._task}, timeout=CLOSE_MOST)
        if late and self._resources.left(self):
            self._task.cancel()
            text = f"still closing after {CLOSE_MOST:g} s; it goes on without them"
            tell(workers, logging.WARNING, "not-closed", message=text)

    async def _hold(self) -> None:
        opened: list[tuple[Resource[Any], AsyncGenerator[Any] | None]] = []
        try:
            for resource in self._resources.wanted():
                opened.append((resource, await self._open(resource)))  # noqa: PERF401  # known, should the next one fail
            self._ready.set_result(None)
            await self._over.wait()
        except Exception as error:  # noqa: BLE001  # it belongs to those who wait for them to be open
            self._ready.set_exception(error)
        finally:
            self.leaving = True
            for resource, generator in reversed(opened):
                with suppress(asyncio.CancelledError):  # it takes too long: the others are closed all the same
                    await self._close(resource, generator)
            self._resources.left(self)

    async def _open(self, resource: Resource[Any]) -> AsyncGenerator[Any] | None:
        if not resource.is_async:
            self._resources.acquire(resource)
            return None
        generator: AsyncGenerator[Any] = resource.__wrapped__()
        with _opening(resource):
            resource.on_loops[self.loop] = await anext(generator)
        return generator

    async def _close(self, resource: Resource[Any], generator: AsyncGenerator[Any] | None) -> None:
        if generator is None:
            self._resources.release(resource)
            return
        resource.on_loops.pop(self.loop, None)
        with _closing(resource, StopAsyncIteration):
            await anext(generator)


class _Shared:
    """An open plain resource, and how many hold it."""

    def __init__(self, generator: Generator[Any]) -> None:
        self.generator = generator
        self.openers = 0


@contextmanager
def _opening(resource: Resource[Any]) -> Generator[None]:
    try:
        yield
    except (StopIteration, StopAsyncIteration) as error:
        raise ResourceError(f"resource {resource.name}: it did not yield a value") from error
    except Exception as error:
        what = f"{type(error).__name__}: {text_of(error)}"
        raise ResourceError(f"resource {resource.name} could not be opened: {what}") from error


@contextmanager
def _closing(resource: Resource[Any], end: type[Exception]) -> Generator[None]:
    """What is opened is closed once, whatever comes of it, and the others are closed all the same."""
    try:
        yield
    except end:
        return
    except Exception as error:  # noqa: BLE001
        _tell_not_closed(resource, f"{type(error).__name__}: {text_of(error)}", error)
    else:
        _tell_not_closed(resource, "it yielded twice: a resource yields its value, and what follows closes it", None)


def _tell_not_closed(resource: Resource[Any], why: str, error: Exception | None) -> None:
    tell(workers, logging.ERROR, "not-closed", resource=resource.name, error=why)
    if error is not None:
        workers.error("resource %s could not be closed", resource.name, exc_info=error)


def _check(fn: Any) -> None:
    if not inspect.isgeneratorfunction(fn) and not inspect.isasyncgenfunction(fn):
        within = getattr(fn, "__wrapped__", None)
        unwrap = inspect.isgeneratorfunction(within) or inspect.isasyncgenfunction(within)
        hint = "; leave the decorator out that was put on it" if unwrap else ""
        raise ConfigError(
            f"@resource on {fn!r}: a function that yields its value once, opens it before and closes it after{hint}"
        )
    try:
        inspect.signature(fn).bind()
    except TypeError as error:
        raise ConfigError(
            f"@resource on {fn!r}: it is called without arguments ({error}); it may call another resource instead"
        ) from None


def _name_of(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = cast("Any", fn).func
    return f"{fn.__module__}.{fn.__qualname__}".replace(".<locals>", "")


def _without(values: Sequence[Any], last: object) -> list[Any]:
    """`values` without the last one that is `last` itself: overrides may be left in another order than entered."""
    place = max(place for place, value in enumerate(values) if value is last)
    return [*values[:place], *values[place + 1 :]]


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _after_fork() -> None:
    for resources in list(_all):
        resources.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
