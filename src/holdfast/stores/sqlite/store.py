"""Jobs in a SQLite file, for several processes on one machine: the seam, spoken in calls to three threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar
from uuid import UUID

from holdfast.clock import MINUTE, Clock, Instant, Span
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
from holdfast.stores.sqlite import lives, operate, schedules, sweep
from holdfast.stores.sqlite.claim import Claiming, any_filled
from holdfast.stores.sqlite.core import Core, Hands
from holdfast.stores.sqlite.enqueue import enqueue
from holdfast.stores.sqlite.find import find
from holdfast.stores.sqlite.finish import Finishing
from holdfast.stores.sqlite.history import history, record
from holdfast.stores.sqlite.notes import log, note
from holdfast.stores.sqlite.opening import Durability
from holdfast.stores.sqlite.queues import configure, pause, resume, setups, stats, unchanged
from holdfast.stores.sqlite.rows import claim_of, place_of, running_order, texts_of
from holdfast.stores.sqlite.statements import Row, Sql
from holdfast.stores.sqlite.threads import aside
from holdfast.stores.sqlite.unreadable import bury, decoded
from holdfast.stores.sqlite.watcher import Waiting
from holdfast.stores.sqlite.within import enqueue_within, finish_within
from holdfast.stores.sqlite.writer import Work

R = TypeVar("R")

OWN_LOCK_PATIENCE = 5.0  # seconds; the caller of enqueue may hold the write lock himself, and would wait for ever


class SqliteStore:
    """Jobs in the file `path`, made absolute now; `durability`: "full" syncs every commit, "normal" leaves the
    newest commits to the operating system, and a power cut may take them.

    A missing or empty file, and a database without tables of Holdfast, gets them when it is opened (their names begin
    with holdfast_), and WAL mode. It uses what `import sqlite3` gives, never a second SQLite beside it: two copies in
    one process undo each other's file locks.
    Raises ConfigError for a path or durability that makes no sense.
    """

    def __init__(self, path: str, *, durability: Durability = "full", clock: Clock) -> None:
        if durability not in {"full", "normal"}:
            raise ConfigError(f"durability={durability!r}: full or normal")
        if not path or path == ":memory:":
            raise ConfigError(f"path={path!r}: not a file; for jobs in memory use memory://")
        self._start(Core(os.path.abspath(path), durability, clock))  # noqa: PTH100  # a symlink stays one: it may move

    def _start(self, core: Core) -> None:
        self._core = core
        self._hands: Hands | None = None
        self._opening = asyncio.Lock()
        self._in_flight = 0
        self._landed = asyncio.Event()
        self._waits: set[Waiting] = set()

    @property
    def shift(self) -> Span:
        """Milliseconds by which a test has moved the clock of all twins."""
        return self._core.shift

    @shift.setter
    def shift(self, shift: Span) -> None:
        self._core.shift = shift

    @property
    def url(self) -> str:
        """The place, with its path in full."""
        return f"sqlite:///{self._core.path}"

    @property
    def shared(self) -> bool:
        """True: other processes see the same file."""
        return True

    @property
    def unheard(self) -> str:
        """Empty: writes to the file are always noticed."""
        return ""

    def twin(self) -> Store:
        """The same store for another event loop; both use the same threads and connections."""
        twin = SqliteStore.__new__(SqliteStore)
        twin._start(self._core)  # noqa: SLF001  # its own kind
        return twin

    # --- open and close

    async def open(self, *, create: bool = True) -> None:
        """Raises StoreError, with nothing touched, where the file cannot be used; StoreAway where it is locked."""
        async with self._opening:
            if self._hands is None:
                self._hands = await aside(partial(self._core.open, create=create))

    async def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        """Each statement is whole, with its semicolon; they may be run by hand, in one transaction."""
        return await aside(partial(self._core.migrate, dry_run=dry_run))

    async def close(self) -> None:
        """Ends `wait` at once; all other calls in flight are waited for."""
        async with self._opening:
            hands, self._hands = self._hands, None
            if hands is None:
                return
            for waiting in self._waits:
                waiting.end()
            while self._in_flight:
                self._landed.clear()
                await self._landed.wait()
            await aside(self._core.close)

    def _opened(self) -> Hands:
        if self._hands is None:
            raise StoreError(f"{self.url}: the store is not open; await open() first")
        return self._hands

    async def _call(self, answer: Callable[[Hands], Coroutine[None, None, R]]) -> R:
        """One call to a thread of ours; close() waits for it."""
        hands = self._opened()
        self._in_flight += 1
        try:
            return await answer(hands)
        finally:
            self._in_flight -= 1
            self._landed.set()

    async def _write(self, work: Work[R]) -> R:
        return await self._call(lambda hands: hands.writer.submit(work))

    async def _read(self, work: Callable[[Sql], R]) -> R:
        return await self._call(lambda hands: hands.reader.submit(work))

    # --- the producer's side

    async def enqueue(
        self, jobs: Sequence[Draft], connection: object = None, declared: Mapping[str, QueueTerms] = {}
    ) -> Sequence[Receipt]:
        """As the seam says. `connection`: a `sqlite3.Connection` to this file with a transaction open, or one that
        opens one by itself, or SQLAlchemy's Session, Connection, AsyncSession or AsyncConnection on one.
        StoreAway when it cannot get the write lock: BEGIN IMMEDIATE waits its turn.
        """
        if connection is not None:
            receipts = await enqueue_within(connection, self._core.path, self._core.now, jobs, declared)
            self._core.tend()
            return receipts
        if not jobs:
            return []
        return await self._write(Work(lambda sql: enqueue(sql, jobs), wakes=True, patience=OWN_LOCK_PATIENCE))

    async def reserve(self, jobs: Sequence[Draft]) -> Sequence[Receipt]:
        """Takes no places: whoever writes in a transaction of his own holds the only write lock, and counts exactly."""
        return [Receipt(draft.id, "accepted", created=False) for draft in jobs]

    # --- the worker's side

    async def claim(
        self, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int, quotas: Sequence[Quota] = ()
    ) -> Claims:
        """As the seam says. A claim that finds nothing writes nothing."""
        claiming = Claiming(worker, ticket, queues, limit, quotas)
        taken = await self._write(Work(claiming.write, claiming.look, claiming.read))
        return Claims(await self._claims(sorted(taken.rows, key=running_order), worker), taken.refused)

    async def _claims(self, rows: Sequence[Row], worker: UUID) -> list[Claim]:
        """The jobs of these rows; what cannot be read is settled as dead, so that it is in nobody's way any more."""
        claims, unreadable = decoded(rows, lambda row: claim_of(row, worker), place_of)
        if unreadable:
            self._core.told.buried(await self._write(Work(lambda sql: bury(sql, unreadable))))
        return claims

    async def finish(self, outcomes: Sequence[Outcome], connection: object = None) -> Sequence[Settled]:
        """As the seam says; never `busy`, because there is one writer: StoreAway where it waits in vain."""
        if connection is not None:
            answers = await finish_within(connection, self._core.path, self._core.now, outcomes)
            self._core.tend()
            return answers
        if not outcomes:
            return []
        finishing = Finishing.of(outcomes)
        wakes = finishing.wakes or self._opened().watcher.listens  # somebody may wait for just this end
        return await self._write(Work(finishing.write, wakes=wakes))

    async def register(self, worker: UUID, supervisor: UUID | None, facts: Mapping[str, object]) -> Registered:
        """As the seam says. This process is the worker's: when it ends, others see that at once."""

        def write(sql: Sql) -> Registered:
            self._core.presence.begin(worker)  # before there is a row, so that whoever sees the row can see the lock
            return lives.register(sql, worker, supervisor, facts)

        return await self._write(Work(write))

    async def beat(self, workers: Sequence[UUID]) -> Beat:
        """As the seam says."""
        return await self._write(Work(lambda sql: lives.beat(sql, workers)))

    async def mail(self, workers: Sequence[UUID]) -> Sequence[Line]:
        """As the seam says."""
        return await self._read(lambda sql: lives.mail(sql, workers))

    async def retire(self, worker: UUID, loss: Loss | None = None, jobs: Mapping[tuple[UUID, int], Loss] = {}) -> None:
        """As the seam says."""

        def write(sql: Sql) -> bool:
            ended = lives.retire(sql, worker, loss, jobs)
            self._core.presence.end(worker)
            return ended

        await self._write(Work(write))

    async def wait(self, queues: Sequence[str] | None, timeout: float) -> bool:
        """As the seam says. Another process's job is seen after a few ms, one of this process's within 1 ms."""
        return await self._hinted(lambda sql: any_filled(sql, queues), timeout)

    async def _hinted(self, look: Callable[[Sql], bool], timeout: float) -> bool:
        """Whether it was so within that time."""
        watcher = self._opened().watcher
        if timeout <= 0:
            return await self._read(look)
        waiting = watcher.begin(look)
        timer = waiting.loop.call_later(timeout, waiting.end)
        self._waits.add(waiting)
        try:
            return await waiting.future
        finally:
            timer.cancel()
            self._waits.discard(waiting)

    # --- the janitor's side

    async def promote(self, limit: int) -> Promoted:
        """As the seam says. Writes nothing where nothing is due."""
        return await self._write(Work(lambda sql: sweep.promote(sql, limit), sweep.nothing_due, wakes=True))

    async def reclaim(self, sweeper: UUID, limit: int) -> Sequence[Claim]:
        """As the seam says. Writes nothing where nobody's jobs are to be taken over."""
        sweeping = sweep.Sweeping(sweeper, limit, self._core.presence)
        return await self._claims(await self._write(Work(sweeping.write, sweeping.look)), sweeper)

    async def prune(self, limit: int) -> int:
        """As the seam says. Writes nothing where nothing is over."""
        return await self._write(Work(lambda sql: sweep.prune(sql, limit, self._core.presence), sweep.nothing_over))

    # --- the operator's side

    async def find(self, where: Where, after: Cursor | None = None, limit: int = 50) -> Sequence[Record]:
        """As the seam says; read from one state of the file. Rows that cannot be read are left out, and logged once."""
        found = await self._read(lambda sql: find(sql, where, after, limit))
        self._core.told.left_out(found.unreadable)
        return found.records

    async def cancel(self, ids: Sequence[UUID], reason: str = "") -> Sequence[Cancelling]:
        """As the seam says."""
        return await self._write(Work(lambda sql: operate.cancel(sql, ids, reason), wakes=True))

    async def retry(self, ids: Sequence[UUID]) -> Sequence[Retried]:
        """As the seam says."""
        return await self._write(Work(lambda sql: operate.retry(sql, ids), wakes=True))

    async def delete(self, ids: Sequence[UUID]) -> Sequence[Deleting]:
        """As the seam says."""
        return await self._write(Work(lambda sql: operate.delete(sql, ids), wakes=True))

    async def locker(self, id: UUID) -> str:  # noqa: ARG002  # the seam's
        """Empty: no transaction holds a single job."""
        return ""

    async def configure(self, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
        """As the seam says. Writes nothing where nothing changes. StoreAway when it cannot get the write lock."""

        def write(sql: Sql) -> Literal[True]:
            configure(sql, queues, by)
            return True

        look = partial(unchanged, queues=queues, by=by)
        await self._write(Work(write, look, patience=OWN_LOCK_PATIENCE))

    async def pause(self, queue: str, until: Until | None = None, reason: str = "") -> None:
        """As the seam says."""

        def write(sql: Sql) -> Literal[True]:
            pause(sql, queue, until, reason)
            return True

        await self._write(Work(write))

    async def resume(self, queue: str) -> bool:
        """As the seam says."""
        return await self._write(Work(lambda sql: resume(sql, queue), wakes=True))

    async def queues(self) -> Sequence[QueueSetup]:
        """As the seam says."""
        return await self._read(setups)

    async def workers(self) -> Roster:
        """As the seam says."""
        return await self._read(lives.workers)

    async def stats(self) -> Stats:
        """As the seam says; read from one state of the file. It reads as many index entries as there are jobs."""
        return await self._read(stats)

    # --- schedules

    async def schedules(self, names: Sequence[str] | None = None) -> Schedules:
        """As the seam says."""
        return await self._read(lambda sql: schedules.schedules(sql, names))

    async def due(self, limit: int) -> Schedules:
        """As the seam says."""
        return await self._read(lambda sql: schedules.due(sql, limit))

    async def schedule(self, entries: Sequence[Entry]) -> Sequence[bool]:
        """As the seam says."""
        return await self._write(Work(lambda sql: schedules.schedule(sql, entries)))

    async def unschedule(self, names: Mapping[str, int]) -> Sequence[bool]:
        """As the seam says."""
        return await self._write(Work(lambda sql: schedules.unschedule(sql, names)))

    async def tick(self, ticks: Sequence[Tick]) -> Sequence[Ticked | None]:
        """As the seam says. Writes nothing where somebody else has settled them."""
        work = Work(
            lambda sql: schedules.settle(sql, ticks), lambda sql: schedules.nothing_to_tick(sql, ticks), wakes=True
        )
        return await self._write(work)

    # --- the history of each minute

    async def record(self, reporter: UUID, number: int, tallies: Sequence[Tally], levels: Sequence[Level] = ()) -> int:
        """As the seam says."""
        return await self._write(Work(lambda sql: record(sql, reporter, number, tallies, levels)))

    async def history(self, since: Instant, before: Instant, *, tens: bool = False) -> Sequence[Minutes]:
        """As the seam says."""
        return await self._read(lambda sql: history(sql, since, before, 10 * MINUTE if tens else MINUTE))

    # --- a handler's side

    async def note(self, notes: Sequence[Note]) -> Sequence[bool]:
        """As the seam says."""
        return await self._write(Work(lambda sql: note(sql, notes)))

    async def log(self, id: UUID) -> Sequence[LogLine]:
        """As the seam says."""
        return await self._read(lambda sql: log(sql, id))

    # --- who waits for a result

    async def watch(self, ids: Sequence[UUID], timeout: float) -> bool:
        """As the seam says. What another process ended is seen after a few ms."""
        wanted = texts_of(ids)
        return await self._hinted(lambda sql: sql.rows("ended", wanted) == [(1,)], timeout)
