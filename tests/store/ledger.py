"""What the witness of a random history knows beside the jobs: who holds which key, what is declared of queues and
which are paused, what handlers said, what schedules did. Each part is told what happened, and says what must be so.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from holdfast.clock import Instant
from holdfast.job import (
    FINAL,
    LOG_MOST,
    Claim,
    Draft,
    LogLine,
    Note,
    Pause,
    QueueTerms,
    Record,
    State,
    UniqueKey,
    Until,
)
from holdfast.store import TICKS_MOST, Authority, Entry, QueueSetup, QueueStats, Receipt, Stats, Tick, Ticked

Key = tuple[str, str]  # queue and key


class Keys:
    """Who holds which key, from the events of jobs."""

    def __init__(self) -> None:
        self._last: dict[Key, UUID] = {}  # who took it last, and was not told to give it back
        self._until: dict[UUID, Instant] = {}  # of jobs that ended with a hold

    def holder(self, queue: str, unique: UniqueKey | None, now: Instant) -> UUID | None:
        job = None if unique is None else self._last.get((queue, unique.text))
        return None if job is None or now >= self._until.get(job, now + 1) else job

    def begins(self, job: UUID, queue: str, unique: UniqueKey | None) -> None:
        self._until.pop(job, None)
        if unique is not None:
            self._last[queue, unique.text] = job

    def starts(self, row: Record) -> None:
        if row.unique is not None and row.unique.until == "started":
            self._give_back(row)

    def ends(self, row: Record, now: Instant) -> None:
        if row.unique is None or self._last.get((row.queue, row.unique.text)) != row.id:
            return
        if row.unique.hold:
            self._until[row.id] = now + row.unique.hold
        else:
            self._give_back(row)

    def goes(self, row: Record) -> None:
        self._give_back(row)
        self._until.pop(row.id, None)

    def held_until(self, job: UUID) -> Instant:
        """Before this time it is not pruned."""
        return self._until.get(job, 0)

    def check(self, records: Sequence[Record], now: Instant) -> None:
        """I10: at most one holder per key and queue, and each record says why it holds."""
        for record in records:
            holds = record.unique is not None and self.holder(record.queue, record.unique, now) == record.id
            until = self._until.get(record.id) if holds else None
            assert (record.holds, record.holds_until) == (holds, until)
        holders = [record for record in records if record.holds]
        taken = Counter((record.queue, record.unique.text) for record in holders if record.unique is not None)
        assert max(taken.values(), default=1) == 1, f"I10: two holders of one key: {taken}"
        for record in holders:
            assert record.state not in FINAL or (record.holds_until or 0) > now, f"I10: held for no reason: {record}"
            if record.unique is not None and record.unique.until == "started":
                assert record.started_at is None, f"I10: held although it was started: {record}"

    def _give_back(self, row: Record) -> None:
        if row.unique is not None and self._last.get((row.queue, row.unique.text)) == row.id:
            del self._last[row.queue, row.unique.text]


class Queues:
    """What is declared, by whom, how many jobs were dropped since; which are paused."""

    def __init__(self) -> None:
        self._declared: dict[str, QueueTerms] = {}  # by code
        self._edited: dict[str, QueueTerms] = {}  # by an operator
        self._dropped: Counter[str] = Counter()
        self._admitted: Counter[str] = Counter()  # as counted after the last step
        self._pauses: dict[str, Pause] = {}

    def terms(self, queue: str) -> QueueTerms:
        return self._edited.get(queue) or self._declared.get(queue) or QueueTerms()

    def configured(self, queues: Mapping[str, QueueTerms | None], by: Authority) -> None:
        for name, terms in queues.items():
            if by == "operator" and terms is None:
                self._edited.pop(name, None)
            elif by == "operator" and terms is not None:
                self._edited[name] = terms
            elif terms is not None and (by == "worker" or name not in self._declared):
                self._declared[name] = terms
            if name not in self._declared and name not in self._edited:
                del self._dropped[name]

    def paused(self, queue: str, until: Until | None, reason: str, now: Instant) -> None:
        ends_at = None if until is None else now + until.delay if until.at is None else until.at
        before = self.pause(queue, now)
        self._pauses[queue] = Pause(now if before is None else before.since, ends_at, reason)

    def resumed(self, queue: str, now: Instant) -> bool:
        """The answer that must be given."""
        before = self.pause(queue, now)
        self._pauses.pop(queue, None)
        return before is not None

    def outlived(self, now: Instant) -> list[str]:
        """Queues whose pause is over, and which nobody resumed."""
        return [queue for queue in self._pauses if self.pause(queue, now) is None]

    def pause(self, queue: str, now: Instant) -> Pause | None:
        pause = self._pauses.get(queue)
        return None if pause is None or (pause.until is not None and now >= pause.until) else pause

    def check_setups(self, setups: Sequence[QueueSetup], now: Instant) -> None:
        paused = {name for name in self._pauses if self.pause(name, now) is not None}
        names = sorted(self._declared.keys() | self._edited.keys() | paused)
        assert list(setups) == [
            QueueSetup(name, self.terms(name), name in self._edited, self.pause(name, now)) for name in names
        ]

    def drops(self, queue: str) -> None:
        self._dropped[queue] += 1

    def check(self, records: Sequence[Record]) -> None:
        """I7: no queue has more unfinished jobs than its bound, but where a lowered bound found them there."""
        admitted = Counter(record.queue for record in records if record.state not in FINAL)
        for queue, count in admitted.items():
            size = self.terms(queue).max_size
            assert size is None or count <= max(size, self._admitted[queue]), f"I7: {count} jobs, bound {size}"
        self._admitted = admitted

    def check_stats(self, stats: Stats, records: Sequence[Record], now: Instant) -> None:
        """I11, of queues: every number is a recount."""
        counted = [row for row in records if row.state not in FINAL or row.state is State.DEAD]
        names = self._declared.keys() | self._edited.keys() | {row.queue for row in counted}
        names |= {name for name in self._pauses if self.pause(name, now) is not None}
        assert stats == Stats(now, [self._stats(name, counted, now) for name in sorted(names)])

    def _stats(self, name: str, counted: Sequence[Record], now: Instant) -> QueueStats:
        rows = [row for row in counted if row.queue == name]
        return QueueStats(
            name,
            self.terms(name),
            name in self._edited,
            Counter(row.state for row in rows),
            None if self.terms(name).max_size is None else sum(row.state not in FINAL for row in rows),
            self._dropped[name],
            min((row.due_at for row in rows if row.state is State.QUEUED), default=None),
            self.pause(name, now),
        )


class Timetable:
    """The schedules, what changed them, and what became of their ticks."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def scheduled(self, entry: Entry) -> bool:
        """The answer that must be given."""
        stored = self.entries.get(entry.name)
        if entry.revision != (0 if stored is None else stored.revision):
            return False
        last = stored or Entry(entry.name, "", "", None)
        self.entries[entry.name] = entry._replace(
            revision=entry.revision + 1, ticks=last.ticks, made=last.made, skipped=last.skipped, missed=last.missed
        )
        return True

    def unscheduled(self, name: str, revision: int) -> bool:
        """The answer that must be given."""
        known = name in self.entries and self.entries[name].revision == revision
        if known:
            del self.entries[name]
        return known

    def ticked(self, tick: Tick, store: Callable[[Draft], Receipt], now: Instant) -> Ticked | None:
        """The answer that must be given; `store` says what becomes of a draft."""
        entry = self.entries.get(tick.name)
        if entry is None or (entry.revision, entry.next_at) != (tick.revision, tick.due) or self.stands(entry, now):
            return None
        if tick.draft is not None and tick.draft.queue != entry.queue:
            return None
        kept = [Ticked(tick.due, now, "missed", None, tick.reason, tick.missed)]
        if tick.draft is not None:
            receipt = store(tick.draft)
            made = receipt.answer == "accepted"
            what = ("made", receipt.id, "") if made else ("skipped", receipt.holder, receipt.answer)
            kept.append(Ticked(tick.at, now, *what))  # type: ignore[arg-type]
        answer = kept[-1]
        kept = kept if tick.missed else kept[1:]
        self.entries[tick.name] = entry._replace(
            next_at=tick.next_at,
            revision=entry.revision + 1,
            ticks=(*entry.ticks, *kept)[-TICKS_MOST:],
            made=entry.made + (answer.outcome == "made"),
            skipped=entry.skipped + (answer.outcome == "skipped"),
            missed=entry.missed + tick.missed,
        )
        return answer

    def stands(self, entry: Entry, now: Instant) -> bool:
        """Whether it is paused."""
        return entry.pause is not None and (entry.pause.until is None or now < entry.pause.until)

    def due(self, now: Instant) -> list[Entry]:
        """Those whose next tick must be told of, the longest overdue first; without their ticks."""
        waiting = [entry for entry in self.entries.values() if entry.next_at is not None and entry.next_at <= now]
        waiting.sort(key=lambda entry: (entry.next_at or 0, entry.name))
        return [entry._replace(ticks=()) for entry in waiting if not self.stands(entry, now)]


