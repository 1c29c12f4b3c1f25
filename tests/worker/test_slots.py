"""Slots: never more than the concurrency, alone means alone, and how much is claimed ahead."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND, FakeClock
from holdfast.job import Claim
from holdfast.worker.runner import Run
from holdfast.worker.slots import PREFETCH_MOST, WAIT_MOST, Slots
from tests.worker.rig import claim, run_of


class Desk:
    """Slots, with what was started in them. Tasks named "unknown" are turned away."""

    def __init__(self, concurrency: int) -> None:
        self.clock = FakeClock()
        self.started: list[Run] = []
        self.slots = Slots(concurrency, self.start, self.clock)

    def start(self, of: Claim, since: float) -> Run | None:
        if of.task == "unknown":
            return None
        self.started.append(run := run_of(of))
        return run

    @property
    def running(self) -> list[Run]:
        return list(self.slots.running.values())

    def end(self, run: Run) -> None:
        """As the worker does."""
        self.slots.ended(run)
        self.slots.fill()

    def drain_at(self, per_second: int, seconds: float) -> None:
        """Jobs end at this rate, one after another, each filling its slot again."""
        for _ in range(int(per_second * seconds)):
            self.clock.advance(SECOND // per_second)
            self.slots.add([claim()])
            self.end(self.running[0])
            self.slots.room()


def claims(number: int, **changes: object) -> list[Claim]:
    return [claim(**changes) for _ in range(number)]


def test_what_there_is_room_for_starts_and_the_rest_waits_in_order() -> None:
    desk = Desk(3)
    arrived = claims(5)
    desk.slots.add(arrived)
    assert [run.claim for run in desk.started] == arrived[:3]
    assert [of for _, of in desk.slots.waiting] == arrived[3:]
    desk.end(desk.started[1])
    assert [run.claim for run in desk.started] == arrived[:4]


def test_an_unknown_task_takes_no_slot() -> None:
    desk = Desk(1)
    known = claim()
    desk.slots.add([*claims(5, task="unknown"), known, *claims(2, task="unknown")])
    assert [run.claim for run in desk.running] == [known]
    desk.end(desk.running[0])
    assert not desk.running
    assert not desk.slots.waiting


def test_a_job_that_must_run_alone_waits_for_all_others_and_they_wait_for_it() -> None:
    desk = Desk(3)
    before, alone, after = claims(2), claim(alone=True), claims(2)
    desk.slots.add([*before, alone, *after])
    assert [run.claim for run in desk.running] == before
    desk.end(desk.running[0])
    assert [run.claim for run in desk.running] == before[1:]
    desk.end(desk.running[0])
    assert [run.claim for run in desk.running] == [alone]
    assert desk.slots.room() == 0, "nothing more is claimed beside it"
    desk.end(desk.running[0])
    assert [run.claim for run in desk.running] == after


def test_two_that_must_run_alone_run_one_after_the_other() -> None:
    desk = Desk(5)
    desk.slots.add(claims(2, alone=True))
    assert len(desk.running) == 1
    desk.end(desk.running[0])
    assert len(desk.running) == 1
    assert desk.slots.concurrency == 5


@given(
    st.integers(1, 5),
    st.lists(st.lists(st.booleans(), max_size=5) | st.integers(0, 9)),
)
def test_whatever_comes_the_concurrency_is_never_exceeded_and_alone_is_alone(
    concurrency: int, acts: Sequence[list[bool] | int]
) -> None:
    desk = Desk(concurrency)
    arrived = 0
    for act in acts:  # a list arrives (True: alone), a number ends
        if isinstance(act, list):
            arrived += len(act)
            desk.slots.add([claim(alone=alone) for alone in act])
        elif desk.running:
            desk.end(desk.running[act % len(desk.running)])
        running = desk.running
        assert len(running) <= concurrency
        assert len(running) == 1 or not any(run.claim.alone for run in running)
        assert not desk.slots.waiting or running, "a claim waits though nothing runs"
        assert len(desk.started) + len(desk.slots.waiting) == arrived
    while desk.running:
        desk.end(desk.running[0])
    assert len(desk.started) == arrived, "everything gets its turn"


def test_the_room_is_what_is_free() -> None:
    desk = Desk(4)
    assert desk.slots.room() == 4
    desk.slots.add(claims(3))
    assert desk.slots.room() == 1
    desk.slots.add(claims(1))
    assert desk.slots.room() == 0


def test_nothing_is_claimed_ahead_of_jobs_that_do_not_end() -> None:
    desk = Desk(2)
    desk.slots.add(claims(2))
    for _ in range(50):
        desk.clock.advance(100)
        assert desk.slots.room() == 0


def test_what_is_claimed_ahead_grows_with_the_rate_of_ends() -> None:
    rooms = []
    for rate in (20, 100, 500):
        desk = Desk(10)
        desk.slots.add(claims(10))
        desk.drain_at(rate, 1)
        rooms.append(desk.slots.room())
    assert 0 < rooms[0] < rooms[1] < rooms[2]
    assert rooms[2] == pytest.approx(50, abs=5), "what will start within a tenth of a second"


def test_what_is_claimed_ahead_is_bounded() -> None:
    desk = Desk(1)
    desk.slots.add(claims(1))
    for _ in range(3):
        desk.clock.advance(20)
        for _ in range(5_000):
            desk.slots.ended(desk.running[0])
            desk.slots.add(claims(1))
        assert desk.slots.room() <= PREFETCH_MOST


def test_when_nothing_ends_any_more_nothing_is_claimed_ahead_any_more() -> None:
    desk = Desk(10)
    desk.slots.add(claims(10))
    desk.drain_at(500, 1)
    assert desk.slots.room() > 0
    desk.clock.advance(100)
    desk.slots.room()
    desk.clock.advance(100)
    assert desk.slots.room() == 0


def test_more_is_claimed_only_when_half_of_what_waits_has_started() -> None:
    desk = Desk(10)
    desk.slots.add(claims(10))
    desk.drain_at(500, 1)
    ahead = desk.slots.room()
    desk.slots.add(claims(ahead))
    assert desk.slots.room() == 0
    for _ in range(ahead // 4):
        desk.end(desk.running[0])
    assert desk.slots.room() == 0, "small claims cost as much as large ones"
    for _ in range(ahead // 4 + 1):
        desk.end(desk.running[0])
    assert desk.slots.room() >= ahead // 2


def test_what_waits_too_long_is_taken_out_for_others() -> None:
    desk = Desk(1)
    arrived = claims(3)
    desk.slots.add(arrived)
    assert desk.slots.stale() == []
    desk.clock.advance(round(WAIT_MOST * SECOND))
    assert desk.slots.stale() == []
    desk.clock.advance(1)
    assert desk.slots.stale() == arrived[1:]
    assert not desk.slots.waiting
    assert [run.claim for run in desk.running] == arrived[:1], "what runs goes on"
    assert desk.slots.stale() == []


def test_taking_takes_what_waits_and_nothing_that_runs() -> None:
    desk = Desk(1)
    arrived = claims(3)
    desk.slots.add(arrived)
    assert desk.slots.take() == arrived[1:]
    desk.end(desk.running[0])
    assert not desk.running


def test_the_same_job_under_two_fences_takes_two_slots() -> None:
    desk = Desk(2)
    first = claim()
    desk.slots.add([first, first._replace(fence=2)])
    assert len(desk.running) == 2
    desk.end(desk.running[0])
    assert [run.claim.fence for run in desk.running] == [2]


def test_an_end_that_is_told_twice_frees_one_slot() -> None:
    desk = Desk(1)
    desk.slots.add(claims(1))
    run = desk.running[0]
    desk.end(run)
    desk.slots.add(claims(2))
    desk.end(run)
    assert len(desk.running) == 1


# --- what the fetcher brings


def test_a_job_that_must_run_alone_is_given_back_where_others_are_held_and_asks_for_quiet() -> None:
    desk = Desk(3)
    ordinary, alone = claims(2), claim(alone=True)
    assert desk.slots.admit([ordinary[0], alone, ordinary[1]]) == ([alone], False)
    assert [run.claim for run in desk.running] == ordinary
    assert desk.slots.room() == 0, "nothing more is claimed until what runs here has ended"
    desk.end(desk.running[0])
    assert desk.slots.room() == 0
    desk.end(desk.running[0])
    assert desk.slots.room() == 1, "and then that one job"
    assert desk.slots.admit([alone]) == ([], False)
    assert [run.claim for run in desk.running] == [alone]
    assert desk.slots.room() == 0
    desk.end(desk.running[0])
    assert desk.slots.room() == 3


def test_an_idle_worker_too_takes_a_job_that_must_run_alone_only_in_quiet() -> None:
    desk = Desk(3)
    alone = claim(alone=True)
    assert desk.slots.admit([alone]) == ([alone], False), "what was claimed before it may not be on record yet"
    assert desk.slots.room() == 1
    assert desk.slots.admit([alone]) == ([], False)


def test_if_another_worker_took_it_the_quiet_is_over() -> None:
    desk = Desk(3)
    desk.slots.admit([claim(alone=True)])
    assert desk.slots.room() == 1
    desk.slots.found_nothing()
    assert desk.slots.room() == 3


def test_a_worker_that_does_not_become_idle_works_on_as_usual_and_is_quiet_longer_next_time() -> None:
    desk = Desk(3)
    alone = claim(alone=True)
    lengths: list[float] = []
    desk.slots.add(claims(1))
    for _ in range(3):
        assert desk.slots.admit([alone]) == ([alone], False)
        assert desk.slots.room() == 0
        quiet = 0.0
        while desk.slots.room() == 0:
            desk.clock.advance(SECOND)
            quiet += 1
            assert quiet < 100, "it is quiet for ever"
        assert desk.slots.room() == 2, "the others do not wait for one long job"
        assert desk.slots.admit([alone]) == ([alone], True), "it comes back later, not at once"
        assert desk.slots.room() == 2
        lengths.append(quiet)
        desk.clock.advance(round(quiet) * SECOND)
    assert lengths == [5.0, 10.0, 20.0]


def test_where_a_process_can_be_spawned_for_it_a_job_that_must_run_alone_is_like_any_other() -> None:
    desk = Desk(3)
    desk.slots = Slots(3, desk.start, desk.clock, quietly=False)
    arrived = [*claims(1), *claims(2, alone=True), *claims(1)]
    assert desk.slots.admit(arrived) == ([], False)
    assert [run.claim for run in desk.running] == arrived[:3]
    assert desk.slots.room() == 0
    desk.end(desk.running[1])
    assert [run.claim for run in desk.running] == [arrived[0], *arrived[2:]]
    assert not desk.slots.quiet
