"""Jobs that end their process: dead in the end, with the evidence; their neighbours are neither charged nor dead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast import Holdfast
from holdfast.job import Record
from holdfast.store import Where
from holdfast.stores import open_store
from tests.flows.conftest import Ledger, Service, until
from tests.flows.shop import (
    hogs_memory,
    poison,
    poison_in_thread,
    segfaults_in_thread,
    segfaults_on_loop,
    thread_work,
    work,
)

NEIGHBOURS = 19


async def records(url: str, ids: list[Any]) -> list[Record]:
    store = open_store(url)
    await store.open()
    try:
        return list(await store.find(Where(ids=ids), None, len(ids)))
    finally:
        await store.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("task", "arguments", "begun", "evidence"),
    [
        # Two losses in company, where nobody can say who it was, then three alone.
        (poison, (), 5, "exit code 7"),
        pytest.param(poison_in_thread, (), 5, "exit code 7", marks=pytest.mark.soak),
        pytest.param(hogs_memory, (300,), 5, "SIGKILL", marks=pytest.mark.soak),
        (segfaults_in_thread, (), 3, "SIGSEGV"),  # named by its stack at the first loss, and charged
        pytest.param(segfaults_on_loop, (), 3, "SIGSEGV", marks=pytest.mark.soak),
    ],
    ids=["exits", "exits-in-thread", "hogs-memory", "segfaults-in-thread", "segfaults-on-loop"],
)
async def test_a_poison_job_ends_dead_with_its_evidence_and_no_neighbour_is_charged(
    task: Any,
    arguments: tuple[Any, ...],
    begun: int,
    evidence: str,
    url: str,
    app: Holdfast,
    ledger: Ledger,
    serve: Callable[..., Service],
) -> None:
    neighbours = await app.aenqueue_many(work.bind(n, seconds=0.3) for n in range(10))
    bad = await task.aenqueue(*arguments)
    neighbours += await app.aenqueue_many(thread_work.bind(n, seconds=0.3) for n in range(10, NEIGHBOURS))
    service = serve("--concurrency", str(NEIGHBOURS + 1))
    assert [await job.aresult(timeout=90) for job in neighbours] == list(range(NEIGHBOURS))
    until(lambda: ledger.count("begin", bad.id) == begun, "its last run")
    with pytest.raises(Exception, match=evidence):
        await bad.aresult(timeout=60)
    (dead,) = await records(url, [bad.id])
    assert (str(dead.state), dead.crashes) == ("dead", 3)
    last = dead.history[-1].error
    assert last is not None
    assert "MiB of memory" in last.message
    if evidence == "SIGSEGV":
        assert all(attempt.error and "string_at" in attempt.error.traceback for attempt in dead.history)
    if task is hogs_memory:
        assert int(last.message.split(" MiB of memory")[0].split()[-1]) >= 300
    for neighbour in await records(url, [job.id for job in neighbours]):
        assert (str(neighbour.state), neighbour.attempt, neighbour.crashes) == ("succeeded", 1, 0)
        assert neighbour.losses <= 2
        if begun == 3:
            assert neighbour.losses == 0, "whose doing it was is known"
    assert service.text().count("event=restart") == begun - 3 or begun == 3
    assert service.stop() == 0
