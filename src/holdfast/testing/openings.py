"""The resources of a sandbox: opened when its first job runs, closed when it closes."""

from __future__ import annotations

import asyncio
import threading
from typing import TypeGuard

from holdfast.errors import Stop
from holdfast.resource import Opening, PlainOpening, Resources
from holdfast.testing.loops import Loops, awaitable


def is_the_tests(error: BaseException | None) -> TypeGuard[BaseException]:
    """Whether it is for the test and not for its job: Ctrl-C, pytest.fail()."""
    return error is not None and not isinstance(error, (Exception, Stop, asyncio.CancelledError, SystemExit))


class Openings:
    """What is overridden when the first job runs is not opened. The async ones live on the loop of the handlers."""

    def __init__(self, resources: Resources, loops: Loops) -> None:
        self._resources = resources
        self._loops = loops
        self._lock = threading.Lock()
        self._plain: PlainOpening | None = None
        self._on_loop: asyncio.Task[Opening] | None = None

    def open(self) -> None:
        """The plain ones, from any thread. Raises ResourceError; the next job tries again."""
        with self._lock:
            if self._plain is None:
                self._plain = self._resources.open()

    async def aopen(self) -> None:
        """All, on this loop, once. Raises ResourceError, or what is the test's own, as pytest.skip() is.

        The next job tries again.
        """
        if self._on_loop is None:
            await awaitable()
        if self._on_loop is None:
            self._on_loop = asyncio.create_task(self._resources.aopen())
        opening = self._on_loop
        try:
            await asyncio.shield(opening)
        except Exception as error:
            if self._on_loop is opening:
                self._on_loop = None
            if is_the_tests(error.__cause__):
                raise error.__cause__ from None
            raise

    async def aclose(self) -> None:
        """On the loop of the handlers."""
        opening, self._on_loop = self._on_loop, None
        if opening is not None:
            await (await opening).aclose()
        self._close_plain()

    def close(self) -> None:
        """From a thread on which no loop runs."""
        if self._on_loop is not None:
            self._loops.run(self.aclose)
        self._close_plain()

    def _close_plain(self) -> None:
        opening, self._plain = self._plain, None
        if opening is not None:
            opening.close()
