"""Jobs in Redis or Valkey, for many machines: the seam, spoken in scripts that run on the server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from uuid import UUID

from holdfast.clock import Instant, Span
from holdfast.errors import ConfigError, StoreError
from holdfast.job import Claim, Draft, LogLine, Loss, Note, Outcome, QueueTerms, Record, Until
from holdfast.store import (
    Authority,
    Beat,
    Cancelling,
    Claims,
    Cursor,
    Deleting,
    Entry,
    Level,
    Line,
    Minutes,
    Promoted,
    QueueSetup,
    Quota,
    Receipt,
    Registered,
    Retried,
    Roster,
    Schedules,
    Settled,
    Stats,
    Store,
    Tally,
    Tick,
    Ticked,
    Where,
)
from holdfast.stores.redis import lives, operate, schedules, sweep
from holdfast.stores.redis.address import Address
from holdfast.stores.redis.claim import claim
from holdfast.stores.redis.durability import confirm_enqueued, confirm_finished
from holdfast.stores.redis.enqueue import enqueue
from holdfast.stores.redis.find import find
from holdfast.stores.redis.finish import finish
from holdfast.stores.redis.history import history, record
from holdfast.stores.redis.lanes import Lanes
from holdfast.stores.redis.notes import log, note
from holdfast.stores.redis.opening import migrate, opened
from holdfast.stores.redis.place import Place
from holdfast.stores.redis.prune import prune
from holdfast.stores.redis.queues import configure, declare_again, pause, queues, resume, stats

_NO_TRANSACTION = (
    "connection={}: jobs in Redis cannot be part of a transaction of a database: keep an outbox in that database "
    "(docs/redis.md shows one)"
)


class RedisStore:
    """Jobs under the prefix of the server at `address`. Times are the server's."""

    def __init__(self, address: Address) -> None:
        self._start(Place(address))

    def _start(self, place: Place) -> None:
        self._place = place
        self._lanes: Lanes | None = None
        self._opening = asyncio.Lock()

    @property
    def shift(self) -> Span:
        """Milliseconds by which a test has moved the clock of all twins."""
        return self._place.shift

    @shift.setter
    def shift(self, shift: Span) -> None:
        self._place.shift = shift

    @property
    def url(self) -> str:
        """The place, without secrets."""
        return self._place.url

    @property
    def shared(self) -> bool:
        """True: other processes see the same server."""
        return True

    @property
    def unheard(self) -> str:
        """Why messages do not arrive just now; empty if they do."""
        return self._place.waiters.unheard

    def twin(self) -> Store:
        """The same store for another event loop, on connections of its own."""
        twin = RedisStore.__new__(RedisStore)
        twin._start(self._place)  # noqa: SLF001  # its own kind
        return twin

    # --- open and close

    async def open(self, *, create: bool = True) -> None:
        """Makes the layout under a free prefix, unless `create` is False. Raises StoreError or StoreAway."""
        async with self._opening:
            if self._lanes is None:
                self._lanes = await opened(self._place, create=create)

    async def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        """What was done, in words."""
        return await migrate(self._place, dry_run=dry_run)

    async def close(self) -> None:
        """Ends `wait` at once; all other calls in flight are waited for."""
        async with self._opening:
            lanes, self._lanes = self._lanes, None
            if lanes is not None:
                await lanes.close()

    def _flight(self) -> AbstractContextManager[Lanes]:
        return self._opened().flight()

    def _opened(self) -> Lanes:
        if self._lanes is None:
            raise StoreError(f"{self.url}: the store is not open; await open() first")
        return self._lanes

    # --- the producer's side

    async def enqueue(
        self,
        jobs: Sequence[Draft],
        connection: object = None,
        declared: Mapping[str, QueueTerms] = {},  # noqa: ARG002  # the seam's: part of a caller's transaction
    ) -> Sequence[Receipt]:
        """As the seam says, but for `connection`, which is a ConfigError."""
        _refuse_connection(connection)
        with self._flight() as lanes:
            if self._place.undeclared:
                await declare_again(lanes.work)
            receipts = await enqueue(lanes.enqueue, jobs)
            if self._place.address.wait:
                await confirm_enqueued(lanes.enqueue)
        if self._place.waiters.deaf:
            self._place.waiters.look()  # by themselves: it may be paused
        return receipts

    async def reserve(self, jobs: Sequence[Draft]) -> Sequence[Receipt]:
        """Every place is taken by the enqueue itself."""
        return [Receipt(draft.id, "accepted", created=False) for draft in jobs]

    # --- the worker's side

    async def claim(
        self, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int, quotas: Sequence[Quota] = ()
    ) -> Claims:
        """As the seam says."""
        with self._flight() as lanes:
            claims = await claim(lanes.claim, worker, ticket, queues, limit, quotas)
        if claims.jobs:
            lanes.waking.found()
        return claims

    async def finish(self, outcomes: Sequence[Outcome], connection: object = None) -> Sequence[Settled]:
        """As the seam says, but for `connection`, which is a ConfigError."""
        _refuse_connection(connection)
        with self._flight() as lanes:
            settled = await finish(lanes.finish, outcomes)
            if self._place.address.wait:
                await confirm_finished(lanes.finish)
            return settled

    async def register(self, worker: UUID, supervisor: UUID | None, facts: Mapping[str, object]) -> Registered:
        """As the seam says."""
        with self._flight() as lanes:
            if self._place.undeclared:
                await declare_again(lanes.work)
            return await lives.register(lanes.beat, worker, supervisor, facts)

    async def beat(self, workers: Sequence[UUID]) -> Beat:
        """As the seam says."""
        with self._flight() as lanes:
            return await lives.beat(lanes.beat, workers)

    async def mail(self, workers: Sequence[UUID]) -> Sequence[Line]:
        """As the seam says."""
        with self._flight() as lanes:
            return await lives.mail(lanes.beat, workers)

    async def retire(self, worker: UUID, loss: Loss | None = None, jobs: Mapping[tuple[UUID, int], Loss] = {}) -> None:
        """As the seam says."""
        with self._flight() as lanes:
            await lives.retire(lanes.beat, worker, loss, jobs)

    async def wait(self, queues: Sequence[str] | None, timeout: float) -> bool:
        """As the seam says."""
        return await self._opened().waking.wait(queues, timeout)

    # --- the janitor's side

    async def promote(self, limit: int) -> Promoted:
        """As the seam says."""
        with self._flight() as lanes:
            return await sweep.promote(lanes.work, limit)

    async def reclaim(self, sweeper: UUID, limit: int) -> Sequence[Claim]:
        """As the seam says."""
        with self._flight() as lanes:
            return await sweep.reclaim(lanes.work, sweeper, limit)

    async def prune(self, limit: int) -> int:
        """As the seam says."""
        with self._flight() as lanes:
            return await prune(lanes.work, limit)

    # --- the operator's side

    async def find(self, where: Where, after: Cursor | None = None, limit: int = 50) -> Sequence[Record]:
        """As the seam says."""
        with self._flight() as lanes:
            return await find(lanes.work, where, after, limit)

    async def cancel(self, ids: Sequence[UUID], reason: str = "") -> Sequence[Cancelling]:
        """As the seam says."""
        with self._flight() as lanes:
            return await operate.cancel(lanes.work, ids, reason)

    async def retry(self, ids: Sequence[UUID]) -> Sequence[Retried]:
        """As the seam says."""
        with self._flight() as lanes:
            return await operate.retry(lanes.work, ids)

    async def delete(self, ids: Sequence[UUID]) -> Sequence[Deleting]:
        """As the seam says."""
        with self._flight() as lanes:
            return await operate.delete(lanes.work, ids)

    async def locker(self, id: UUID) -> str:  # noqa: ARG002  # the seam's
        """No transaction of anybody holds a job here."""
        return ""

    async def configure(self, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
        """As the seam says."""
        with self._flight() as lanes:
            await configure(lanes.work, queues, by)

    async def pause(self, queue: str, until: Until | None = None, reason: str = "") -> None:
        """As the seam says."""
        with self._flight() as lanes:
            await pause(lanes.work, queue, until, reason)

    async def resume(self, queue: str) -> bool:
        """As the seam says."""
        with self._flight() as lanes:
            paused = await resume(lanes.work, queue)
        if self._place.waiters.deaf:
            self._place.waiters.look()
        return paused

    async def queues(self) -> Sequence[QueueSetup]:
        """As the seam says."""
        with self._flight() as lanes:
            return await queues(lanes.work)

    async def workers(self) -> Roster:
        """As the seam says."""
        with self._flight() as lanes:
            return await lives.roster(lanes.work)

    async def stats(self) -> Stats:
        """As the seam says."""
        with self._flight() as lanes:
            return await stats(lanes.work)

    # --- schedules

    async def schedules(self, names: Sequence[str] | None = None) -> Schedules:
        """As the seam says."""
        with self._flight() as lanes:
            return await schedules.schedules(lanes.work, names)

    async def due(self, limit: int) -> Schedules:
        """As the seam says."""
        with self._flight() as lanes:
            return await schedules.due(lanes.work, limit)

    async def schedule(self, entries: Sequence[Entry]) -> Sequence[bool]:
        """As the seam says; for an entry that moves to another queue in several steps, which whoever meets it ends."""
        with self._flight() as lanes:
            return await schedules.schedule(lanes.work, entries)

    async def unschedule(self, names: Mapping[str, int]) -> Sequence[bool]:
        """As the seam says."""
        with self._flight() as lanes:
            return await schedules.unschedule(lanes.work, names)

    async def tick(self, ticks: Sequence[Tick]) -> Sequence[Ticked | None]:
        """As the seam says."""
        with self._flight() as lanes:
            ticked = await schedules.tick(lanes.work, ticks)
            if self._place.address.wait and any(ticked):
                await confirm_enqueued(lanes.work)
        if self._place.waiters.deaf:
            self._place.waiters.look()
        return ticked

    # --- the history of each minute

    async def record(self, reporter: UUID, number: int, tallies: Sequence[Tally], levels: Sequence[Level] = ()) -> int:
        """As the seam says."""
        with self._flight() as lanes:
            return await record(lanes.work, reporter, number, tallies, levels)

    async def history(self, since: Instant, before: Instant, *, tens: bool = False) -> Sequence[Minutes]:
        """As the seam says."""
        with self._flight() as lanes:
            return await history(lanes.work, since, before, tens=tens)

    # --- a handler's side

    async def note(self, notes: Sequence[Note]) -> Sequence[bool]:
        """As the seam says."""
        with self._flight() as lanes:
            return await note(lanes.work, notes)

    async def log(self, id: UUID) -> Sequence[LogLine]:
        """The kept lines of a job's own log."""
        with self._flight() as lanes:
            return await log(lanes.work, id)

    # --- who waits for a result

    async def watch(self, ids: Sequence[UUID], timeout: float) -> bool:
        """As the seam says."""
        return await self._opened().watching.watch(ids, timeout)


def _refuse_connection(connection: object) -> None:
    if connection is not None:
        raise ConfigError(_NO_TRANSACTION.format(type(connection).__qualname__))
