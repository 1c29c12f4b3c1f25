"""The plain resources of a process: opened by whoever comes first, shared, closed by whoever leaves last.

No lock is held while a resource's own code runs: that code may start threads which ask for other resources. Who comes
while one is being opened or closed waits until that is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any

from holdfast.errors import ResourceError
from holdfast.resource import steps
from holdfast.resource.definition import CLOSED, Resource


class Shared:
    """The values that are open, and how many hold each."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer that runs while it is held may ask for a resource
        self._held: dict[Resource[Any], _Held] = {}  # in the order in which they were opened
        self._waiting: dict[int, _Held] = {}  # by the number of the thread that waits

    def acquire(self, resource: Resource[Any], passes: steps.Passes = steps.signals, *, told: bool = True) -> None:
        """Opens it, or counts one opener more. Raises as `steps.opening`."""
        self._hold(resource, passes, more=1, told=told)

    def ensure(self, resource: Resource[Any]) -> None:
        """Opens it for all of this process unless it is open; `release_all` closes it. Raises as `steps.opening`."""
        self._hold(resource, steps.signals, more=0, told=False)

    def _hold(self, resource: Resource[Any], passes: steps.Passes, *, more: int, told: bool) -> None:
        while True:
            with self._lock:
                held = self._held.get(resource)
                if held is None:
                    held = self._held[resource] = _Held()
                    break
                if not held.thread:
                    held.openers += more
                    return
                self._refuse_circle(resource, held)
                self._waiting[threading.get_ident()] = held
            self._wait(resource, held, told=told)
        self._open(resource, held, passes, told=told)

    def _open(self, resource: Resource[Any], held: _Held, passes: steps.Passes, *, told: bool) -> None:
        try:
            with steps.opening(resource, passes, told=told):
                held.generator = resource.__wrapped__()
                value = next(held.generator)
            with self._lock:
                if self._held.pop(resource, None) is held:  # else this is a child that the opener has forked
                    self._held[resource] = held  # after those that it has opened on its way
                resource.plain, held.openers, held.thread = value, 1, 0
        except BaseException as error:  # be it a Stop, which may come at any moment in a slot's main thread
            held.error = error if isinstance(error, ResourceError) else None
            resource.plain = CLOSED
            self._gone(resource, held)
            raise
        held.over.set()

    def release(self, resource: Resource[Any]) -> None:
        """One opener less; the last closes it. Raises only `steps.FOR_THE_CALLER`."""
        with self._lock:
            held = self._held.get(resource)
            if held is None or held.thread:  # opened before a fork: it is the parent's
                return
            held.openers -= 1
            if held.openers:
                return
            leaving = self._held[resource] = _Held(leaving=True)
            resource.plain = CLOSED
        try:
            with steps.closing(resource, StopIteration, steps.nothing):
                next(held.generator)
        finally:
            self._gone(resource, leaving)

    def release_each(self, opened: Iterable[Resource[Any]]) -> None:
        """As `release`, for all of them, whatever is raised on the way."""
        each(self.release, opened)

    def release_all(self) -> None:
        """Whatever is open, the last first."""
        with self._lock:
            opened = list(self._held)
        self.release_each(reversed(opened))

    def _gone(self, resource: Resource[Any], held: _Held) -> None:
        with self._lock:
            if self._held.get(resource) is held:
                del self._held[resource]
        held.over.set()

    # --- while another thread opens or closes it

    def _wait(self, resource: Resource[Any], held: _Held, *, told: bool) -> None:
        try:
            if not held.over.wait(steps.CLOSE_MOST if held.leaving else steps.TELL_AFTER):
                self._late(resource, held, told=told)
        finally:
            del self._waiting[threading.get_ident()]
        if held.error is not None:
            raise ResourceError(str(held.error)) from held.error.__cause__

    def _late(self, resource: Resource[Any], held: _Held, *, told: bool) -> None:
        if held.leaving:  # for ever, perhaps: it goes on without it
            self._gone(resource, held)
            return
        if not told:
            steps.tell_slow(resource)
        held.over.wait()

    def _refuse_circle(self, resource: Resource[Any], held: _Held) -> None:
        """Under the lock. Who would wait for itself hears so, be it through other threads."""
        waited: _Held | None = held
        while waited is not None and not waited.over.is_set():
            if waited.thread == threading.get_ident():
                what = "closed" if held.leaving else "opened"
                raise ResourceError(
                    f"resource {resource.name}: it is needed for itself, while it is being {what}: "
                    "resources must not need each other in a circle"
                )
            waited = self._waiting.get(waited.thread)


class _Held:
    """A resource that is open, or on its way: then `thread` is the number of the one that opens or closes it."""

    def __init__(self, *, leaving: bool = False) -> None:
        self.thread = threading.get_ident()
        self.leaving = leaving
        self.over = threading.Event()
        self.generator: Generator[Any] = _none()
        self.openers = 0
        self.error: ResourceError | None = None


def _none() -> Generator[Any]:
    yield from ()


def each(call: Callable[[Resource[Any]], object], resources: Iterable[Resource[Any]]) -> None:
    """Calls it for each, even if it raises for one; then raises what was raised first."""
    raised: BaseException | None = None
    for resource in resources:
        try:
            call(resource)
        except BaseException as error:  # noqa: BLE001  # raised below
            raised = raised or error
    if raised is not None:
        raise raised
