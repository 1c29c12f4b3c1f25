"""The shared values: the steps of a job's life, what makes two drafts the same job, ids, and the cut of long texts."""

import json
import os
import subprocess
import sys
import threading
import time
from itertools import chain, pairwise
from typing import Any
from uuid import RFC_4122, UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import FakeClock
from holdfast.job import FINAL, TRANSITIONS, Draft, State, Terms, cut, held_as, new_id
from holdfast.stores.memory import MemoryStore
from tests.store.acts import draft, hand, record, running

# --- the life of a job


def test_nothing_leaves_a_final_state_but_an_operators_retry() -> None:
    assert {t.event for t in TRANSITIONS if t.source in FINAL} == {"retry"}
    assert {t.source for t in TRANSITIONS if t.event == "retry"} == {State.DEAD, State.CANCELLED}


def test_every_state_but_the_reserved_one_can_be_reached_from_an_enqueue() -> None:
    reached: set[State | None] = {None}
    while found := {t.target for t in TRANSITIONS if t.source in reached} - reached:
        reached |= found
    assert reached - {None} == set(State) - {State.WAITING}


def test_a_final_state_can_be_reached_from_every_unfinished_one() -> None:
    ending: set[State | None] = set(FINAL)
    while found := {t.source for t in TRANSITIONS if t.target in ending} - ending:
        ending |= found
    assert ending >= {State.SCHEDULED, State.QUEUED, State.RUNNING}


def test_only_a_claim_makes_a_job_run_and_only_from_queued() -> None:
    assert {(t.event, t.source) for t in TRANSITIONS if t.target is State.RUNNING} == {("claim", State.QUEUED)}


def test_every_unfinished_job_can_be_cancelled_and_a_success_comes_from_running_alone() -> None:
    cancelled = {t.source for t in TRANSITIONS if t.event == "cancel"}
    assert cancelled == {State.SCHEDULED, State.QUEUED, State.RUNNING}
    assert [(t.event, t.source) for t in TRANSITIONS if t.target is State.SUCCEEDED] == [("succeed", State.RUNNING)]


def test_states_are_their_own_words() -> None:
    assert [str(state) for state in State] == [state.value for state in State]
    assert json.dumps(State.DEAD) == '"dead"'


# --- drafts


@pytest.mark.parametrize(
    "other",
    [{"task": "shop.resize"}, {"queue": "other"}, {"payload": b"[43]"}],
    ids=lambda other: next(iter(other)),
)
def test_a_draft_with_another_task_queue_or_payload_is_another_job(other: dict[str, Any]) -> None:
    mine = draft()
    assert draft(id=mine.id, **other).content != mine.content


def test_how_and_when_a_job_shall_run_does_not_make_it_another() -> None:
    mine = draft()
    later = draft(
        id=mine.id, delay=5, priority=9, tags=("eu",), terms=Terms(max_attempts=9), alone=True, line="customer"
    )
    assert later.content == mine.content


def test_the_parts_of_the_content_do_not_flow_into_one_another() -> None:
    same = uuid4()
    splits = [("a", "bc", b"d"), ("ab", "c", b"d"), ("a", "b", b"cd")]
    assert len({Draft(same, task, queue, payload, Terms()).content for task, queue, payload in splits}) == 3


async def test_a_stored_running_job_reads_as_the_claim_its_worker_got() -> None:
    store = MemoryStore(FakeClock())
    worker = await hand(store)
    claim = await running(store, worker, priority=3, alone=True)
    assert held_as(await record(store, claim.id), worker.id) == claim


# --- ids


def test_an_id_is_a_uuid_of_version_7() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, RFC_4122)
    assert before <= made.int >> 80 <= after + 1


def test_ids_of_one_thread_are_in_order_and_never_the_same() -> None:
    ids = [new_id() for _ in range(20_000)]
    assert all(one < two for one, two in pairwise(ids))
    assert {(made.version, made.variant) for made in ids} == {(7, RFC_4122)}


def test_the_order_outlives_a_clock_that_is_stepped_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    frozen = time.time_ns() - 3_600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: frozen)
    ids = [first, *(new_id() for _ in range(10_000))]  # more than one millisecond can count
    assert all(one < two for one, two in pairwise(ids))


def test_the_random_part_is_random() -> None:
    parts = [new_id().int & (1 << 62) - 1 for _ in range(2_000)]
    assert len(set(parts)) == len(parts)
    assert all(any(part >> bit & 1 for part in parts) for bit in range(62))
    assert all(any(not part >> bit & 1 for part in parts) for bit in range(62))


def test_ids_are_unique_over_threads() -> None:
    made: list[list[UUID]] = [[] for _ in range(8)]
    start = threading.Barrier(len(made), timeout=30)

    def make(ids: list[UUID]) -> None:
        start.wait()
        ids.extend(new_id() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(ids,)) for ids in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread that makes ids hangs"
    assert len(set(chain.from_iterable(made))) == 16_000


FORK = """
import os, sys
from holdfast.job import new_id
new_id()
pids = []
for child in range(3):
    pid = os.fork()
    if not pid:
        os.write(1, "".join(f"{new_id()}\\n" for _ in range(200)).encode())
        os._exit(0)
    pids.append(pid)
for _ in range(200):
    os.write(1, f"{new_id()}\\n".encode())
sys.exit(max(os.waitpid(pid, 0)[1] for pid in pids))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_processes_make_different_ids() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    ids = done.stdout.split()
    assert len(ids) == 800
    assert len(set(ids)) == 800


# --- long texts


@given(st.text(max_size=300), st.integers(2, 60).map(lambda n: 2 * n))
def test_a_cut_text_keeps_both_ends_and_says_what_is_missing(text: str, limit: int) -> None:
    short = cut(text, limit)
    if len(text) <= limit + 50:  # a note of what is left out would be as long
        assert short == text
    else:
        assert short.startswith(text[: limit // 2])
        assert short.endswith(text[-limit // 2 :])
        assert f"… {len(text) - limit} characters left out …" in short
        assert len(short) < limit + 50


def test_a_cut_text_is_short_however_long_it_was() -> None:
    assert len(cut("x" * 10_000_000, 2_000)) < 2_050
