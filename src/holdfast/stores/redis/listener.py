"""The listener: a connection that hears which queues have jobs now, as long as a probe has shown that it does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

from holdfast.clock import SECOND
from holdfast.errors import StoreError
from holdfast.stores.hearing import POLLING, Hearing
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.limits import LISTEN
from holdfast.stores.redis.place import Place
from holdfast.stores.redis.resp import Refusal, Reply, command
from holdfast.stores.redis.session import Session
from holdfast.stores.waiters import Waiters

CHECK = 15.0  # seconds between two looks whether the connection is there still
PROBE_MARK = "?"  # what no queue's name begins with

_DEAF = (
    f"messages do not arrive ({{why}}); {POLLING}. Where the user of the store's URL may publish and subscribe on the "
    "channel {channel}, and no proxy stands between that knows no messages, jobs are heard of at once"
)


class _NotHeardError(Exception):
    """What was published did not come back, or may not be."""


class Listener:
    """Connects with `start`, and again by itself; tells those who wait what it hears on their channel."""

    def __init__(self, place: Place, lane: Lane, waiters: Waiters, channel: str, tell: Callable[[str], None]) -> None:
        self._place = place
        self._channel = channel
        self._lane = lane  # to publish the probe on: another way than the one on which it listens
        self._task: asyncio.Task[None] | None = None
        self._proof = ""
        self._proven = asyncio.Event()
        self._tell = tell
        self.hearing = Hearing(waiters, place.url)

    def start(self) -> None:
        """At the first wait."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            pause = 0.0
            try:
                await self._listen()
            except _NotHeardError as error:
                pause = self.hearing.deaf(_DEAF.format(why=error, channel=self._channel))
            except Exception as error:  # noqa: BLE001  # whatever it is, it must come back
                pause = self.hearing.cut_off(str(error) or repr(error), alone=await self._answers())
            finally:
                self.hearing.now = False
            await asyncio.sleep(pause * random.uniform(0.5, 1))

    async def _listen(self) -> None:
        """Until the connection ends, which raises. It speaks RESP2, where a subscription is answered like a command."""
        address = replace(self._place.address, protocol=2)
        session = await Session.opened(address, "listen", LISTEN, self._heard)
        try:
            await self._ask(session, "SUBSCRIBE", self._channel)
            await self._prove()
            self.hearing.begins()
            while True:
                await session.ended(CHECK)
                await self._ask(session, "PING")
        finally:
            session.cut()

    async def _ask(self, session: Session, *words: str) -> None:
        [reply] = await session.ask(command(*words), 1)
        if isinstance(reply, Refusal):
            raise _NotHeardError(f"{words[0]}: {reply}")
        self._heard(reply)  # a message may have come before the answer, which then is heard in its stead

    async def _prove(self) -> None:
        """A proxy may take the subscription and publish nothing on it; a user may be forbidden to publish."""
        self._proof = f"{PROBE_MARK}{uuid4()}"
        self._proven.clear()
        [published] = await self._lane.each([self._lane.command("PUBLISH", self._channel, self._proof)])
        if isinstance(published, StoreError):
            raise _NotHeardError(f"PUBLISH: {published}")
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTEN / SECOND):
                await self._proven.wait()
        if not self._proven.is_set():
            raise _NotHeardError(f"nothing came back within {LISTEN / SECOND:g} s")

    def _heard(self, reply: Reply) -> None:
        match reply:
            case [b"message", _, bytes(name)]:
                word = name.decode(errors="replace")
                if word == self._proof:
                    self._proven.set()
                elif not word.startswith(PROBE_MARK):
                    self._tell(word)
            case _:
                pass

    async def _answers(self) -> bool:
        """Whether other connections of this process work."""
        with suppress(StoreError):
            await self._lane.commands([("PING",)])
            return True
        return False
