"""The resources of one event loop, as they are open: the async ones on the loop itself, the plain ones of the process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from holdfast.errors import ResourceError
from holdfast.observe.logging import tell, workers
from holdfast.observe.tracebacks import text_of
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
            for self._at in self._wanted:
                opened.append((self._at, await self._open(self._at)))
                if self.leaving:  # it was cancelled, and took no notice
                    return
            self._at = None
            self._ready.set_result(None)
            await self._over.wait()
        except asyncio.CancelledError:  # by who wants it no more, or with the loop
            pass
        except BaseException as error:  # noqa: BLE001  # it belongs to those who wait for them to be open
            interrupted = self._failed(error)
        finally:
            self.leaving = True
            for self._at, generator in reversed(opened):
                interrupted = await self._close(self._at, generator) or interrupted
            self._hands.let_go()
        if interrupted is not None:
            raise interrupted

    def _failed(self, error: BaseException) -> BaseException | None:
        """Tells who waits; returns what else has to be raised: Ctrl-C ends the loop."""
        ...

    def _ended(self, task: asyncio.Task[None]) -> None: ...
