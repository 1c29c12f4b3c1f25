"""Workers' lives: register, beat, retire, and the mailbox. The registry hears first, then the slot of each queue."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, cast
from uuid import UUID

from holdfast.clock import Instant, Span
from holdfast.errors import StoreError
from holdfast.job import Loss
from holdfast.store import Beat, Line, Registered, Roster, WorkerRow
from holdfast.stores.columns import text_of_loss
from holdfast.stores.redis.lane import Lane, Step
from holdfast.stores.redis.place import Place, names_of, queue_keys
from holdfast.stores.redis.queues import make_known
from holdfast.stores.redis.resp import Argument
from holdfast.stores.redis.slots import Slots
from holdfast.stores.redis.whereabouts import located
from holdfast.stores.unreadable import decoded

Joined = Literal["joined", "gone", "expired", "empty"]


class Standing(NamedTuple):
    """A worker by the registry: its state there and its row, the time, and the queues that there are."""

    state: Literal["live", "expired", "gone"]
    row: bytes
    lease: Span
    now: Instant
    queues: set[str]


async def register(lane: Lane, worker: UUID, supervisor: UUID | None, facts: Mapping[str, object]) -> Registered:
    told = json.dumps([None if supervisor is None else str(supervisor), dict(facts)], default=str)
    lease, now, names = await lane.script("register", lane.place.registry, str(worker), told)
    await _beat_in_slots(lane, [worker], lease, names_of(names))
    return Registered(lease, now)


async def beat(lane: Lane, workers: Sequence[UUID]) -> Beat:
    lease, now, texts, names = await lane.script("renew", lane.place.registry, *map(str, workers))
    alive = frozenset(UUID(text.decode()) for text in texts)
    if alive:
        await _beat_in_slots(lane, alive, lease, names_of(names))
    gone = frozenset(workers) - alive
    _forget(lane.place, gone)
    return Beat(lease, now, gone)


async def roster(lane: Lane) -> Roster:
    now, rows, facts = await lane.script("roster", lane.place.registry)
    told = dict(zip(facts[::2], facts[1::2], strict=True))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    workers, _ = decoded(pairs, lambda pair: _row_of(pair[0], pair[1], told.get(pair[0], b"[null, {}]")))
    return Roster(now, sorted(workers, key=lambda worker: worker.id))


def _row_of(worker: bytes, row: bytes, told: bytes) -> WorkerRow:
    """As the part `lives` writes a row; one that it would not read is left out."""
    till, beat, steady, retired = row.split()
    supervisor, facts = json.loads(told)
    return WorkerRow(
        UUID(worker.decode()),
        None if supervisor is None else UUID(supervisor),
        facts,
        int(beat),
        int(steady),
        int(till),
        None if retired == b"-" else int(retired),
    )


def _forget(place: Place, workers: Collection[UUID]) -> None:
    """They will claim and hold nothing more."""
    if workers:
        place.whereabouts.leave(workers)
    for worker in workers:
        place.tickets.pop(worker, None)
        place.unclear.pop(worker, None)


async def _beat_in_slots(lane: Lane, workers: Collection[UUID], lease: Span, names: set[str]) -> None:
    """Queues that the registry has lost are known to it again if they are there.

    What a queue refuses is not raised: the worker goes on in all others. Whoever claims or sweeps there hears of it.
    """
    place = lane.place
    place.lease = lease
    known = names | place.queues | place.joined
    beating: list[Argument] = [lease, *map(str, workers)]
    heard = await Slots(lane).scripts("beat", dict.fromkeys(known, beating))
    place.queues = names
    place.joined.difference_update([queue for queue, there in heard.items() if not there])
    await make_known(lane, [queue for queue, there in heard.items() if there and queue not in names])


async def standing(lane: Lane, worker: UUID, *, sweeps: bool = False) -> Standing:
    """How a worker stands by the registry. `sweeps`: if it is steady, leases that lie too far ahead are cut there."""
    reply = await lane.script("standing", lane.place.registry, str(worker), "1" if sweeps else "")
    return standing_of(lane, reply)


def standing_of(lane: Lane, reply: Sequence[Any]) -> Standing:
    """What the script `standing` answered."""
    state, row, lease, now, names = reply
    lane.place.queues = queues = names_of(names)
    return Standing(state.decode(), row, lease, now, set(queues))


async def join(lane: Lane, worker: UUID, queue: str) -> Joined:
    """Gives a worker its row in the slot of a queue, which called it a stranger.

    gone, expired: as the registry says, it is not to be served. empty: there is no such queue, and nothing to claim.
    """
    stands = await standing(lane, worker)
    if stands.state != "live":
        return stands.state
    slots = Slots(lane)
    return slots.told(await joined(lane, slots, worker, [queue], stands))[queue]


async def joined(
    lane: Lane, slots: Slots, worker: UUID, queues: Collection[str], stands: Standing
) -> dict[str, Joined]:
    """The same for several queues, of those that answer.

    Who was retired since `stands` may not have been met there yet: the registry is looked at once more.
    """
    args: list[Argument] = [stands.lease, str(worker), stands.row]
    replies = await slots.scripts("join", dict.fromkeys(queues, args))
    answers: dict[str, Joined] = {queue: cast("Joined", reply.decode()) for queue, reply in replies.items()}
    inside = [queue for queue, answer in answers.items() if answer == "joined"]
    if inside and (await standing(lane, worker)).state == "gone":
        await slots.scripts("retire", dict.fromkeys(inside, (str(worker), 1, "")))
        answers.update((queue, "gone") for queue in inside)
        return answers
    lane.place.joined.update(inside)
    return answers


async def retire(lane: Lane, worker: UUID, loss: Loss | None, jobs: Mapping[tuple[UUID, int], Loss]) -> None:
    place = lane.place
    known, names = await lane.script("leave", place.registry, str(worker))
    queues = await _queues_of(lane, {job for job, _ in jobs})
    calls = dict[str, list[Argument]]()
    for queue in names_of(names) | place.queues:
        mine = [(*claim, of_job) for claim, of_job in jobs.items() if queues.get(claim[0], queue) == queue]
        calls[queue] = [str(worker), known, text_of_loss(loss) or "", *chain.from_iterable(map(_words_of, mine))]
    _forget(place, [worker])
    slots = Slots(lane)
    await slots.scripts("retire", calls)
    slots.told(None)


def _words_of(named: tuple[UUID, int, Loss]) -> tuple[Argument, ...]:
    job, fence, loss = named
    return (str(job), fence, text_of_loss(loss) or "")


async def _queues_of(lane: Lane, jobs: Collection[UUID]) -> Mapping[UUID, str]:
    """As far as it is known: of the others every queue is told, and knows which it holds."""
    try:
        return await located(lane, lane.place, list(jobs))
    except StoreError:
        return {}


async def mail(lane: Lane, workers: Sequence[UUID]) -> list[Line]:
    """Of queues that are new to this process in a second round trip."""
    if not workers:
        return []
    place = lane.place
    known = frozenset(place.queues)
    slots = Slots(lane)
    registry: tuple[str, UUID | None] = ("", None)
    answers = await slots.ask({registry: lane.command("SMEMBERS", place.registry[2])} | _boxes(lane, known, workers))
    if registry in answers:
        place.queues = names_of(answers.pop(registry))
    answers |= await slots.ask(_boxes(lane, place.queues - known, workers))
    texts = [(worker, text) for (_, worker), lines in answers.items() if worker is not None for text in lines]
    return slots.told([_line_of(worker, text) for worker, text in texts])


def _boxes(lane: Lane, queues: Collection[str], workers: Sequence[UUID]) -> dict[tuple[str, UUID | None], Step]:
    place = lane.place
    return {
        (queue, worker): lane.command("SMEMBERS", f"{queue_keys(place, queue).base}mail:{worker}")
        for queue in queues
        for worker in workers
    }


def _line_of(worker: UUID, text: bytes) -> Line:
    kind, job, fence = text.decode().split()
    return Line(worker, cast("Literal['cancel', 'lost']", kind), UUID(job), int(fence))
