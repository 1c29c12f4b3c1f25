"""The laws of find."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.job import Failed, Failure, Record, Released, State, Succeeded
from holdfast.store import Store, Where
from tests.store.acts import (
    BOOM,
    FINAL_BOOM,
    LOSS,
    draft,
    ended,
    finish,
    hand,
    listing,
    now,
    record,
    running,
    stored,
)


async def _found(store: Store, **where: Any) -> set[UUID]:
    return {r.id for r in await listing(store, Where(**where))}


async def test_an_empty_store_has_nothing_to_find(store: Store) -> None:
    assert list(await store.find(Where())) == []


async def test_newest_first_by_time_of_enqueue_then_id(store: Store) -> None:
    ids: list[tuple[int, UUID]] = []
    for size in (1, 3, 2):
        drafts = [draft(id=uuid4()) for _ in range(size)]
        await stored(store, *drafts)
        ids += [(store.shift, d.id) for d in drafts]
        store.shift += 1
    assert [r.id for r in await store.find(Where())] == [job_id for _, job_id in sorted(ids, reverse=True)]


async def test_never_more_than_the_limit_which_is_fifty(store: Store) -> None:
    await stored(store, *(draft() for _ in range(60)))
    assert len(await store.find(Where())) == 50
    assert len(await store.find(Where(), None, 7)) == 7
    assert len(await store.find(Where(), None, 1000)) == 60


@pytest.mark.parametrize("size", [1, 4, 7])
async def test_pages_follow_the_cursor_without_gap_or_repeat(store: Store, size: int) -> None:
    for _ in range(4):
        await stored(store, *(draft(id=uuid4()) for _ in range(5)))
        store.shift += 1
    pages: list[Record] = []
    cursor = None
    while page := await store.find(Where(), cursor, size):
        assert len(page) <= size
        pages += page
        cursor = (page[-1].enqueued_at, page[-1].id)
    assert pages == await listing(store)
    assert len(pages) == 20


async def test_a_cursor_and_a_filter_hold_together(store: Store) -> None:
    ids = await stored(store, *(draft(queue="ab"[n % 2]) for n in range(10)))
    middle = await record(store, ids[5])
    page = await store.find(Where(queue="a"), (middle.enqueued_at, middle.id), 3)
    assert [r.id for r in page] == [ids[4], ids[2], ids[0]]


async def test_a_cursor_need_not_be_a_job(store: Store) -> None:
    [job_id] = await stored(store, draft())
    start = await now(store)
    assert [r.id for r in await store.find(Where(), (start + 1, UUID(int=0)))] == [job_id]
    assert list(await store.find(Where(), (start, UUID(int=0)))) == []
    assert [r.id for r in await store.find(Where(), (start, UUID(int=2**128 - 1)))] == [job_id]


async def test_by_ids(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(5)))
    assert await _found(store, ids=[ids[1], ids[3], uuid4(), ids[1]]) == {ids[1], ids[3]}
    assert await _found(store, ids=[]) == set()


async def test_by_hundreds_of_ids(store: Store) -> None:
    ids = await stored(store, *(draft() for _ in range(1200)))
    await stored(store, draft())
    assert await _found(store, ids=ids) == set(ids)


async def test_by_how_the_id_begins_and_ends(store: Store) -> None:
    one, two = UUID("018fa3c2-0000-7000-8000-00000000abcd"), UUID("018fa3d2-0000-7000-8000-00000000abce")
    await stored(store, draft(id=one), draft(id=two))
    assert await _found(store, starts="018fa3") == {one, two}
    assert await _found(store, starts="018fa3c2-00") == {one}
    assert await _found(store, starts=str(two)) == {two}
    assert await _found(store, ends="abcd") == {one}
    assert await _found(store, ends="0000abce") == {two}
    assert await _found(store, starts="018fa3c", ends="abce") == set()
    assert await _found(store, starts="", ends="") == {one, two}


@pytest.mark.parametrize("text", ["%", "_", "0_8fa3", "*", "0?8", "0[1]8", "'", "018FA3C2", "a" * 100])
async def test_id_parts_match_literally(store: Store, text: str) -> None:
    await stored(store, draft(id=UUID("018fa3c2-0000-7000-8000-00000000abcd")))
    assert await _found(store, starts=text) == set()
    assert await _found(store, ends=text) == set()


async def test_by_state(store: Store) -> None:
    worker = await hand(store)
    busy = (await running(store, worker)).id
    done = await ended(store, worker, Succeeded(b"1"))
    dead = await ended(store, worker, FINAL_BOOM)
    again = await ended(store, worker, BOOM)
    queued, late, cancelled = await stored(store, draft(), draft(delay=5), draft())
    await store.cancel([cancelled])
    expected = {
        State.RUNNING: {busy},
        State.SUCCEEDED: {done},
        State.DEAD: {dead},
        State.SCHEDULED: {late, again},
        State.QUEUED: {queued},
        State.CANCELLED: {cancelled},
        State.WAITING: set(),
    }
    for state, ids in expected.items():
        assert await _found(store, states=[state]) == ids, state
    assert await _found(store, states=[State.DEAD, State.QUEUED]) == {dead, queued}
    assert await _found(store, states=[]) == set()
    assert await _found(store, states=list(State)) == set().union(*expected.values())


@pytest.mark.parametrize(
    ("field", "value", "others"),
    [
        ("queue", "mail", ["mai", "mail.x", "Mail", "m%"]),
        ("task", "shop.send", ["shop", "shop.send_all", "shop_send"]),
    ],
)
async def test_by_queue_and_task_exactly(store: Store, field: str, value: str, others: list[str]) -> None:
    [job_id] = await stored(store, draft(**{field: value}))
    await stored(store, *(draft(**{field: other}) for other in others if "%" not in other))
    assert await _found(store, **{field: value}) == {job_id}
    assert await _found(store, **{field: "nobody"}) == set()


async def test_by_tag(store: Store) -> None:
    both, one, none = await stored(store, draft(tags=("a", "order 7")), draft(tags=("order 7",)), draft())
    similar = await stored(store, draft(tags=("order 77", "Order 7", '"order 7"', "a,b", "")))
    assert await _found(store, tag="order 7") == {both, one}
    assert await _found(store, tag="a") == {both}
    assert await _found(store, tag="order") == set()
    for tag in ("", "a,b", '"order 7"'):
        assert await _found(store, tag=tag) == set(similar)
    assert none not in await _found(store, tag="")


@pytest.mark.parametrize("tag", ["%", "_", "naïve 😀", "'; drop", '","', "\\", "null"])
async def test_tags_match_literally(store: Store, tag: str) -> None:
    [job_id] = await stored(store, draft(tags=("x", tag, "y")))
    await stored(store, draft(tags=("x", "y")), draft())
    assert await _found(store, tag=tag) == {job_id}


async def test_by_the_type_of_the_newest_kept_error(store: Store) -> None:
    worker = await hand(store)
    changed = await running(store, worker)
    await finish(store, changed, Failed(Failure("ValueError", "", ""), after=0))
    await finish(store, await worker.take(), FINAL_BOOM)
    value = await ended(store, worker, BOOM)
    value_then_released = await running(store, worker)
    await finish(store, value_then_released, Failed(Failure("ValueError", "", ""), after=0))
    await finish(store, await worker.take(), Released())
    await ended(store, worker, Succeeded(b"1"))
    assert await _found(store, error="KeyError") == {changed.id}
    assert await _found(store, error="ValueError") == {value, value_then_released.id}
    assert await _found(store, error="Value") == set()
    assert await _found(store, error="%Error") == set()


async def test_a_success_after_errors_still_tells_of_them(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    await finish(store, job, Failed(Failure("ValueError", "", ""), after=0))
    await finish(store, await worker.take(), Succeeded(b"1"))
    assert await _found(store, error="ValueError") == {job.id}


async def test_by_the_worker_that_runs_it_now(store: Store) -> None:
    one, two = await hand(store), await hand(store)
    job = await running(store, one)
    await running(store, two)
    await ended(store, one, Released())
    assert await _found(store, worker=one.id) == {job.id}
    await one.retire(LOSS)
    await two.reclaim()
    assert await _found(store, worker=one.id) == set()
    assert job.id in await _found(store, worker=two.id)


async def test_by_time_of_enqueue_from_since_until_before(store: Store) -> None:
    start = await now(store)
    ids = []
    for _ in range(4):
        ids += await stored(store, draft())
        store.shift += 10
    assert await _found(store, since=start + 10) == set(ids[1:])
    assert await _found(store, since=start + 11) == set(ids[2:])
    assert await _found(store, before=start + 10) == set(ids[:1])
    assert await _found(store, before=start + 11) == set(ids[:2])
    assert await _found(store, since=start + 10, before=start + 30) == set(ids[1:3])
    assert await _found(store, since=start + 20, before=start + 20) == set()


async def test_all_that_is_set_must_hold(store: Store) -> None:
    worker = await hand(store)
    match = {"queue": "a", "task": "shop.a", "tags": ("x",)}
    wanted = await ended(store, worker, FINAL_BOOM, **match)
    for change in ({"queue": "b"}, {"task": "shop.b"}, {"tags": ("y",)}):
        await ended(store, worker, FINAL_BOOM, **(match | change))
    await ended(store, worker, Succeeded(b"1"), **match)
    start = await now(store)
    where: dict[str, Any] = {
        "states": [State.DEAD],
        "queue": "a",
        "task": "shop.a",
        "tag": "x",
        "error": "KeyError",
        "since": start,
        "before": start + 1,
    }
    assert await _found(store, **where) == {wanted}
    assert await _found(store, **where, starts=str(wanted)[:8], ends=str(wanted)[-8:]) == {wanted}
    assert await _found(store, **where, ids=[uuid4()]) == set()


async def test_reading_changes_nothing(store: Store) -> None:
    worker = await hand(store)
    await running(store, worker)
    await ended(store, worker, BOOM)
    before = await listing(store)
    store.shift += 5
    assert await listing(store) == before


async def test_a_record_is_a_snapshot(store: Store) -> None:
    worker = await hand(store)
    job = await running(store, worker)
    seen = await record(store, job.id)
    await finish(store, job, BOOM)
    assert (seen.state, seen.history) == (State.RUNNING, ())


@pytest.mark.parametrize("make", [lambda: Where(ids=[uuid4()]), lambda: Where(starts="zz"), Where])
async def test_limit_nought_finds_nothing(store: Store, make: Callable[[], Where]) -> None:
    await stored(store, draft())
    assert list(await store.find(make(), None, 0)) == []
