"""The seam: what a store must do. Each method's docstring is the law that the conformance suite tests.

Every method takes and returns whole values and batches (one is a batch of one), decides nothing, and may be
repeated after an unclear error: the repeat means the same. Instants and spans are whole milliseconds by the
store's own clock. A store raises StoreAway where the same call may work later, StoreError where it will not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from holdfast.clock import DAY, HOUR, SECOND, Instant, Span
from holdfast.job import (
    Claim,
    Draft,
    LogLine,
    Loss,
    Note,
    Outcome,
    Pause,
    QueueTerms,
    Record,
    State,
    Until,
    WhenFull,
)

LEASE: Span = 15 * SECOND  # the default; one setting of the store, written by migrate()
RESERVED: Span = 60 * SECOND  # how long a place is kept for a caller's transaction
LEASE_RAN_OUT = Loss("the worker's lease ran out")  # what reclaim writes where nobody said more
TICKS_MOST = 20  # of a schedule that are kept: the newest
SCHEDULE_LIMIT = 2 * 2**20  # bytes of an entry's text
MINUTES_KEPT: Span = 24 * HOUR  # how long the history is kept minute by minute
TENS_KEPT: Span = 30 * DAY  # how long it is kept in steps of ten minutes
BUCKETS = 12  # of the history's histograms; where they end is their writers' affair


class Room(NamedTuple):
    """A bounded queue as it was met: `depth` jobs admitted of `bound`, and its terms."""

    depth: int
    bound: int
    when_full: WhenFull
    block_timeout: Span | None


class Receipt(NamedTuple):
    """What became of one draft. `created` is True only if this call stored it.

    accepted: it is stored, now or already; `dropped`: the job that was ended to make room for it. conflict: the id is
    another job's. Nothing is stored: duplicate, replaced, taken (`holder` has its unique key), full, dropped (`room`);
    busy: a transaction that is open elsewhere decides on its id, key or place, ask again; unreserved: its place in the
    queue must be taken by `reserve` before the caller's transaction can use it.
    """

    id: UUID
    answer: Literal["accepted", "duplicate", "replaced", "taken", "full", "dropped", "conflict", "busy", "unreserved"]
    created: bool = True
    holder: UUID | None = None
    dropped: UUID | None = None
    room: Room | None = None

    @property
    def refused(self) -> bool:
        """Whether its producer must hear of it as an error."""
        return self.answer in ("conflict", "taken", "full", "busy", "unreserved")


class Claims(NamedTuple):
    """What a claim took, or why it was refused: see `Store.claim`."""

    jobs: Sequence[Claim]
    refused: Literal["gone", "expired", "ticket", "used"] | None = None


class Answer(StrEnum):
    """What the store says to an outcome."""

    ACCEPTED = "accepted"
    REPLAYED = "replayed"
    STALE = "stale"
    GONE = "gone"
    BUSY = "busy"


class Settled(NamedTuple):
    """The answer to one outcome; `state` is the state as recorded, for accepted and replayed."""

    answer: Answer
    state: State | None = None


class Registered(NamedTuple):
    lease: Span
    now: Instant


class Beat(NamedTuple):
    lease: Span
    now: Instant
    gone: frozenset[UUID]


class Line(NamedTuple):
    """A line in a worker's mailbox. `job` and `fence` say which claim it is about. Kinds come with what sends them."""

    worker: UUID
    kind: Literal["cancel", "lost"]
    job: UUID
    fence: int


class Over(NamedTuple):
    """A job that `promote` ended because its time was over: cancelled as expired, or dead by its deadline."""

    id: UUID
    task: str
    queue: str
    reason: Literal["expired", "deadline"]


class Promoted(NamedTuple):
    """`moved` jobs became queued, those in `over` were ended. The next step is due in `next_in` (0: now already), None:
    there is none.

    Where another transaction holds one that is due, `next_in` is a pause after which to ask again.
    """

    moved: int
    next_in: Span | None
    over: Sequence[Over] = ()


