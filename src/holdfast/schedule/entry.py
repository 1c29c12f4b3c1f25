"""What a schedule's stored entry says: what code declares of it, what an operator made of that, and its ticks' jobs.

An entry's text is JSON, `{"declared": D or null, "edited": D or null}`, where D is a Definition. What is in effect is
what was edited, else what is declared.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

from holdfast.clock import Instant, Span, moment
from holdfast.errors import PayloadError, StoreError
from holdfast.headers import SCHEDULE, SCHEDULED_FOR, headers_of, headers_text
from holdfast.job import Draft, Terms, UniqueKey, Until
from holdfast.schedule.kinds import DEFINITION, DOCUMENT, JOB, RULE, check
from holdfast.schedule.rule import Rule
from holdfast.store import SCHEDULE_LIMIT

_NOBODY = UUID(int=0)


class Definition(NamedTuple):
    """When a schedule ticks, and the job that it makes: a draft without an id of its own.

    `owner`: the module whose code declares it, "" for an operator's.
    """

    rule: Rule
    job: Draft
    owner: str = ""

    def made(self, schedule: str, id: UUID, at: Instant | None) -> Draft:
        """The job of the tick `at`; of no tick, if it is None.

        Its `expires` counts from when it is due, however late the tick is; its `deadline` not from before it exists.
        """
        jitter = 0 if at is None else self.jitter(schedule, at)
        own = headers_of(self.job.headers)
        told = {SCHEDULE: schedule} if at is None else {SCHEDULE: schedule, SCHEDULED_FOR: moment(at).isoformat()}
        return replace(
            self.job,
            id=id,
            headers=headers_text({**own, **told}),
            unique=self._key(schedule),
            at=None if at is None else at + jitter,
            expires=_from(self.job.expires, None if at is None else at + jitter),
            deadline=None if self.job.deadline is None else Until(self.job.deadline.delay + jitter),
        )

    def _key(self, schedule: str) -> UniqueKey | None:
        """A job with a key of its own keeps that; else one keeps the next from overlapping it."""
        if self.job.unique is not None or self.rule.overlap == "allow":
            return self.job.unique
        return UniqueKey(f"schedule:{schedule}")

    def jitter(self, schedule: str, at: Instant) -> Span:
        """How much later than its tick the job is due: the same for everybody."""
        return _number(schedule, at, "jitter") % (self.rule.jitter + 1)


def _from(end: Until | None, at: Instant | None) -> Until | None:
    return end if end is None or at is None else Until(at=at + end.delay)


class Text(NamedTuple):
    """An entry's text, read."""

    declared: Definition | None = None
    edited: Definition | None = None

    @property
    def effective(self) -> Definition | None:
        return self.edited or self.declared

    def written(self) -> str:
        """As it is stored. PayloadError above SCHEDULE_LIMIT."""
        document = {
            "declared": None if self.declared is None else _written(self.declared),
            "edited": None if self.edited is None else _written(self.edited),
        }
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        if (size := len(text.encode())) > SCHEDULE_LIMIT:
            raise PayloadError(
                f"a schedule's entry would be {size:,} bytes, at most {SCHEDULE_LIMIT:,}: bind a reference to its "
                "arguments, such as a path or a key"
            )
        return text


def read(text: str, name: str) -> Text:
    """An entry's text. StoreError for one that this version cannot read, or that has values which mean nothing."""
    try:
        document = json.loads(text)
        check(document, DOCUMENT, "it")
        return Text(_definition(document["declared"], "declared"), _definition(document["edited"], "edited"))
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"schedule {name}: its entry in the store cannot be read ({error}); it may be of a newer version of "
            "Holdfast: update this one, or delete the schedule"
        ) from error


def tick_id(schedule: str, at: Instant) -> UUID:
    """The id of the job of a tick, a UUIDv8: the same, whoever makes it."""
    number = _number(schedule, at, "id") >> 128
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 8 << 76 | 2 << 62)


def _number(schedule: str, at: Instant, what: str) -> int:
    return int.from_bytes(sha256(f"{schedule}\0{at}\0{what}".encode()).digest(), "big")


# --- as JSON


def _written(definition: Definition) -> dict[str, Any]:
    job = definition.job
    return {
        "rule": definition.rule._asdict(),
        "job": {
            "task": job.task,
            "queue": job.queue,
            "payload": job.payload.decode(),
            "terms": list(job.terms),
            "priority": job.priority,
            "tags": list(job.tags),
            "headers": job.headers,
            "alone": job.alone,
            "unique": None if job.unique is None else list(job.unique),
            "expires": _until(job.expires),
            "deadline": _until(job.deadline),
        },
        "owner": definition.owner,
    }


def _until(until: Until | None) -> list[int | None] | None:
    return None if until is None else list(until)


def _definition(said: Any, what: str) -> Definition | None:
    """ValueError where it means nothing."""
    if said is None:
        return None
    check(said, DEFINITION, what)
    check(said["rule"], RULE, f"{what}.rule")
    check(said["job"], JOB, f"{what}.job")
    rule, job = Rule(**said["rule"]), said["job"]
    if (rule.cron is None) == (rule.every is None):
        raise ValueError(f"{what}.rule has both of cron and every, or neither")
    if rule.every is not None and rule.tz != "UTC":
        raise ValueError(f"{what}.rule has an interval, and tz {rule.tz!r}")
    draft = Draft(
        _NOBODY,
        job["task"],
        job["queue"],
        job["payload"].encode(),
        Terms(*job["terms"]),
        job["priority"],
        tags=tuple(job["tags"]),
        alone=job["alone"],
        unique=None if job["unique"] is None else UniqueKey(*job["unique"]),
        headers=job["headers"],
        expires=None if job["expires"] is None else Until(*job["expires"]),
        deadline=None if job["deadline"] is None else Until(*job["deadline"]),
    )
    return Definition(rule, draft, said["owner"])
