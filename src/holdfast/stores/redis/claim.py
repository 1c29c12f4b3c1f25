"""Takes queued jobs for a worker: one script per queue, each taking only under a ticket that is new to its queue."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias
from uuid import UUID

from holdfast.clock import Instant
from holdfast.errors import StoreAway, StoreError
from holdfast.job import Claim, Released
from holdfast.policy import decide
from holdfast.store import Claims, Quota
from holdfast.stores.redis.finish import finish_in
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.lives import join, standing
from holdfast.stores.redis.place import Place, names_of, queue_keys
from holdfast.stores.redis.queues import said_again
from holdfast.stores.redis.resp import Reply
from holdfast.stores.redis.rows import claims_of
from holdfast.stores.redis.whereabouts import known_queues

_Refusal: TypeAlias = Literal["gone", "expired", "ticket", "used"]

_AT_ONCE, _BYTES = 250, 4_000_000  # jobs, and bytes of what they carry, of one script: a few milliseconds
_PARTS = 1000  # of one claim in one queue, see claim.lua and again.lua
# Digits of a stamp, as it stands beside each job that is held: more than hash-max-listpack-value (64), so that what a
# worker holds is never a list that the server searches from end to end.
_WIDTH = 70


async def claim(
    lane: Lane, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int, quotas: Sequence[Quota]
) -> Claims:
    place = lane.place
    if worker in place.unclear and not await _use_up(lane, worker):
        return Claims([], "expired")
    last = place.tickets.get(worker)
    if last is None:
        last = place.tickets[worker] = await _last_ticket(lane, worker)
    if ticket != last + 1:
        return await _again(lane, worker, ticket, last)
    taking = _Taking(lane, worker, ticket, limit)
    if queues is not None and len(queues) == 1 and not quotas:
        return Claims(taking.jobs, await taking.take(queues[0], limit))
    refused = (await _take_quotas(taking, quotas) if quotas else None) or await _take_in_turn(taking, queues)
    return Claims(taking.jobs, refused)


async def _take_quotas(taking: _Taking, quotas: Sequence[Quota]) -> _Refusal | None:
    """Of queues that there are: each of them is asked."""
    place = taking.lane.place
    if any(queue not in place.queues for queue, _ in quotas):
        place.queues = await known_queues(taking.lane, place)
    for queue, most in quotas:
        if taking.room > 0 and most > 0 and queue in place.queues:
            refused = await taking.take(queue, most)
            if refused is not None:
                return refused
    return None


async def _take_in_turn(taking: _Taking, queues: Sequence[str] | None) -> _Refusal | None:
    """From the queues that have jobs, the one that was served longest ago first. Which that is this process knows from
    the last time: it is asked at once, while the others are only looked at, and mostly fills the claim.
    """
    if taking.room <= 0 and taking.jobs:
        return None
    lane, place, worker = taking.lane, taking.lane.place, taking.worker
    wanted = list(place.queues) if queues is None else list(dict.fromkeys(queues))
    if not wanted:
        stands = await standing(lane, worker)
        if stands.state != "live":
            return stands.state
        wanted = list(stands.queues) if queues is None else []
    turns = sorted(wanted, key=lambda queue: _turn(place, queue))[:1]
    first = await _first_asked(taking, turns[0], wanted) if turns else None
    filled = place.filled.intersection(place.queues if queues is None else wanted)
    turns += sorted(filled.difference(turns), key=lambda queue: _turn(place, queue))
    for queue in turns:
        refused = await taking.take(queue, taking.room, first)
        first = None
        if refused is not None or taking.room <= 0:
            return refused
    return None


def _turn(place: Place, queue: str) -> tuple[object, ...]:
    return (queue not in place.filled, queue not in place.queues, place.served.get(queue, 0), queue)


def _to_the_end(place: Place, queue: str) -> None:
    """Its next turn is after that of all others."""
    place.served[queue] = place.turn = place.turn + 1


async def _first_asked(taking: _Taking, first: str, queues: Collection[str]) -> Reply:
    """What the script says of one queue. In the same moment it is noted which others have queued jobs."""
    lane, place = taking.lane, taking.lane.place
    others = [queue for queue in queues if queue != first]
    ready = [lane.command("EXISTS", queue_keys(place, queue)[3]) for queue in others]
    look = [lane.command("SMEMBERS", place.registry[2]), *ready]
    reply, names, *there = await taking.asked(first, taking.room, look)
    if not isinstance(names, StoreError):  # what is not seen now is seen the next time
        place.filled |= names_of(names) - place.queues  # they are new
        place.queues = place.queues | names_of(names)
    for queue, exists in zip(others, there, strict=False):
        _note(place, queue, filled=exists == 1)
    return reply


def _note(place: Place, queue: str, *, filled: bool) -> None:
    (place.filled.add if filled else place.filled.discard)(queue)


class _Taking:
    """One claim: what it has taken so far, and in how many parts from each queue."""

    def __init__(self, lane: Lane, worker: UUID, ticket: int, limit: int) -> None:
        self.lane = lane
        self.worker = worker
        self.jobs: list[Claim] = []
        self._ticket = ticket
        self._limit = limit
        self._parts: dict[str, int] = {}
        self._ended = False  # a queue refuses

    @property
    def room(self) -> int:
        return 0 if self._ended else self._limit - len(self.jobs)

    async def take(self, queue: str, most: int, reply: Reply = None) -> _Refusal | None:
        """Up to `most` jobs of a queue; `reply`: of the first script, if it was asked already. Returns a refusal if
        nothing was taken from any queue so far.
        """
        place = self.lane.place
        try:
            refused = await self._taken(queue, min(most, self.room), reply)
        except StoreError:
            _to_the_end(place, queue)
            if not self.jobs or self.worker in place.unclear:
                raise
            self._ended = True  # those that were taken are not to wait for this queue
            return None
        return None if self.jobs else refused

    async def _taken(self, queue: str, limit: int, reply: Reply) -> _Refusal | None:
        """In as many scripts as it takes."""
        place = self.lane.place
        end = len(self.jobs) + limit
        while self._parts.get(queue, 0) < _PARTS - 1:
            some = min(end - len(self.jobs), _AT_ONCE)
            if reply is None:
                [reply] = await self.asked(queue, some)
            if reply == b"stranger" and self._parts[queue] == 1:
                if (joined := await join(self.lane, self.worker, queue)) != "joined":
                    _note(place, queue, filled=False)
                    return None if joined == "empty" else joined
                self._parts[queue] = 0
                [reply] = await self.asked(queue, some)
            if isinstance(reply, bytes):
                return _refused(self.lane, self.worker, reply)
            now, how, *rows = reply
            reply = None
            self.jobs += await _mine(self.lane, queue, self.worker, None if how == b"again" else now, rows)
            if rows:
                place.tickets[self.worker] = self._ticket
            if rows or how == b"paused":
                _to_the_end(place, queue)
            more = how != b"paused" and (len(rows) == some or how != b"taken")
            _note(place, queue, filled=more)
            if not more or len(self.jobs) >= end:
                break
        return None

    async def asked(self, queue: str, limit: int, beside: Sequence[Step] = ()) -> list[Reply | StoreError]:
        """What the script says, and to what is asked `beside` it."""
        lane, place, ticket = self.lane, self.lane.place, self._ticket
        part = self._parts[queue] = self._parts.get(queue, 0) + 1
        with _unclear(lane, self.worker, ticket, queue):
            repeats = lane.repeats
            step = _step(lane, self.worker, queue, ticket * _PARTS + part - 1, min(limit, _AT_ONCE))
            again = said_again(lane, [queue]) if queue in place.served else []  # that had jobs, see `queues`
            reply, *others = await lane.each([step, *beside, *again])
            if isinstance(reply, StoreError):
                raise reply
        _note_copy(lane, self.worker, ticket, queue, repeats, reply)
        return [reply, *others[: len(beside)]]


async def _mine(
    lane: Lane, queue: str, worker: UUID, taken_at: Instant | None, rows: Sequence[Sequence[Reply]]
) -> list[Claim]:
    """The jobs of these rows, but for those whose ids are held from another queue: they are given back for a while."""
    jobs, twofold = await claims_of(lane, queue, worker, taken_at, rows)
    if twofold:
        back = Released("its id is that of another queue's job, which runs here", unknown=True)
        await finish_in(lane, queue, [decide(job, back) for job in twofold])
    return jobs


def _refused(lane: Lane, worker: UUID, word: bytes) -> _Refusal:
    match word:
        case b"expired":
            return "expired"
        case b"stamp":
            lane.place.tickets.pop(worker, None)  # somebody else has counted on
            return "ticket"
        case _:
            return "gone"


def _step(lane: Lane, worker: UUID, queue: str, stamp: int, limit: int, *, spent: bool = False) -> Step:
    keys = queue_keys(lane.place, queue)
    return lane.step("claim", keys, (str(worker), f"{stamp:0{_WIDTH}}", limit, _BYTES, "1" if spent else ""))


# --- calls whose end is not known


@contextmanager
def _unclear(lane: Lane, worker: UUID, ticket: int, queue: str) -> Generator[None]:
    """Notes down a call that may be done, or be done later. A queue that refuses is asked again after all others."""
    place = lane.place
    try:
        yield
    except BaseException as error:
        _to_the_end(place, queue)
        certain = error.certain if isinstance(error, StoreAway) else isinstance(error, StoreError)
        if not certain:
            place.tickets.pop(worker, None)
            place.unclear.setdefault(worker, {})[queue] = ticket
        raise


def _note_copy(lane: Lane, worker: UUID, ticket: int, queue: str, repeats: int, reply: Reply) -> None:
    """A call that the lane had to ask twice, and that took nothing: its first copy may still come, and find jobs."""
    took = not isinstance(reply, bytes) and len(reply) > 2
    if lane.repeats != repeats and not took:
        lane.place.unclear.setdefault(worker, {})[queue] = ticket


async def _use_up(lane: Lane, worker: UUID) -> bool:
    """Uses up the tickets of calls whose end is not known, where these were asked: from now on they take nothing more.

    False: its lease is over, and they may take something once it lives again. A queue that refuses is asked again the
    next time, and holds up no other.
    """
    place = lane.place
    calls = list(place.unclear[worker].items())
    steps = [_step(lane, worker, queue, (ticket + 1) * _PARTS - 1, 0, spent=True) for queue, ticket in calls]
    replies = await lane.each(steps)
    if b"expired" in replies:
        return False
    left = {
        queue: ticket for (queue, ticket), reply in zip(calls, replies, strict=True) if isinstance(reply, StoreError)
    }
    place.unclear.pop(worker, None)
    if left:
        place.unclear[worker] = left
    if len(left) < len(calls):
        place.tickets.pop(worker, None)
    return True


async def _last_ticket(lane: Lane, worker: UUID) -> int:
    """The last one that the worker used, in any queue."""
    queues = sorted(await known_queues(lane, lane.place))
    stamps = await lane.commands([("HGET", queue_keys(lane.place, queue)[10], str(worker)) for queue in queues])
    return max((int(stamp) // _PARTS for stamp in stamps if stamp), default=0)


async def _again(lane: Lane, worker: UUID, ticket: int, last: int) -> Claims:
    """What is held still under the last ticket; a refusal for any other."""
    stands = await standing(lane, worker)
    if stands.state != "live":
        return Claims([], stands.state)
    if ticket != last:
        lane.place.tickets.pop(worker, None)
        return Claims([], "ticket")
    jobs = [job for queue in sorted(stands.queues) for job in await _held(lane, worker, ticket, queue)]
    return Claims(jobs, None if jobs else "used")


async def _held(lane: Lane, worker: UUID, ticket: int, queue: str) -> list[Claim]:
    jobs: list[Claim] = []
    keys = queue_keys(lane.place, queue)
    after, how = "", b"cut"
    while how == b"cut":
        how, *rows = await lane.script("again", keys, str(worker), ticket, after, _AT_ONCE, _BYTES)
        jobs += await _mine(lane, queue, worker, None, rows)
        after = rows[-1][0] if rows else after
    return jobs
