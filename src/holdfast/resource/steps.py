"""The two steps of a resource's generator, up to its `yield` and to its end: watched, and what goes wrong is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from holdfast.errors import ResourceError, Stop
from holdfast.observe.logging import tell, workers
from holdfast.observe.tracebacks import text_of
from holdfast.resource.definition import Resource

TELL_AFTER = 5.0  # seconds that one may take to open before that is told
CLOSE_MOST = 5.0  # seconds that is waited for those of a loop to be closed, or for a plain one to be opened again
FOR_THE_CALLER = (KeyboardInterrupt, SystemExit, Stop)  # may have come from a signal, so they are not the generator's


@contextmanager
def opening(resource: Resource[Any], *, by_caller: bool, told: bool = True) -> Generator[None]:
    """Round the first step: ResourceError for whatever it raises; `by_caller`: not for what may be the caller's own.

    `told`: logs a warning if it takes long.
    """
    with _told_if_slow(resource, told=told):
        try:
            yield
        except (StopIteration, StopAsyncIteration) as error:
            raise ResourceError(f"resource {resource.name}: it did not yield a value") from error
        except BaseException as error:
            if by_caller and not isinstance(error, Exception):
                raise
            what = f"{type(error).__name__}: {text_of(error)}"
            raise ResourceError(f"resource {resource.name} could not be opened: {what}") from error


@contextmanager
def closing(resource: Resource[Any], end: type[Exception]) -> Generator[None]:
    """Round the second step, which ends with `end`. What else comes of it is logged; the others are closed all the same.

    Only FOR_THE_CALLER is raised.
    """
    try:
        yield
    except end:
        return
    except BaseException as error:
        _tell_not_closed(resource, f"{type(error).__name__}: {text_of(error)}", error)
        if isinstance(error, FOR_THE_CALLER):
            raise
    else:
        _tell_not_closed(resource, "it yielded twice: a resource yields its value, and what follows closes it", None)


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


def _tell_not_closed(resource: Resource[Any], why: str, error: BaseException | None) -> None:
    tell(workers, logging.ERROR, "not-closed", resource=resource.name, error=why)
    if error is not None:
        workers.error("resource %s could not be closed", resource.name, exc_info=error)
