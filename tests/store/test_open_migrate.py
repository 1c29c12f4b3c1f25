"""The laws of open, migrate, close and twin."""

import asyncio

from holdfast.store import Store
from tests.store.acts import PATIENCE, draft, elsewhere, exists, hand, now, state, stored


async def test_migrate_works_on_a_store_that_is_not_open(unopened: Store) -> None:
    await unopened.migrate()
    await unopened.open()
    await stored(unopened, draft())
    await unopened.close()


async def test_migrating_twice_is_harmless_and_the_second_runs_nothing(store: Store) -> None:
    [job_id] = await stored(store, draft())
    assert list(await store.migrate()) == []
    assert await exists(store, job_id)


async def test_a_dry_run_tells_what_would_run_and_runs_nothing(unopened: Store) -> None:
    told = list(await unopened.migrate(dry_run=True))
    assert list(await unopened.migrate(dry_run=True)) == told, "the first dry run changed something"
    assert list(await unopened.migrate()) == told
    assert list(await unopened.migrate(dry_run=True)) == []


async def test_opening_twice_is_harmless(store: Store) -> None:
    [job_id] = await stored(store, draft())
    await store.open()
    assert await exists(store, job_id)


async def test_a_migrated_store_opens_for_those_who_only_look(unopened: Store) -> None:
    await unopened.migrate()
    await unopened.open(create=False)
    assert not await exists(unopened, draft().id)
    await unopened.close()


async def test_closing_twice_is_harmless(unopened: Store) -> None:
    await unopened.migrate()
    await unopened.open()
    await unopened.close()
    await unopened.close()


async def test_close_waits_for_the_calls_in_flight(unopened: Store) -> None:
    await unopened.migrate()
    await unopened.open()
    drafts = [draft() for _ in range(20)]
    calls = [asyncio.ensure_future(unopened.enqueue([d])) for d in drafts]
    await asyncio.sleep(0)  # each call has begun
    async with asyncio.timeout(PATIENCE):
        await unopened.close()
        receipts = await asyncio.gather(*calls)
    assert [receipt.answer for [receipt] in receipts] == ["accepted"] * 20

    async def all_there(twin: Store) -> bool:
        return all([await exists(twin, d.id) for d in drafts])

    assert await elsewhere(all_there, unopened)


async def test_a_twin_sees_and_writes_the_same_jobs_from_another_loop(store: Store) -> None:
    [ours] = await stored(store, draft())

    async def visit(twin: Store) -> bool:
        await stored(twin, theirs)
        return await exists(twin, ours)

    theirs = draft()
    assert await elsewhere(visit, store)
    assert await exists(store, theirs.id)


async def test_a_twin_of_an_unopened_store_can_be_opened_by_itself(unopened: Store) -> None:
    await unopened.migrate()
    assert await elsewhere(lambda twin: stored(twin, draft()), unopened)


async def test_shift_moves_the_clock_and_is_shared_by_all_twins(store: Store) -> None:
    before = await now(store)
    twin = store.twin()
    store.shift += 60_000
    assert twin.shift == 60_000
    assert await elsewhere(now, store) == before + 60_000
    twin.shift = 5
    assert store.shift == 5
    assert await now(store) == before + 5


async def test_the_url_and_whether_others_share_the_store_are_told_without_opening_it(
    unopened: Store,
) -> None:
    assert "://" in unopened.url
    assert isinstance(unopened.shared, bool)


async def test_what_was_written_is_there_for_the_next_opening(unopened: Store) -> None:
    await unopened.migrate()
    await unopened.open()
    job = draft()
    await stored(unopened, job)
    worker = await hand(unopened)
    await worker.take()
    await unopened.close()
    assert await elsewhere(lambda twin: state(twin, job.id), unopened) == "running"
