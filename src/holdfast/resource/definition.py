"""A resource as users have it: called for its value, overridden in tests; and what they may define as one."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar, cast

from holdfast.errors import ConfigError

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

CLOSED: Any = object()

loop_of: ContextVar[asyncio.AbstractEventLoop] = ContextVar("holdfast_resource_loop")  # for which a thread opens


class Resource(Generic[R_co]):
    """Something that handlers share. Call it for the value: `(await http().get(url))`."""

    def __init__(self, fn: Callable[..., Any], missing: Callable[[Resource[Any]], Any]) -> None:
        self.__wrapped__ = fn
        self.__doc__ = fn.__doc__
        self.name = _name_of(fn)
        self.is_async = inspect.isasyncgenfunction(fn)
        self._missing = missing
        self._overrides: list[Any] = []
        self.plain: Any = CLOSED
        self.on_loops: dict[asyncio.AbstractEventLoop, Any] = {}

    def __call__(self) -> R_co:
        """The open value. Raises ResourceError where it is not open: outside of a worker and of `async with jobs:`."""
        overrides = self._overrides
        if overrides:
            return cast("R_co", overrides[-1])
        value: Any = self.plain
        if self.is_async:
            loop = loop_here()
            value = CLOSED if loop is None else self.on_loops.get(loop, CLOSED)
        return cast("R_co", value if value is not CLOSED else self._missing(self))

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


def loop_here() -> asyncio.AbstractEventLoop | None:
    """The loop whose async values this code may have: the running one; of a plain opener, the one it opens for."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return loop_of.get(None)


def check(fn: Any) -> None:
    """ConfigError for what is no generator function without parameters."""
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
