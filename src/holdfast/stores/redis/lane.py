"""A lane: one connection of ours, for one kind of call, so that none stands behind another's work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from holdfast.clock import Span
from holdfast.errors import StoreAway, StoreError
from holdfast.stores.redis.limits import silence
from holdfast.stores.redis.place import Keys, Place
from holdfast.stores.redis.recognising import recognise
from holdfast.stores.redis.resp import Argument, Refusal, Reply, command, packed
from holdfast.stores.redis.scripts import Script
from holdfast.stores.redis.session import Lost, Session
from holdfast.stores.redis.trouble import ends_session, lost, stated


class Step(NamedTuple):
    """A command as it is sent; with `script`, one that the server may not know yet."""

    packed: bytes
    script: Script | None = None


Call: TypeAlias = tuple[str, Keys, Sequence[Argument]]  # of a script: its name, KEYS, ARGV without the shift


class Confirming:
    """What a lane waits for of replicas: what it asks them now, and what it asks them next."""

    under_way: asyncio.Future[int | None] | None = None
    next: asyncio.Future[int | None] | None = None


class Lane:
    """One connection, opened at first use. Calls may overlap: each gets its replies, in the order of asking.

    A call whose connection is lost, before or in the middle of it, is asked once more on a fresh one: every call of the
    seam may be repeated. A caller that is cancelled leaves what he sent to its end.
    Raises StoreAway or StoreError. Replies are bytes, ints, lists of them, or None.
    """

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self.place = place
        self._session: Session | None = None
        self._connecting: asyncio.Task[Session] | None = None
        self._closed = False
        self.confirming = Confirming()
        self.repeats = 0  # how often a call was asked again: its first copy may still be on its way

    async def script(self, name: str, keys: Keys, *args: Argument) -> Reply:
        """The reply of `scripts/<name>.lua`; the shift is put before `args`, as ARGV[1]."""
        [reply] = await self._replies([self.step(name, keys, args)])
        return self._checked(reply)

    async def scripts(self, calls: Sequence[Call]) -> list[Reply]:
        """The same for several, in one round trip; one that is refused is raised, after all were asked.

        In their order, but for those that the server did not know yet: they come last.
        """
        return await self.ask([self.step(*call) for call in calls])

    async def commands(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """The replies to commands, in one round trip."""
        return await self.ask([Step(command(*parts)) for parts in commands])

    async def ask(self, steps: Sequence[Step]) -> list[Reply]:
        """Scripts and commands in one round trip."""
        replies = await self.each(steps)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies

    async def each(self, steps: Sequence[Step]) -> list[Reply | StoreError]:
        """As `ask`, with the error in the place of a reply; raised is only what befell all of them."""
        if not steps:
            return []
        return [
            stated(reply, self.place.url) if isinstance(reply, Refusal) else reply
            for reply in await self._replies(steps)
        ]

    async def replies(self, commands: Sequence[Sequence[Argument]]) -> list[Reply | Refusal]:
        """What the server says to commands, word by word."""
        return await self._replies([Step(command(*parts)) for parts in commands])

    async def within_nothing(self, commands: Sequence[Sequence[Argument]]) -> list[Reply | Refusal]:
        """What the server says to MULTI, and then to commands in this transaction, which is thrown away: it looks at
        them, and does nothing. Where it refuses MULTI they are not asked.
        """
        session = await self._usable(certain=True)  # and never another one in the middle of it
        data = [command(*parts) for parts in commands]
        try:
            [begun] = await session.ask(command("MULTI"), 1)
            if isinstance(begun, Refusal):
                return [begun]
            return [begun, *await session.ask(b"".join(data), len(data))]
        except Lost as error:
            raise lost(error, self.place.url, certain=True) from error
        finally:
            session.cut()

    def step(self, name: str, keys: Keys, args: Sequence[Argument] = ()) -> Step:
        """A call of a script, for `ask` and `each`."""
        script = self.place.script(name)
        return Step(
            b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n%b%b"
            % (keys.count + len(args) + 4, script.sha, keys.packed, packed((self.place.shift, *args))),
            script,
        )

    @staticmethod
    def command(*parts: Argument) -> Step:
        """A command, for `ask` and `each`."""
        return Step(command(*parts))

    def _checked(self, reply: Reply) -> Reply:
        if isinstance(reply, Refusal):
            raise stated(reply, self.place.url)
        return reply

    # --- the way there and back

    async def _replies(self, steps: Sequence[Step]) -> list[Reply]:
        data = steps[0].packed if len(steps) == 1 else b"".join(step.packed for step in steps)
        certain = True  # that nothing was done so far
        for attempt in (1, 2):
            session = await self._usable(certain=certain)
            try:
                replies = await session.ask(data, len(steps))
                for reply in replies:
                    if type(reply) is Refusal:
                        replies = await self._again(session, steps, replies)
                        break
            except Lost as error:
                certain = False
                if attempt == 2 or self._closed:
                    raise lost(error, self.place.url, certain=False) from error
                self.repeats += 1
                continue
            if attempt == 1 and any(isinstance(reply, Refusal) and ends_session(reply) for reply in replies):
                session.cut()
                continue
            return replies
        raise AssertionError  # the second try returns or raises

    async def _again(self, session: Session, steps: Sequence[Step], replies: list[Reply]) -> list[Reply]:
        """Scripts that the server does not know are loaded, and asked again."""
        unknown = [
            index for index, reply in enumerate(replies) if isinstance(reply, Refusal) and reply.code == "NOSCRIPT"
        ]
        if not unknown:
            return replies
        texts = {script.text for index in unknown if (script := steps[index].script)}
        data = [command("SCRIPT", "LOAD", text) for text in texts] + [steps[index].packed for index in unknown]
        answers = await session.ask(b"".join(data), len(data))
        for loaded in answers[: len(texts)]:
            if isinstance(loaded, Refusal):
                for index in unknown:
                    replies[index] = loaded
                return replies
        for index, answer in zip(unknown, answers[len(texts) :], strict=True):
            replies[index] = answer
        return replies

    async def _usable(self, *, certain: bool) -> Session:
        if self._session is not None and self._session.lost is None:
            return self._session
        if self._closed:
            raise StoreError(f"{self.place.url}: the store was closed")
        if self._connecting is None or self._connecting.get_loop() is not asyncio.get_running_loop():  # after a fork
            self._connecting = asyncio.ensure_future(self._fresh())
            self._connecting.add_done_callback(self._stands)
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if connecting.cancelled() and not (me and me.cancelling()):  # by cut(), not by his own doing
                raise StoreAway(f"{self.place.url}: the store was closed before it answered") from None
            raise
        except Lost as error:
            raise lost(error, self.place.url, certain=certain) from error
        except Refusal as error:
            raise _certainly(stated(error, self.place.url), certain) from error
        except StoreAway as error:
            raise _certainly(StoreAway(*error.args), certain) from error.__cause__  # it is told to several callers

    async def _fresh(self) -> Session:
        session = await Session.opened(self.place.address, self.name, _silence(self.name, self.place))
        try:
            await recognise(session, self.place)
        except BaseException:
            session.cut()
            raise
        return session

    def _stands(self, connecting: asyncio.Task[Session]) -> None:
        self._connecting = None
        if connecting.cancelled() or connecting.exception() is not None:
            return
        self._session = connecting.result()
        if self._closed:
            self._session.cut()

    async def close(self) -> None:
        """Calls that come later are a StoreError."""
        self._closed = True
        connecting = self._connecting
        if connecting is not None and connecting.get_loop() is asyncio.get_running_loop():  # none of before a fork
            connecting.cancel()
            await asyncio.wait([connecting])
        if self._session is not None:
            await self._session.close()

    def cut(self) -> None:
        """Ends it at once, with the calls whose answers are due."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._session is not None:
            self._session.cut()


def _certainly(error: StoreError, certain: bool) -> StoreError:
    if isinstance(error, StoreAway):
        error.certain = certain
    return error


def _silence(lane: str, place: Place) -> Span:
    waited = place.address.wait_timeout if place.address.wait else 0  # for replicas, on the lanes that write
    return silence(lane, place.lease) + (waited if lane in ("enqueue", "finish") else 0)
