"""The two steps of a resource's generator, up to its `yield` and to its end: watched, and what goes wrong is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from holdfast.errors import ResourceError, Stop
from holdfast.observe.logging import tell, workers
from holdfast.observe.tracebacks import text_of
from holdfast.resource.definition import Resource

TELL_AFTER = 5.0  # seconds that one may take to open before that is told
CLOSE_MOST = 5.0  # seconds that is waited for those of a loop to be closed, or for a plain one to be opened again
FOR_THE_CALLER = (KeyboardInterrupt, SystemExit, Stop)  # may have come from a signal, so they are not the generator's


Passes = Callable[[BaseException], bool]


def nothing(error: BaseException) -> bool:
    """Whatever is raised was raised by the resource."""
    del error
    return False


def signals(error: BaseException) -> bool:
    """In the caller's own thread, what is no Exception may have come from outside, as Ctrl-C does."""
    return not isinstance(error, Exception)


@contextmanager
def opening(resource: Resource[Any], passes: Passes, *, told: bool) -> Generator[None]:
    """Round the first step: whatever it raises that does not pass is a ResourceError. `told`: of slow ones is told."""
    with _told_if_slow(resource, told=told):
        try:
            yield
        except (StopIteration, StopAsyncIteration) as error:
            raise ResourceError(f"resource {resource.name}: it did not yield a value") from error
        except BaseException as error:
            if passes(error):
                raise
            raise ResourceError(f"resource {resource.name} could not be opened: {_said(error)}") from error


@contextmanager
def closing(resource: Resource[Any], end: type[Exception], passes: Passes) -> Generator[None]:
    """Round the second step, which ends with `end`. What else comes of it is logged, and not raised.

    But for what passes; and FOR_THE_CALLER is raised, too.
    """
    try:
        yield
    except end:
        return
    except BaseException as error:
        if passes(error):
            raise
        tell_not_closed(resource, error)
        if isinstance(error, FOR_THE_CALLER):
            raise
    else:
        text = "it yielded twice: a resource yields its value, and what follows closes it"
        tell(workers, logging.ERROR, "not-closed", resource=resource.name, error=text)


@contextmanager
def _told_if_slow(resource: Resource[Any], *, told: bool) -> Generator[None]:
    if not told:
        yield
        return
    timer = threading.Timer(TELL_AFTER, tell_slow, (resource,))
    timer.name, timer.daemon = "holdfast-opening", True
    with suppress(RuntimeError):  # no more threads just now: then nobody watches
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell_slow(resource: Resource[Any]) -> None:
    """Logs that a resource takes long to open."""
    text = f"still being opened after {TELL_AFTER:g} s; what needs it waits"
    tell(workers, logging.WARNING, "opening", resource=resource.name, message=text)


def tell_not_closed(resource: Resource[Any], error: BaseException) -> None:
    """Logs that closing one went wrong, with the traceback."""
    tell(workers, logging.ERROR, "not-closed", resource=resource.name, error=_said(error))
    workers.error("resource %s could not be closed", resource.name, exc_info=error)


def _said(error: BaseException) -> str:
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
