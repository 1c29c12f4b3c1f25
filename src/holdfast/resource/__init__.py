"""jobs.resource: what handlers share, such as a client or a pool: opened before the first job, closed after the last.

A plain resource has one value per process, however many workers have opened it. An async one has a value per event
loop, and is for code on that loop. In a slot process the plain ones are opened at their first use.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.errors import ResourceError
from holdfast.resource.definition import CLOSED, Resource, check, loop_here
from holdfast.resource.opening import Opening, PlainOpening
from holdfast.resource.sharing import Shared

__all__ = ["Opening", "PlainOpening", "Resource", "Resources"]

_left_by_fork: list[object] = []
_all: weakref.WeakSet[Resources] = weakref.WeakSet()


class Resources:
    """An app's resources, in the order of their definition."""

    def __init__(self) -> None:
        self.all: list[Resource[Any]] = []
        self.at_first_use = False  # in a slot process
        self._shared = Shared()
        self._openings: dict[asyncio.AbstractEventLoop, Opening] = {}
        _all.add(self)

    def define(self, fn: Callable[..., Any]) -> Resource[Any]:
        """Makes a resource of a generator function without parameters. ConfigError for what is none."""
        check(fn)
        made = Resource[Any](fn, self._missing)
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
            opening = Opening(self._wanted(), self._shared, self._left, told=not self.at_first_use)
            self._openings[loop] = opening
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
        opening = PlainOpening(opened, self._shared)
        try:
            for resource in self._wanted():
                if not resource.is_async:
                    self._shared.acquire(resource)
                    opened.append(resource)
        except BaseException:
            opening.close()
            raise
        return opening

    def close(self) -> None:
        """In a slot process that leaves: closes what was opened at its first use."""
        self._shared.release_all()

    def _wanted(self) -> Sequence[Resource[Any]]:
        """Those that an opener has to open now: nothing stands in for them, and they are not for the first use."""
        return [one for one in self.all if not one.overridden and (one.is_async or not self.at_first_use)]

    def _left(self, opening: Opening) -> None:
        """The resources of a loop are closed, or given up."""
        if self._openings.get(opening.loop) is opening:
            del self._openings[opening.loop]

    # --- where one is asked for and not open

    def _missing(self, resource: Resource[Any]) -> Any:
        """The value of one that is opened at its first use. ResourceError, saying what to do, for all others."""
        if self.at_first_use and not resource.is_async:
            self._shared.ensure(resource)
            return resource.plain
        raise ResourceError(f"resource {resource.name}: {self._why_not(resource)}")

    def _why_not(self, resource: Resource[Any]) -> str:
        if resource.is_async and loop_here() is None:
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
        return [one for one in self.all if one.plain is not CLOSED or loop_here() in one.on_loops]

    def forget(self) -> None:
        """In a forked child: what is open is the parent's. It stays referenced, so that no finalizer closes it."""
        _left_by_fork.append((self._shared, self._openings, [(one.plain, one.on_loops) for one in self.all]))
        self._shared, self._openings = Shared(), {}
        for resource in self.all:
            resource.plain, resource.on_loops = CLOSED, {}


def _after_fork() -> None:
    for resources in list(_all):
        resources.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
