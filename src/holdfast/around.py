"""jobs.around and carry: what an app puts round every attempt, in the handler's own context.

The carried variables are set first, then the generators run up to their `yield`, the first defined the outermost.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, cast

from holdfast.context import CurrentJob
from holdfast.errors import ConfigError
from holdfast.headers import Carry

Hook = Callable[[CurrentJob], Iterator[None]]


class Around:
    """An app's hooks and carried variables. False while there is nothing to put round an attempt."""

    def __init__(self, carry: Carry) -> None:
        self._carry = carry
        self._hooks: list[Hook] = []
        self.used = bool(carry.variables)  # read once for each attempt

    def __bool__(self) -> bool:
        return self.used

    def define(self, fn: Hook) -> Hook:
        """Adds a hook. ConfigError for what is no generator function of one parameter, the job."""
        _check(fn)
        self._hooks.append(fn)
        self.used = True
        return fn

    def enter(self, job: CurrentJob) -> Round:
        """What is entered for one attempt."""
        return Round(job, self._carry, self._hooks)


class Round:
    """The hooks round one attempt. They see its error at their `yield`; to swallow it changes nothing, to raise another
    replaces it.
    """

    def __init__(self, job: CurrentJob, carry: Carry, hooks: list[Hook]) -> None:
        self._job = job
        self._carry = carry
        self._hooks = hooks
        self._entered: list[tuple[Hook, Generator[None]]] = []

    def __enter__(self) -> None:
        self._carry.restore(self._job.headers)
        for hook in self._hooks:
            try:
                self._enter(hook)
            except BaseException as error:
                self._leave(error)
                raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave(error)

    def _enter(self, hook: Hook) -> None:
        generator = cast("Generator[None]", hook(self._job))
        try:
            next(generator)
        except StopIteration:
            raise ConfigError(f"around {_name(hook)}: it did not yield, so the handler did not run") from None
        self._entered.append((hook, generator))

    def _leave(self, error: BaseException | None) -> None:
        """Raises what the attempt ends with, if that is not `error`."""
        last = error
        while self._entered:
            last = _left(*self._entered.pop(), last)
        if last is not error and last is not None:
            raise last


def _left(hook: Hook, generator: Generator[None], error: BaseException | None) -> BaseException | None:
    """What the attempt ends with after this hook."""
    at = error.__traceback__ if error is not None else None
    try:
        if error is None:
            next(generator)
        else:
            generator.throw(error)
    except BaseException as other:  # noqa: BLE001  # whatever it raises is what the attempt ends with
        if not isinstance(other, StopIteration) and not _is_same(other, error):
            return other
        return error if error is None else error.with_traceback(at)  # without what was added on its way through here
    with suppress(BaseException):
        generator.close()
    twice = ConfigError(f"around {_name(hook)}: it yielded twice; the handler runs once, at its one yield")
    twice.__cause__ = error
    return twice


def _is_same(other: BaseException, error: BaseException | None) -> bool:
    """Whether a hook let `error` pass: Python makes a RuntimeError of a StopIteration that leaves a generator."""
    if other is error:
        return True
    return isinstance(error, (StopIteration, StopAsyncIteration)) and other.__cause__ is error


def _check(fn: Any) -> None:
    if not inspect.isgeneratorfunction(fn):
        hint = "; leave @contextmanager out" if inspect.isgeneratorfunction(getattr(fn, "__wrapped__", None)) else ""
        if inspect.isasyncgenfunction(fn):
            hint = "; without async: it runs in threads too"
        raise ConfigError(
            f"@around on {fn!r}: a generator function with one yield, (job: CurrentJob) -> Iterator[None]{hint}"
        )
    try:
        inspect.signature(fn).bind(None)
    except TypeError as error:
        raise ConfigError(f"@around on {fn!r}: it is called with one argument, the CurrentJob ({error})") from None


def _name(hook: Any) -> str:
    while isinstance(hook, functools.partial):
        hook = cast("Any", hook).func
    return f"{hook.__module__}.{hook.__qualname__}".replace(".<locals>", "")
