"""The resources that are open on one event loop: the async ones are its own, the plain ones the process's."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any

from holdfast.errors import ResourceError
from holdfast.observe.logging import tell, workers
from holdfast.resource import steps
from holdfast.resource.definition import Resource
from holdfast.resource.hands import Hands
from holdfast.resource.sharing import Shared


class Opening:
    """The resources that are open on one loop. The last of its openers closes them.

    One task opens and closes the async ones, because what libraries open in one task often cannot be closed in another;
    and one thread the plain ones, as long as none of them hangs.
    """

    def __init__(
        self,
        wanted: Sequence[Resource[Any]],
        shared: Shared,
        left: Callable[[Opening], object],
        *,
        told: bool,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.leaving = False
        self._wanted = wanted
        self._shared = shared
        self._left = left
        self._told = told  # whether slow ones are told
        self._openers = 0
        self._at: Resource[Any] | None = None  # being opened or closed
        self._cut = False
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._over = asyncio.Event()
        self._pid = os.getpid()
        self._hands = Hands(self.loop)
        self._task: asyncio.Task[None] | None = None
        if wanted:
            self._task = self.loop.create_task(self._hold(), name="holdfast-resources")
            self._task.add_done_callback(self._ended)
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
        """One opener less. Never raises: what goes wrong is logged. What is still being opened is given up."""
        self._openers -= 1
        if self._openers or os.getpid() != self._pid:
            return
        self.leaving = True
        self._over.set()
        if self._task is not None and not self._ready.done():
            if self._at is not None:
                text = "given up: who wanted it open leaves"
                tell(workers, logging.INFO, "opening", resource=self._at.name, message=text)
            self._task.cancel()
        await self.gone()

    async def gone(self) -> None:
        """Waits until they are closed, at most CLOSE_MOST seconds."""
        if self._task is None:
            self._left(self)
            return
        _, late = await asyncio.wait({self._task}, timeout=steps.CLOSE_MOST)
        if late and not self._cut:
            self._cut = True
            self._left(self)
            self._task.cancel()
            name = self._at.name if self._at is not None else None
            text = f"still closing after {steps.CLOSE_MOST:g} s; it goes on without them"
            tell(workers, logging.WARNING, "not-closed", resource=name, message=text)

    async def _hold(self) -> None:
        opened: list[tuple[Resource[Any], AsyncGenerator[Any] | None]] = []
        interrupted: BaseException | None = None
        try:
            for resource in self._wanted:
                self._at = resource
                opened.append((resource, await self._open(resource)))
                if self.leaving:  # it was cancelled, and took no notice
                    return
            self._at = None
            self._ready.set_result(None)
            await self._over.wait()
        except ResourceError as error:
            self._failed(error)
        except asyncio.CancelledError:  # by who wants it no more, or with the loop
            pass
        except KeyboardInterrupt as error:
            interrupted = error
        finally:
            self.leaving = True
            for resource, generator in reversed(opened):
                self._at = resource
                interrupted = await self._close(resource, generator) or interrupted
            self._hands.let_go()
        if interrupted is not None:  # it ends the loop
            raise interrupted

    async def _open(self, resource: Resource[Any]) -> AsyncGenerator[Any] | None:
        if not resource.is_async:
            acquire = partial(self._shared.acquire, resource, passes=steps.nothing, told=self._told)
            await self._hands.do(acquire, undo=partial(self._shared.release, resource))
            return None
        with steps.opening(resource, self._not_its_own, told=self._told):
            generator: AsyncGenerator[Any] = resource.__wrapped__()
            resource.on_loops[self.loop] = await anext(generator)
        return generator

    async def _close(self, resource: Resource[Any], generator: AsyncGenerator[Any] | None) -> BaseException | None:
        """Whatever comes of it, the others are closed all the same; returns what has to be raised when they are."""
        try:
            if generator is None:
                await self._hands.do(partial(self._shared.release, resource), undo=_nothing)
                return None
            resource.on_loops.pop(self.loop, None)
            with steps.closing(resource, StopAsyncIteration, self._cut_short):
                await anext(generator)
        except KeyboardInterrupt as error:
            return error
        except BaseException:  # noqa: BLE001  # it is told, or took too long
            return None
        return None

    def _not_its_own(self, error: BaseException) -> bool:
        """Whether what is raised while one is opened comes from outside."""
        return isinstance(error, KeyboardInterrupt) or (self.leaving and isinstance(error, asyncio.CancelledError))

    def _cut_short(self, error: BaseException) -> bool:
        """Whether it closes no further because it takes too long, which is told."""
        return self._cut and isinstance(error, asyncio.CancelledError)

    def _failed(self, error: ResourceError) -> None:
        if self.leaving and self._at is not None:  # nobody waits any more
            steps.tell_not_closed(self._at, error.__cause__ or error)
        elif not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # else asyncio says that nobody asked for it, where they were cancelled meanwhile

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Also where it was cancelled before it had begun."""
        self.leaving = True
        self._left(self)
        if not self._ready.done():
            self._ready.cancel()
        if not task.cancelled():
            task.exception()


def _nothing() -> None:
    pass


class PlainOpening:
    """The plain resources, as one opener holds them."""

    def __init__(self, opened: Sequence[Resource[Any]], shared: Shared) -> None:
        self._opened = opened
        self._shared = shared
        self._pid = os.getpid()

    def close(self) -> None:
        """Closes them, in reverse order, unless others hold them. What goes wrong is logged; only what may come
        from a signal, as Ctrl-C does, is raised, when all are closed.
        """
        if os.getpid() == self._pid:
            self._shared.release_each(reversed(self._opened))