class Quota(NamedTuple):
    """How many jobs of a queue a claim takes before it looks at the next one."""

    queue: str
    most: int


Cancelling: TypeAlias = Literal["cancelled", "requested", "final", "missing", "finishing"]
Deleting: TypeAlias = Literal["deleted", "running", "missing", "busy"]
Authority: TypeAlias = Literal["producer", "worker", "operator"]


class Retried(NamedTuple):
    """What became of one retry. taken: `holder` has its unique key; full: there is no place for it in `room`."""

    answer: Literal["retried", "unfinished", "succeeded", "missing", "taken", "full", "busy"]
    holder: UUID | None = None
    room: Room | None = None


class QueueStats(NamedTuple):
    """A queue now. `counts`: its jobs by state, of the states that are not final and of dead, without zeros. `edited`:
    its terms are an operator's. `admitted`: the places taken, None without a bound. `dropped`: jobs dropped since it
    was declared.
    """

    name: str
    terms: QueueTerms
    edited: bool
    counts: Mapping[State, int]
    admitted: int | None
    dropped: int
    oldest_due: Instant | None  # of those queued
    pause: Pause | None = None

    def waited(self, now: Instant) -> Span:
        """How long the oldest job has waited that is due and not started; 0 where there is none."""
        return 0 if self.oldest_due is None else max(0, now - self.oldest_due)


class Stats(NamedTuple):
    now: Instant
    queues: Sequence[QueueStats]  # every queue that is declared, paused or has such a job, by name


class QueueSetup(NamedTuple):
    """What is laid down about a queue, without a look at its jobs."""

    name: str
    terms: QueueTerms
    edited: bool
    pause: Pause | None


class WorkerRow(NamedTuple):
    """A worker as the store knows it. `facts`: what it said of itself when it was registered."""

    id: UUID
    supervisor: UUID | None
    facts: Mapping[str, object]
    beat_at: Instant
    steady_since: Instant
    lease_until: Instant
    retired_at: Instant | None


class Roster(NamedTuple):
    now: Instant
    workers: Sequence[WorkerRow]


# --- schedules


class Ticked(NamedTuple):
    """What became of a schedule's tick, as it is kept. made: `job` was stored for it; skipped: it was not, `reason`
    says why (a receipt's answer), `job` is then whose key it met; missed: `count` ticks, of which `due` is the first,
    were passed over.
    """

    due: Instant
    at: Instant  # when it was settled
    outcome: Literal["made", "skipped", "missed"]
    job: UUID | None = None
    reason: str = ""
    count: int = 1  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]  # hides a method of tuples


class Entry(NamedTuple):
    """A schedule as it is stored. Whoever changes one read it before: see `Store.schedule`.

    `text` says what it does and who said so; stores keep it as it is. `ticks`: the newest, oldest first.
    `made`, `skipped`, `missed`: how many ticks, since it was made.
    """

    name: str
    queue: str  # that its jobs go to
    text: str
    next_at: Instant | None  # its next tick; None: it has none
    pause: Pause | None = None
    revision: int = 0  # grows by one with each change and each tick; 0: not stored yet
    ticks: Sequence[Ticked] = ()
    made: int = 0
    skipped: int = 0
    missed: int = 0


class Schedules(NamedTuple):
    """Entries, by name. `next_in`: how soon the next tick of one that is not among them is due, None: never."""

    now: Instant
    entries: Sequence[Entry]
    next_in: Span | None = None


class Tick(NamedTuple):
    """A step of a schedule that is due: `draft` is stored for the tick `at`, and the next tick is `next_at`.

    `revision`, `due`: as the entry was read. `missed`: how many ticks, from `due` on, are passed over with this step.
    """

    name: str
    queue: str
    revision: int
    due: Instant
    at: Instant
    next_at: Instant | None
    draft: Draft | None
    missed: int = 0
    reason: str = ""  # why they are passed over


# --- the history of each minute


