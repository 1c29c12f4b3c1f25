"""Pages of metrics: one for all who ask within a moment, made off the loop, which has leases to keep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from holdfast.observe.metrics import Shown

SHARE = 10  # a page that takes a second to make is shown for so many seconds


class Page(NamedTuple):
    """`until`: monotonic seconds."""

    content_type: str
    text: bytes
    until: float


class Pages:
    """Of one service, on its loop. `shown` says what there is to show."""

    def __init__(self, shown: Callable[[], Awaitable[Shown]]) -> None:
        self._shown = shown
        self._making: dict[bool, asyncio.Task[Page]] = {}
        self._made: dict[bool, Page] = {}

    async def asked(self, accept: str) -> tuple[str, bytes]:
        """Content type and text for a header Accept. ImportError without holdfast[metrics]."""
        from holdfast.observe.metrics import wants_openmetrics

        openmetrics = wants_openmetrics(accept)
        page = self._made.get(openmetrics)
        if page is None or time.monotonic() >= page.until:
            page = await asyncio.shield(self._under_way(openmetrics))
        return page.content_type, page.text

    def _under_way(self, openmetrics: bool) -> asyncio.Task[Page]:
        making = self._making.get(openmetrics)
        if making is None or making.done():
            making = self._making[openmetrics] = asyncio.create_task(self._make(openmetrics))
        return making

    async def _make(self, openmetrics: bool) -> Page:
        from holdfast.observe.metrics import exposition

        shown = await self._shown()
        began = time.monotonic()
        content_type, text = await asyncio.to_thread(exposition, shown, openmetrics=openmetrics)
        ended = time.monotonic()
        page = self._made[openmetrics] = Page(content_type, text, ended + SHARE * (ended - began))
        return page
