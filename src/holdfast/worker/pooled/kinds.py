"""What may be submitted to a pool, and where it runs: in a thread, on the loop, or in a process."""

from __future__ import annotations

import functools
import inspect
from enum import IntEnum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Literal, cast

from holdfast.errors import ConfigError
from holdfast.task import Task

_ASYNC = inspect.CO_COROUTINE
_ODD = _ASYNC | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE

_MARK = "_is_coroutine_mark"  # inspect.markcoroutinefunction, since Python 3.12


class Kind(IntEnum):
    """Where a job's code runs."""

    THREAD = 0
    LOOP = 1
    PROCESS = 2


THREAD, LOOP, PROCESS = Kind.THREAD, Kind.LOOP, Kind.PROCESS


def kind_of(fn: Any, run_in: Literal["thread", "process"] | None) -> Kind:
    """ConfigError for what cannot be called, for generator functions, and for an async one with `run_in="thread"`."""
    if run_in is None:  # nearly always, and cheaply
        plain = fn.__func__ if type(fn) is MethodType else fn
        if type(plain) is FunctionType and _MARK not in plain.__dict__:
            odd = plain.__code__.co_flags & _ODD
            if not odd:
                return THREAD
            if odd == _ASYNC:
                return LOOP
        elif type(plain) is BuiltinFunctionType or type(plain) is type:
            return THREAD
    if isinstance(fn, Task):
        fn = fn.fn
    inner = _innermost(fn)
    _check(fn, inner)
    is_async = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(fn)
    if run_in == "process":
        return PROCESS
    if is_async and run_in == "thread":
        raise ConfigError(f"run_in='thread', but {name_of(fn)} is async: it runs on an event loop; leave run_in= out")
    return LOOP if is_async else THREAD


def _innermost(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    if callable(fn) and not inspect.isroutine(fn) and not inspect.isclass(fn):
        return type(fn).__call__
    return fn


def _check(fn: Any, inner: Any) -> None:
    if inspect.iscoroutine(fn):
        name = fn.__qualname__
        fn.close()  # nobody will await it
        raise ConfigError(f"fn={name}(...): a coroutine; submit the function and its arguments: submit({name}, ...)")
    if inspect.isgenerator(fn) or inspect.isasyncgen(fn):
        raise ConfigError(f"fn={fn!r}: a generator; give a function; for its items use each() or map()")
    if not callable(fn):
        raise ConfigError(f"fn={fn!r}: cannot be called; give a function and its arguments: submit(fn, ...)")
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigError(f"fn={name_of(fn)}: a generator function, whose body would not run; give a function")


def name_of(fn: Any) -> str:
    """The function's name with its module, for people."""
    if isinstance(fn, Task):
        return fn.name
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not hasattr(fn, "__qualname__"):
        fn = cast("Any", type(fn))
    module = getattr(fn, "__module__", None)
    return f"{module}.{fn.__qualname__}" if isinstance(module, str) else str(fn.__qualname__)
