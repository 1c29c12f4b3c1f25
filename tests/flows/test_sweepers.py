"""Sweepers that are killed between the reclaim and the finish: whoever takes up their work charges nobody twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from uuid import UUID, uuid4

import pytest

from holdfast import Holdfast
from holdfast.app import parts_of
from holdfast.clock import Span
from holdfast.job import Loss, Lost, Record
from holdfast.policy import decide
from holdfast.store import LEASE, LEASE_RAN_OUT, Store, Where

CRASH = Loss("killed by signal 11 (SIGSEGV)", culprit=True)

# A steady sweeper, `shift` milliseconds later by the store's clock, that dies when it has taken the jobs over.
SWEEPER = """
import asyncio, os, signal, sys
from uuid import uuid4
from holdfast.clock import SystemClock
from holdfast.stores import open_store

async def main(url, shift):
    store, sweeper = open_store(url, SystemClock()), uuid4()
    await store.open()
    store.shift = shift
    lease = (await store.register(sweeper, None, {})).lease
    for _ in range(4):
        store.shift += lease // 3
        await store.beat([sweeper])
    claims = await store.reclaim(sweeper, 10)
    print(*[claim.id for claim in claims], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def killed_sweeper(url: str, shift: Span) -> set[UUID]:
    """The jobs that it had taken over when it was killed."""
    done = subprocess.run(
        [sys.executable, "-c", SWEEPER, url, str(shift)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return set(map(UUID, done.stdout.split()))


async def sweep(store: Store, shift: Span) -> None:
    """What the janitor of a steady worker does, `shift` milliseconds later by the store's clock."""
    sweeper = uuid4()
    store.shift = shift
    await store.register(sweeper, None, {})
    for _ in range(4):
        store.shift += LEASE // 3
        await store.beat([sweeper])
    claims = await store.reclaim(sweeper, 10)
    settled = await store.finish([decide(claim, Lost(claim.loss or LEASE_RAN_OUT)) for claim in claims])
    assert [one.answer for one in settled] == ["accepted"] * len(claims)


async def lost(store: Store, task: str, loss: Loss | None) -> None:
    """A worker claims all of the task's jobs and is lost: silent, or retired with a word about its death."""
    worker = uuid4()
    await store.register(worker, None, {})
    claims = await store.claim(worker, 1, [task], 10)
    assert len(claims.jobs) == 1
    if loss is not None:
        await store.retire(worker, loss)


@pytest.mark.every_store
@pytest.mark.timeout(120)
@pytest.mark.parametrize("killed", [1, 3])
async def test_sweepers_killed_between_reclaim_and_finish_charge_nobody_twice(url: str, killed: int) -> None:
    app = Holdfast(url)

    @app.task(queue="silent", name="silent")
    def silent() -> None: ...

    @app.task(queue="crashed", name="crashed")
    def crashed() -> None: ...

    async with app:
        jobs = [await silent.aenqueue(), await crashed.aenqueue()]
        store = parts_of(app).link.store.twin()
        await store.open()
        await lost(store, "silent", None)
        await lost(store, "crashed", CRASH)
        for number in range(killed):
            assert killed_sweeper(url, 2 * LEASE * (number + 1)) == {job.id for job in jobs}
        running = await records(store, jobs[0].id, jobs[1].id)
        assert [(r.state, r.losses, r.crashes, len(r.history)) for r in running] == [("running", 0, 0, 0)] * 2
        await sweep(store, 2 * LEASE * (killed + 1))
        of_silent, of_crashed = await records(store, jobs[0].id, jobs[1].id)
        await store.close()
    assert (of_silent.state, of_silent.attempt, of_silent.losses, of_silent.crashes) == ("queued", 0, 1, 0)
    assert [attempt.reason for attempt in of_silent.history] == [LEASE_RAN_OUT.cause]
    assert (of_crashed.attempt, of_crashed.losses, of_crashed.crashes) == (0, 0, 1)
    assert [attempt.reason for attempt in of_crashed.history] == [CRASH.cause]
    assert {of_silent.fence, of_crashed.fence} == {1 + killed + 1}, "a claim, and each sweeper's"


async def records(store: Store, *ids: UUID) -> list[Record]:
    found = {record.id: record for record in await store.find(Where(ids=ids), None, 10)}
    return [found[id] for id in ids]  # noqa: A001
