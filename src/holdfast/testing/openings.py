"""The resources of a sandbox: opened when its first job runs, closed when it closes."""

from __future__ import annotations

from holdfast.resource import Opening, PlainOpening, Resources
from holdfast.testing.loops import Loops, awaitable


class Openings:
    """What is overridden when the first job runs is not opened. The async ones live on the loop of the handlers."""

    def __init__(self, resources: Resources, loops: Loops) -> None:
        self._resources = resources
        self._loops = loops
        self._plain: PlainOpening | None = None
        self._on_loop: Opening | None = None

    def open(self) -> None:
        """The plain ones."""
        if self._plain is None and self._on_loop is None:
            self._plain = self._resources.open()

    async def aopen(self) -> None:
        """All, on this loop."""
        if self._on_loop is None:
            await awaitable()
            self._on_loop = await self._resources.aopen()

    async def aclose(self) -> None:
        """On the caller's loop."""
        opening, self._on_loop = self._on_loop, None
        if opening is not None:
            await opening.aclose()
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