class Sayings:
    """What handlers said of themselves, under words that held."""

    def __init__(self) -> None:
        self._shown: dict[UUID, tuple[int, float | None, str | None]] = {}  # fence, progress, text
        self._lines: dict[UUID, list[LogLine]] = {}
        self._saved: dict[UUID, bytes] = {}

    def noted(self, note: Note, row: Record | None, now: Instant) -> bool:
        """The answer that the note must get."""
        if row is None or note.fence != row.fence:
            return False
        runs = row.worker == note.worker and row.state is State.RUNNING
        if not runs and (row.settled_fence, row.settled_by) != (note.fence, note.worker):
            return False
        fence, progress, text = self._shown.get(row.id, (0, None, None))
        if fence != note.fence:
            progress = text = None
        progress = progress if note.progress is None else note.progress
        self._shown[row.id] = (note.fence, progress, text if note.text is None else note.text)
        lines = [LogLine(now - age, note.fence, line) for age, line in note.lines]
        self._lines[row.id] = (self._lines.get(row.id, []) + lines)[-LOG_MOST:]
        if runs and note.saved is not None:
            self._saved[row.id] = note.saved
        return runs

    def goes(self, job: UUID) -> None:
        for kept in (self._shown, self._lines, self._saved):
            kept.pop(job, None)

    def check_claim(self, job: Claim) -> None:
        assert job.saved == self._saved.get(job.id), "what was saved is not what the next attempt finds"

    def check_log(self, job: UUID, lines: Sequence[LogLine]) -> None:
        assert list(lines) == self._lines.get(job, [])

    def check(self, record: Record) -> None:
        fence, progress, text = self._shown.get(record.id, (0, None, None))
        assert (record.progress, record.text) == ((progress, text) if fence == record.fence else (None, None))