class Tally(NamedTuple):
    """Attempts of one queue and task that ended alike: how many, and how long they ran and had waited, in buckets."""

    queue: str
    task: str
    outcome: str
    count: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]  # hides a method of tuples
    ran: tuple[int, ...]  # BUCKETS numbers of attempts, as is `waited`
    waited: tuple[int, ...]


class Level(NamedTuple):
    """How full a queue was: jobs that are due and not started, and how long the oldest had waited."""

    queue: str
    depth: int
    oldest: Span


class Minutes(NamedTuple):
    """One minute, or ten minutes, of the history; `start` is a multiple of its length."""

    start: Instant
    tallies: Sequence[Tally]
    levels: Sequence[Level]


@dataclass(frozen=True, slots=True)
class Where:
    """Which jobs: all that is set must hold. The times bound the enqueue: since <= enqueued_at < before."""

    ids: Sequence[UUID] | None = None
    starts: str | None = None  # the id's text begins with this
    ends: str | None = None  # and ends with this
    states: Sequence[State] | None = None
    queue: str | None = None
    task: str | None = None
    tag: str | None = None
    error: str | None = None  # the type of the newest kept error, exactly
    fingerprint: str | None = None
    worker: UUID | None = None  # running under this worker now
    since: Instant | None = None
    before: Instant | None = None


Cursor: TypeAlias = tuple[Instant, UUID]  # (enqueued_at, id) of the last record of a page


