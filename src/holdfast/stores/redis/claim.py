"""Takes queued jobs for a worker: one script per queue, each taking only under a ticket that is new to its queue."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias
from uuid import UUID

from holdfast.errors import StoreAway, StoreError
from holdfast.job import Claim
from holdfast.store import Claims
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.lives import Standing, join, standing, standing_of
from holdfast.stores.redis.place import queue_keys
from holdfast.stores.redis.resp import Reply
from holdfast.stores.redis.rows import claims_of
from holdfast.stores.redis.whereabouts import known_queues

_Refusal: TypeAlias = Literal["gone", "expired", "ticket", "used"]

_AT_ONCE, _BYTES = 500, 4_000_000  # jobs, and bytes of their payloads, of one script: a few milliseconds
_PARTS = 1000  # of one claim in one queue, see claim.lua


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
    """From the queues that have jobs, the one that was served longest ago first."""
    place = lane.place
    looked = list(dict.fromkeys(queues if queues is not None else place.queues))
    stands, there = await _look(lane, worker, looked)
    if stands.state != "live":
        return Claims([], stands.state)
    filled = {queue for queue, exists in zip(looked, there, strict=True) if exists}
    if queues is None:
        filled |= stands.queues.difference(looked)
    jobs: list[Claim] = []
    for queue in sorted(filled, key=lambda queue: (place.served.get(queue, 0), queue)):
        if len(jobs) >= limit:
            break
        taken = await _taken(lane, worker, ticket, queue, limit - len(jobs))
        if not isinstance(taken, str):
            jobs += taken
        elif not jobs:
            return Claims([], taken)
    return Claims(jobs)


async def _look(lane: Lane, worker: UUID, queues: Iterable[str]) -> tuple[Standing, Sequence[Reply]]:
    """How the worker stands, and of each queue whether it has queued jobs."""
    standing_step = lane.step("standing", lane.place.registry, (str(worker), ""))
    ready = [lane.command("EXISTS", queue_keys(lane.place, queue)[3]) for queue in queues]
    stands, *there = await lane.ask([standing_step, *ready])
    return standing_of(lane, stands), there


async def _taken(lane: Lane, worker: UUID, ticket: int, queue: str, limit: int) -> list[Claim] | _Refusal:
    """From one queue, in as many scripts as it takes."""
    place = lane.place
    jobs: list[Claim] = []
    for part in range(_PARTS - 1):
        some = min(limit - len(jobs), _AT_ONCE)
        reply = await _asked(lane, worker, queue, ticket, part, some)
        if reply == b"stranger" and not jobs:
            if (joined := await join(lane, worker, queue)) != "joined":
                return [] if joined == "empty" else joined
            reply = await _asked(lane, worker, queue, ticket, part, some)
        if isinstance(reply, bytes):
            return jobs or _refused(lane, worker, reply)
        now, how, *rows = reply
        claims = await claims_of(lane, queue, worker, None if how == b"again" else now, rows)
        if rows:
            place.tickets[worker] = ticket
            place.served[queue] = place.turn = place.turn + 1
            place.whereabouts.hold(queue, [job.id for job in claims])
        jobs += claims
        if len(jobs) >= limit or (len(rows) < some and how != b"cut"):
            break
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
        [reply] = await lane.ask([_step(lane, worker, queue, ticket * _PARTS + part, limit)])
    return reply


def _step(lane: Lane, worker: UUID, queue: str, stamp: int, limit: int, *, spent: bool = False) -> Step:
    keys = queue_keys(lane.place, queue)
    return lane.step("claim", keys, (str(worker), f"{stamp:070}", limit, _BYTES, "1" if spent else ""))


# --- calls whose end is not known


@contextmanager
def _unclear(lane: Lane, worker: UUID, ticket: int, queue: str) -> Generator[None]:
    """Notes down a call that may be done, or be done later."""
    try:
        yield
    except BaseException as error:
        certain = error.certain if isinstance(error, StoreAway) else isinstance(error, StoreError)
        if not certain:
            lane.place.tickets.pop(worker, None)
            lane.place.unclear.setdefault(worker, {})[queue] = ticket
        raise


async def _use_up(lane: Lane, worker: UUID) -> bool:
    """Uses up the tickets of calls whose end is not known, where these were asked: from now on they take nothing more.

    False: its lease is over, and they may take something once it lives again.
    """
    place = lane.place
    calls = list(place.unclear[worker].items())
    steps = [_step(lane, worker, queue, (ticket + 1) * _PARTS - 1, 0, spent=True) for queue, ticket in calls]
    if b"expired" in await lane.ask(steps):
        return False
    place.unclear.pop(worker, None)
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
        claims = await claims_of(lane, queue, worker, None, rows)
        lane.place.whereabouts.hold(queue, [job.id for job in claims])
        jobs += claims
        after = rows[-1][0] if rows else after
    return jobs
