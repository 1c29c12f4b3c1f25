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
from holdfast.store import Claims
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


async def claim(lane: Lane, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int) -> Claims:
    place = lane.place
    if worker in place.unclear and not await _use_up(lane, worker):
        return Claims([], "expired")
    last = place.tickets.get(worker)
    if last is None:
        last = place.tickets[worker] = await _last_ticket(lane, worker)
    if ticket != last + 1:
        return await _again(lane, worker, ticket, last)
    if queues is not None and len(queues) == 1:
        taken = await _taken(lane, worker, ticket, queues[0], limit)
        return Claims([], taken) if isinstance(taken, str) else Claims(taken)
    return await _taken_in_turn(lane, worker, ticket, queues, limit)


async def _taken_in_turn(lane: Lane, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int) -> Claims:
    """From the queues that have jobs, the one that was served longest ago first. Which that is this process knows from
    the last time: it is asked at once, while the others are only looked at, and mostly fills the claim.
    """
    place = lane.place
    wanted = list(place.queues) if queues is None else list(dict.fromkeys(queues))
    if not wanted:
        stands = await standing(lane, worker)
        if stands.state != "live":
            return Claims([], stands.state)
        wanted = list(stands.queues) if queues is None else []
    turns = sorted(wanted, key=lambda queue: _turn(place, queue))[:1]
    first = await _first_asked(lane, worker, ticket, turns[0], wanted, limit) if turns else None
    filled = place.filled.intersection(place.queues if queues is None else wanted)
    turns += sorted(filled.difference(turns), key=lambda queue: _turn(place, queue))
    jobs: list[Claim] = []
    for queue in turns:
        try:
            taken = await _taken(lane, worker, ticket, queue, limit - len(jobs), first)
        except StoreError:
            _to_the_end(place, queue)
            if not jobs or worker in place.unclear:
                raise
            break  # those that were taken are not to wait for this queue
        first = None
        if not isinstance(taken, str):
            jobs += taken
        elif not jobs:
            return Claims([], taken)
        if len(jobs) >= limit:
            break
    return Claims(jobs)


def _turn(place: Place, queue: str) -> tuple[object, ...]:
    return (queue not in place.filled, queue not in place.queues, place.served.get(queue, 0), queue)


def _to_the_end(place: Place, queue: str) -> None:
    """Its next turn is after that of all others."""
    place.served[queue] = place.turn = place.turn + 1


async def _first_asked(lane: Lane, worker: UUID, ticket: int, first: str, queues: Collection[str], limit: int) -> Reply:
    """What the script says of one queue. In the same moment it is noted which others have queued jobs."""
    place = lane.place
    others = [queue for queue in queues if queue != first]
    ready = [lane.command("EXISTS", queue_keys(place, queue)[3]) for queue in others]
    look = [lane.command("SMEMBERS", place.registry[2]), *ready, *_said_again(lane, first)]
    repeats = lane.repeats
    with _unclear(lane, worker, ticket, first):
        reply, names, *there = await lane.each(
            [_step(lane, worker, first, ticket * _PARTS, min(limit, _AT_ONCE)), *look]
        )
        if isinstance(reply, StoreError):
            raise reply
    _note_copy(lane, worker, ticket, first, repeats, reply)
    if not isinstance(names, StoreError):  # what is not seen now is seen the next time
        place.filled |= names_of(names) - place.queues  # they are new
        place.queues = place.queues | names_of(names)
    for queue, exists in zip(others, there, strict=False):
        _note(place, queue, filled=exists == 1)
    return reply


def _note(place: Place, queue: str, *, filled: bool) -> None:
    (place.filled.add if filled else place.filled.discard)(queue)


async def _taken(
    lane: Lane, worker: UUID, ticket: int, queue: str, limit: int, reply: Reply = None
) -> list[Claim] | _Refusal:
    """From one queue, in as many scripts as it takes; `reply`: of the first of them, if it was asked already."""
    place = lane.place
    jobs: list[Claim] = []
    for part in range(_PARTS - 1):
        some = min(limit - len(jobs), _AT_ONCE)
        if reply is None or part:
            reply = await _asked(lane, worker, queue, ticket, part, some)
        if reply == b"stranger" and not jobs:
            if (joined := await join(lane, worker, queue)) != "joined":
                _note(place, queue, filled=False)
                return [] if joined == "empty" else joined
            reply = await _asked(lane, worker, queue, ticket, part, some)
        if isinstance(reply, bytes):
            return jobs or _refused(lane, worker, reply)
        now, how, *rows = reply
        jobs += await _mine(lane, queue, worker, None if how == b"again" else now, rows)
        if rows:
            place.tickets[worker] = ticket
            _to_the_end(place, queue)
        more = len(rows) == some or how != b"taken"
        _note(place, queue, filled=more)
        if not more or len(jobs) >= limit:
            break
    return jobs


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


async def _asked(lane: Lane, worker: UUID, queue: str, ticket: int, part: int, limit: int) -> Reply:
    with _unclear(lane, worker, ticket, queue):
        step, repeats = _step(lane, worker, queue, ticket * _PARTS + part, limit), lane.repeats
        reply, *_ = await lane.each([step, *_said_again(lane, queue)])
        if isinstance(reply, StoreError):
            raise reply
    _note_copy(lane, worker, ticket, queue, repeats, reply)
    return reply


def _said_again(lane: Lane, queue: str) -> list[Step]:
    """The name of a queue that had jobs, see `queues`."""
    return said_again(lane, [queue]) if queue in lane.place.served else []


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