class Store(Protocol):
    """A place where jobs live. An instance serves one event loop; `twin()` makes one for another loop.

    `shift` moves the store's clock in tests, in milliseconds, on every store alike; it is 0 outside tests and
    shared by all twins.
    """

    @property
    def shift(self) -> Span: ...
    @shift.setter
    def shift(self, shift: Span, /) -> None: ...

    @property
    def url(self) -> str:
        """Where the store is, without secrets; for people."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes see its jobs; False for a store that lives and dies with this process."""
        ...

    @property
    def unheard(self) -> str:
        """Why hints of jobs from other processes do not arrive just now, so that workers look for jobs instead, which
        is slower; empty where they do, or nobody waits. Not for what is polled by design.
        """
        ...

    def twin(self) -> Store:
        """The same store for another event loop or thread: not open yet, sees and writes the same jobs."""
        ...

    async def open(self, *, create: bool = True) -> None:
        """Connects and checks the schema: code opens any schema whose `oldest_code` it meets.

        A store without any schema where making one is safe (an empty SQLite file, memory) gets it here, but with
        create=False, as for those who only look, it is a StoreError that says so. StoreError,
        with nothing touched, when the place cannot be used; for an outdated or foreign schema it names the command.
        Opening twice is harmless.
        """
        ...

    async def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        """Brings the schema to this code's version and returns the statements that it ran (`dry_run`: would run).

        Migrating twice is harmless: the second returns none. Works on a store that is not open.
        """
        ...

    async def close(self) -> None:
        """Waits for calls in flight, then lets go. Closing twice is harmless."""
        ...

    async def enqueue(
        self, jobs: Sequence[Draft], connection: object = None, declared: Mapping[str, QueueTerms] = {}
    ) -> Sequence[Receipt]:
        """Stores jobs; receipts in the same order. When it returns they are durable at the store's level.

        Each job is atomic by itself. The id is looked for first: same id and same content (as it was enqueued,
        whatever replaced it since) is `accepted` again (created=False), other content is `conflict`. Due now (delay 0,
        at <= now) is queued, else scheduled. An enqueue never writes or locks an existing job, but for "replace",
        drop_oldest and to take a key whose time is over. A job that appears twice in one call is stored once.

        Then its unique key: held by another job of the queue, nothing is stored. It is a `duplicate` (on_clash
        "return") or `replaced` ("replace"): the holder's payload, due time, `expires` and `deadline` are the draft's
        now (none, where it has none), if it is scheduled or queued and was not started in this life. Otherwise
        ("raise", a holder that was started, or one of another task, of which the draft is no duplicate) it is `taken`.
        A key whose time is over (now >= holds_until) is nobody's, and lost to its holder once another takes it.

        Then a place in the queue, where it has a bound: none is left when as many of its jobs as `max_size` are
        admitted and unfinished (jobs that were there before the bound was set count). No place: block and reject ->
        `full`; drop_newest -> `dropped`; drop_oldest -> its oldest job, by (enqueued_at, id), that is scheduled or
        queued and was not started in this life, is cancelled with the reason "dropped" and gives its place up (one job
        for one, also where a lowered bound left more than it allows); without any: `full`. What is dropped is counted
        on the queue. A bound is never exceeded, however many enqueue at once.

        With `connection`, a connection of the caller's to this very store, all jobs are part of the caller's own
        transaction: all or nothing (one is refused: none is stored, and no receipt says `created`), visible and
        claimable with its commit; nothing is committed here, and with a synchronous connection the coroutine never
        suspends. `declared`, a producer's terms of queues, are part of it too, as `configure` on a connection of ours
        would wait for this very transaction. ConfigError for a connection of another kind or place, or one that cannot
        be written on now. What a server says of the transaction itself (it cannot be serialized, its time is over, its
        connection is lost) is raised as the connection's own library raises it: the caller repeats his transaction.

        Nobody waits long for a stranger's transaction: what hangs on one that is open is `busy`, the others go on;
        where only one can write at a time, the whole call waits, then is StoreAway. In the caller's own transaction a
        draft waits for it, as for any unique index. Where the places of a bounded queue
        cannot be counted, or the bound of `declared` not be set, in the caller's transaction without holding up others,
        the answer is `unreserved`: declare the queue and reserve a place on a connection of ours, and ask again.
        """
        ...

    async def reserve(self, jobs: Sequence[Draft]) -> Sequence[Receipt]:
        """Takes places for drafts that a caller's transaction is about to store, for RESERVED at most; `enqueue` with
        that connection uses them up. Per draft as an enqueue would answer it about its place: accepted, full, dropped,
        busy; none says `created`. A draft that needs no place is accepted, and on a store that never answers
        `unreserved` all are. Where one is full, none of the call are kept, though the others say `accepted`. A place
        that is not used comes free again, also when the caller rolls back. Again: the same place, for longer.
        """
        ...

    async def claim(
        self, worker: UUID, ticket: int, queues: Sequence[str] | None, limit: int, quotas: Sequence[Quota] = ()
    ) -> Claims:
        """Takes up to `limit` queued jobs of `queues` (None: of every queue) for a worker.

        Never more than `limit`. In each queue by (priority descending, due, id); every queue that has jobs gets its
        turn over a number of claims. With `quotas`: first up to `most` jobs of each queue named there, in their order;
        then, while there is room, as without. Nothing of a queue that is paused (now < until, or no until), nor a job
        whose `expires` (where it was not started in this life) or `deadline` is over. attempt+1, fence+1, running,
        started_at = now, worker = this one. A unique key until "started" is free from now on; a retry, a release or a
        rescue does not take it again.

        Takes nothing unless the worker is registered, not retired (else refused: "gone"), and its lease is live
        (now < lease_until; else "expired"), checked in that order in the same atomic step. Tickets make a lost reply
        harmless: a claim that finds jobs uses its ticket up, which must be the last used one + 1 (else "ticket"); the
        last used ticket again returns the jobs of that claim that are still held under it and takes no others ("used"
        if there are none: go on to the next number). An empty answer without refusal leaves its ticket unused.
        """
        ...

    async def finish(self, outcomes: Sequence[Outcome], connection: object = None) -> Sequence[Settled]:
        """Writes outcomes, each under its claim's word (id, fence, worker); answers in the same order.

        accepted: the job was running under just this word; now it is as the outcome says. The cancel flag set and
        the outcome not a success: `if_cancelled` is written instead, with the reason given with the cancel if any.
        replayed: this very claim has settled already (settled_fence, settled_by); `state` says how.
        stale: someone else has or had the job since; nothing is written. gone: no such job. busy: locked by another
        transaction, try again. It never looks at the lease. A word twice in one call: the second is replayed.
        With the final state a job's place is free, and its unique key too; one with a `hold` is held so much longer
        by the job that holds it now, which is not prunable before (this holds for every way to a final state).

        A success clears no history, but what was saved, since no attempt follows; every other end appends an Attempt
        (the number that the run had, the settling word, and what was written) to the history, at most ERRORS_FIRST +
        ERRORS_LAST of which are kept. Final states
        get finished_at and, where `keep` is set, are prunable after max(keep, TOMBSTONE). The claim's mailbox lines go.
        A queued outcome without delay keeps its due time. The cancel flag, the loss and the worker are cleared when the
        job is not running any more; started_at stays.

        With `connection`, as for enqueue, one outcome, a success (ValueError for another, or for several), is part of
        the caller's own transaction. The answers are those above: replayed also to a second one in the same
        transaction, and busy only after a wait of a second or so. What else follows from the success (its place, what
        was saved) may be left to the next finish under the same word. That one tells how the transaction ended:
        replayed if it was committed, accepted if it was rolled back; until then it is busy or, where only one can write
        at a time, waits as every write does. ConfigError as for enqueue.
        """
        ...

    async def register(self, worker: UUID, supervisor: UUID | None, facts: Mapping[str, object]) -> Registered:
        """Opens a worker's life: its row, lease live from now, `steady_since` = now, last used ticket 0. Again: a beat;
        a retired worker stays retired.
        """
        ...

    async def beat(self, workers: Sequence[UUID]) -> Beat:
        """Renews leases, in one write however many jobs are held. Retired or unknown workers are answered `gone`.

        beat_at = now, lease_until = now + lease; a beat more than half a lease after the one before (or one that
        finds beat_at in the future) sets steady_since = now. A lease that ran out revives.
        """
        ...

    async def mail(self, workers: Sequence[UUID]) -> Sequence[Line]:
        """All lines for these workers: "cancel" while its claim is held under its word, "lost" once a sweeper took it.

        A read. Lines stay until the claim settles (cancel), or the worker is retired or the job pruned (lost): a lost
        reply is harmless.
        """
        ...

    async def retire(self, worker: UUID, loss: Loss | None = None, jobs: Mapping[tuple[UUID, int], Loss] = {}) -> None:
        """Ends the worker's life: its lease is over now and for good, its jobs can be reclaimed at once by anyone.

        `jobs`: losses by (id, fence), each written in the same atomic step if just that claim is this worker's still
        and has no loss yet; a later claim of the job, by the same worker too, is left alone. `loss` is what reclaim
        writes on all other jobs that the worker still holds. The step is atomic for each queue: a cluster of servers
        retires slot by slot. `Loss.stack` is stored as it is, bounded by whoever makes it (`job.cut`).
        Retiring twice keeps the first word, for the jobs too. An unknown worker is no error.
        A worker's row goes when nothing is held under it and an hour has passed (prune).
        """
        ...

    async def wait(self, queues: Sequence[str] | None, timeout: float) -> bool:
        """Waits up to `timeout` seconds for a hint that a claim may find something; True at a hint, and at once where
        jobs are queued already, in a queue that is not paused. Never needed for correctness.
        """
        ...

    async def promote(self, limit: int) -> Promoted:
        """First ends up to `limit` scheduled or queued jobs whose time is over (deadline_at <= now: dead, reason
        "deadline", kept until someone decides; else not started in this life and expires_at <= now: cancelled, reason
        "expired", prunable like any cancelled one); their history stays. Then moves up to `limit` scheduled jobs that
        are due to queued, the earliest due first.
        """
        ...

    async def reclaim(self, sweeper: UUID, limit: int) -> Sequence[Claim]:
        """Takes over up to `limit` running jobs whose worker is gone; the claims returned are the sweeper's own.

        First what the sweeper already holds by an earlier reclaim (a repeat returns the same). Then jobs of retired
        workers, at any sweeper's call. Then jobs of workers whose lease ran out or that have no row, only for a steady
        sweeper: its own beat_at is younger than half a lease, not in the future, and its steady_since older than a
        whole lease.
        fence+1 (attempt and started_at stay), worker = sweeper, under no ticket, `loss` written once: one that is there
        stays; else the retired worker's, else LEASE_RAN_OUT. The robbed claim gets a "lost" line. A sweeper that is not
        registered, is retired or whose lease is over gets nothing. A lease that lies further in the future than its
        own length is cut to that length by a steady sweeper (the clock was stepped back). A store that knows for
        certain that a worker's process has ended may retire it first, whoever sweeps.
        """
        ...

    async def prune(self, limit: int) -> int:
        """Deletes up to `limit` finished jobs whose time is over, with all that belongs to them, and workers' rows
        that are over (retired, or a day without a beat) and hold nothing. Returns the number of jobs; what is left of
        a deleted one is counted like a job.
        """
        ...

    async def find(self, where: Where, after: Cursor | None = None, limit: int = 50) -> Sequence[Record]:
        """Up to `limit` records, newest first by (enqueued_at, id), each with its kept history, oldest attempt first;
        `after`: those behind the cursor. Texts in `where` match literally; an empty sequence matches nothing.
        """
        ...

    async def cancel(self, ids: Sequence[UUID], reason: str = "") -> Sequence[Cancelling]:
        """Per id, in one atomic step each: not running -> cancelled now, prunable like an outcome's; running -> flag
        and reason set once and a "cancel" line for its worker, `requested` (so it says again); final -> `final`; an
        open transaction of somebody else holds it, which may be writing its end -> `finishing`, nothing is changed.
        """
        ...

    async def retry(self, ids: Sequence[UUID]) -> Sequence[Retried]:
        """Per id: a dead or cancelled job starts a new life: queued now, life+1, attempt, releases, losses and crashes
        0, not alone unless its draft said so, no result, no reason, never started; id, fence, history, what was settled
        and what was saved go on. Else unchanged, and says why.

        Its `expires` and `deadline` were the former life's: the new one has none.
        It takes its unique key again, whatever `until` is, and a place in its queue; `taken` where another job holds
        the key, else `full` where there is no place, whatever when_full is: a retry drops nothing. busy: an open
        transaction of somebody else holds the job, or decides on its key or its place; the others go on.
        """
        ...

    async def delete(self, ids: Sequence[UUID]) -> Sequence[Deleting]:
        """Per id: the job is gone for every reader, with all that belongs to it; its unique key and place are free.
        Refused while running. For TOMBSTONE after its end (now, for an unfinished one) what recognises a repeated
        enqueue (accepted, or conflict) or finish (replayed; any other word is gone) stays, then it is prunable.
        busy: an open transaction of somebody else holds the job, nothing is changed.
        """
        ...

    async def locker(self, id: UUID) -> str:
        """For people: the session whose open transaction holds the job, or its queue; "" where none is to be seen."""
        ...

    async def configure(self, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
        """Declares queues. A producer's word counts where nothing is declared yet, a (starting) worker's replaces what
        code declared before, an operator's is in effect until he takes it back (None), whatever code says meanwhile:
        that is kept beneath. None by others: nothing. A queue that nobody declares any more is forgotten, with its
        count of dropped jobs. A lower bound drops and refuses nothing that is admitted already.
        """
        ...

    async def pause(self, queue: str, until: Until | None = None, reason: str = "") -> None:
        """Nothing more of the queue is claimed, until the time given, or until it is resumed; what runs goes on. Again:
        the new `until` and `reason` hold, `since` stays. A queue may be paused that nobody declared and that has no
        jobs.
        """
        ...

    async def resume(self, queue: str) -> bool:
        """Ends a pause now; False if the queue was not paused. Whoever waits for its jobs is given a hint."""
        ...

    async def queues(self) -> Sequence[QueueSetup]:
        """Every queue that is declared or paused, by name. A pause whose time is over is none, here and in `stats`."""
        ...

    async def workers(self) -> Roster:
        """Every worker whose row is kept, by id. A read."""
        ...

    async def stats(self) -> Stats:
        """The queues as they are now, counted in one moment."""
        ...

    # --- schedules

    async def schedules(self, names: Sequence[str] | None = None) -> Schedules:
        """The entries of these names, or all of them. `next_in` is None."""
        ...

    async def due(self, limit: int) -> Schedules:
        """Up to `limit` entries whose next tick is due (next_at <= now) and that are not paused, the longest overdue
        first; without their `ticks`. `next_in`: when the next one comes (0: there were more).
        """
        ...

    async def schedule(self, entries: Sequence[Entry]) -> Sequence[bool]:
        """Per entry, in one atomic step each: stores it with revision+1, if the one that is stored has just its
        revision (0: there is none of this name), else False: so what was read before a tick undoes no tick. `ticks` and
        the counts that are stored stay, whatever the entry says of them. An entry may move to another queue. Again
        after it was stored: False; who asks reads it.
        """
        ...

    async def unschedule(self, names: Mapping[str, int]) -> Sequence[bool]:
        """Per name with its revision: the entry is gone; False if there is none of this revision."""
        ...

    async def tick(self, ticks: Sequence[Tick]) -> Sequence[Ticked | None]:
        """Per tick, in one atomic step each: if the entry has just this revision, `due` as its next tick, and is not
        paused, then its revision grows by one, `next_at` is its next one, `draft` (if there is one) is stored as
        `enqueue` would, and both that and what was missed are kept among its ticks and counted. None otherwise:
        somebody else has done it, or it was changed; nothing is written. So there is one job for each tick, however
        many ask.

        A receipt that is accepted (again, too) is "made"; any other is "skipped" with the answer as its reason; the
        tick never waits for a place. None also for a draft that is `busy`, and for a draft of another queue than the
        entry's. Without a draft the answer is what was missed.
        """
        ...

    # --- the history of each minute

    async def record(self, reporter: UUID, number: int, tallies: Sequence[Tally], levels: Sequence[Level] = ()) -> int:
        """Adds to the history of this minute, and of these ten minutes, by the store's clock; returns the highest
        number that the reporter, a registered worker, has used. A number that is not higher than that is a repeat:
        nothing is added. An unknown or retired reporter: nothing, and 0. Of levels the highest depth and longest
        age are kept. `prune` drops what is older than MINUTES_KEPT and TENS_KEPT.
        """
        ...

    async def history(self, since: Instant, before: Instant, *, tens: bool = False) -> Sequence[Minutes]:
        """The history from `since` up to `before`, oldest first: minutes, or steps of ten. Empty ones are left out."""
        ...

    # --- a handler's side

    async def note(self, notes: Sequence[Note]) -> Sequence[bool]:
        """Keeps what running handlers say, in tables of their own: no job's row is written. True per note if its word
        holds: the job runs under it. Progress and lines are also taken of the claim that settled the job last, if it
        was not claimed since (answered False); `saved` is not. Progress and text show until the fence moves on. The
        newest LOG_MOST lines of a job are kept, in the order in which they came, and go with the job; the repeat of a
        note keeps its lines twice. What is saved is in every later Claim of the job, also in its next life.
        """
        ...

    async def log(self, id: UUID) -> Sequence[LogLine]:
        """The kept lines of a job's own log, the oldest first; none for an unknown job."""
        ...

    # --- who waits for a result

    async def watch(self, ids: Sequence[UUID], timeout: float) -> bool:
        """Waits up to `timeout` seconds for a hint that one of these jobs has ended or is gone; True at a hint, and at
        once where one of them has. Never needed for correctness. Finishing costs nobody more where nobody watches.
        """
        ...
