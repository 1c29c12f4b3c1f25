"""Why nobody has begun a job: one look at the store's workers and queues, in words."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.client.reasons import why_not_begun
from holdfast.clock import HOUR, SECOND, Instant
from holdfast.job import Pause, QueueTerms, Record, State, Terms
from holdfast.store import QueueSetup, Roster, WorkerRow

NOW = 1_795_356_000_000
LIVE: dict[str, Any] = {"queues": None, "tasks": ["shop.send"], "name": "web-1:7"}


def job(state: State = State.QUEUED, due_at: Instant = NOW) -> Record:
    return Record(
        id=uuid4(),
        task="shop.send",
        queue="mail",
        line="mail",
        state=state,
        payload=b"{}",
        terms=Terms(),
        priority=0,
        tags=(),
        life=1,
        attempt=0,
        fence=0,
        releases=0,
        losses=0,
        crashes=0,
        alone=False,
        enqueued_at=NOW - HOUR,
        due_at=due_at,
        started_at=None,
        finished_at=None,
        worker=None,
        cancel_requested_at=None,
        settled_fence=None,
        settled_by=None,
        settled_state=None,
        result=None,
        reason="",
    )


def worker(**facts: Any) -> WorkerRow:
    return WorkerRow(UUID(int=7), None, {**LIVE, **facts}, NOW, NOW, NOW + SECOND, None)


def paused(**pause: Any) -> QueueSetup:
    return QueueSetup("mail", QueueTerms(), edited=False, pause=Pause(NOW - HOUR, **pause))


@pytest.mark.parametrize(
    ("record", "workers", "queues", "words"),
    [
        (job(State.SCHEDULED, NOW + HOUR), [], [], "it is due in 1 h"),
        (job(), [], [], "no worker is live"),
        (job(State.SCHEDULED, NOW - 1), [], [], "no worker is live"),
        (job(), [worker()._replace(retired_at=NOW)], [], "no worker is live"),
        (job(), [worker()._replace(lease_until=NOW)], [], "no worker is live"),
        (job(), [worker()._replace(facts={"slots": 0})], [], "no worker is live"),
        (job(), [worker(queues=["b", "a\n"])], [], r"no live worker serves queue mail; those that live serve a\n, b"),
        (job(), [worker(tasks=[])], [], "no live worker that serves queue mail knows task shop.send"),
        (job(), [worker(queues=["mail"])], [], "live workers serve queue mail and know the task (web-1:7)"),
        (job(), [worker()], [paused()], "queue mail is paused since 2026-11-22 13:00:00 UTC, until it is resumed"),
        (
            job(),
            [worker()],
            [paused(until=NOW + HOUR, reason="a\u202e deploy")],
            "until 2026-11-22 15:00:00 UTC (a⟪RLO⟫ deploy)",
        ),
        (job(), [worker()], [paused()._replace(name="other")], "have not come to it yet"),
    ],
)
def test_the_first_reason_that_holds_is_named(
    record: Record, workers: list[WorkerRow], queues: list[QueueSetup], words: str
) -> None:
    assert words in why_not_begun(record, Roster(NOW, workers), queues)


def test_many_names_are_cut() -> None:
    workers = [worker(queues=[f"q{number:02}"]) for number in range(30)]
    assert "q00, q01, q02, q03, q04 and 25 more" in why_not_begun(job(), Roster(NOW, workers), [])
