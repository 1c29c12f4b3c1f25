"""Enqueueing many jobs at once: their order, repeats, and what becomes of the rest when one is refused."""

import asyncio
import dataclasses
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from holdfast import (
    ConfigError,
    Holdfast,
    IdConflict,
    Job,
    NewJob,
    SyncTask,
)
from holdfast.app import parts_of
from holdfast.errors import PayloadError, StoreAway
from holdfast.store import Receipt

PATIENCE = 30


@contextmanager
def working(app: Holdfast, **options: Any) -> Iterator[None]:
    with app.worker(**options):
        yield


def test_enqueue_many_answers_in_order(app: Holdfast, send: SyncTask[..., str]) -> None:
    bound = [send.using(queue=f"q{n % 3}").bind(str(n)) for n in range(20)]
    jobs = app.enqueue_many(bound)
    assert [job.id for job in jobs] == [new.id for new in bound]
    assert [job.created for job in jobs] == [True] * 20
    assert app.enqueue_many([]) == []


def test_the_same_bound_jobs_again_are_harmless(app: Holdfast, send: SyncTask[..., str]) -> None:
    bound = [send.bind("ann"), send.bind("bob")]
    first = app.enqueue_many(bound)
    again = app.enqueue_many([*bound, bound[0]])
    assert [job.id for job in again] == [first[0].id, first[1].id, first[0].id]
    assert [job.created for job in again] == [False, False, False]
    assert len(list(app.find(task="shop.send"))) == 2


def test_a_generator_of_thousands_is_read_as_it_goes(app: Holdfast, send: SyncTask[..., str]) -> None:
    stored_when_made: list[int] = []

    def bound() -> Iterator[NewJob[str]]:
        for n in range(2_000):
            if n == 1_999:
                stored_when_made.append(len(list(app.find(task="shop.send"))))
            yield send.bind(str(n))

    jobs = app.enqueue_many(bound())
    assert len({job.id for job in jobs}) == 2_000
    assert stored_when_made[0] >= 1_000, "the whole generator was read before anything was stored"
    assert len(list(app.find(task="shop.send"))) == 2_000


def test_a_generator_that_fails_leaves_what_was_stored(app: Holdfast, send: SyncTask[..., str]) -> None:
    def bound() -> Iterator[NewJob[str]]:
        for n in range(700):
            yield send.bind(str(n))
        raise KeyError("the file ends here")

    with pytest.raises(KeyError, match="the file ends here"):
        app.enqueue_many(bound())
    assert 0 < len(list(app.find(task="shop.send"))) <= 700


def _other(job: NewJob[str], send: SyncTask[..., str]) -> NewJob[str]:
    return NewJob(dataclasses.replace(send.bind("other").draft, id=job.id))


def test_an_id_with_other_content_is_refused_and_the_others_are_stored(app: Holdfast, send: SyncTask[..., str]) -> None:
    taken = send.bind("ann")
    app.enqueue_many([taken])
    fresh = [send.bind("bob"), send.bind("cid")]
    with pytest.raises(IdConflict, match=rf"1 of 3 jobs.*{taken.id}"):
        app.enqueue_many([fresh[0], _other(taken, send), fresh[1]])
    assert {status.id for status in app.find(task="shop.send")} == {taken.id, *(new.id for new in fresh)}
    with working(app):
        assert send.job(taken.id).result(PATIENCE) == "ann", "the stored job is untouched"


def test_many_conflicts_are_told_with_the_first_five(app: Holdfast, send: SyncTask[..., str]) -> None:
    taken = [send.bind(str(n)) for n in range(7)]
    app.enqueue_many(taken)
    with pytest.raises(IdConflict, match=r"7 of 7 jobs.*, …"):
        app.enqueue_many([_other(new, send) for new in taken])


def test_what_is_no_bound_job_is_refused_by_name(app: Holdfast, send: SyncTask[..., str]) -> None:
    for wrong in (send.enqueue("ann"), send, "ann"):
        with pytest.raises(TypeError, match=r"no bound job: make one with task\.bind"):
            app.enqueue_many([send.bind("ann"), wrong])


def test_concurrent_callers_do_not_mix(app: Holdfast, send: SyncTask[..., str]) -> None:
    def enqueue(n: int) -> tuple[int, list[Job[str]]]:
        return n, [send.enqueue(f"{n}-{k}") for k in range(10)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(enqueue, range(8), timeout=PATIENCE))
    with working(app):
        for n, jobs in made:
            assert [job.result(PATIENCE) for job in jobs] == [f"{n}-{k}" for k in range(10)]


def test_one_refused_payload_leaves_strangers_in_the_same_batch_alone(app: Holdfast, send: SyncTask[..., str]) -> None:
    async def storm() -> list[object]:
        good = [send.aenqueue(str(n)) for n in range(20)]
        bad = [send.aenqueue(object()) for _ in range(5)]
        return list(await asyncio.gather(*good, *bad, return_exceptions=True))

    answers = asyncio.run(storm())
    assert [type(answer) for answer in answers] == [Job] * 20 + [PayloadError] * 5


def test_a_connection_to_somewhere_else_is_refused(send: SyncTask[..., str], app: Holdfast) -> None:
    with pytest.raises(ConfigError, match="connection="):
        send.using(connection=object()).enqueue("ann")
    with pytest.raises(ConfigError, match="connection="):
        app.enqueue_many([send.bind("ann")], connection=object())


async def test_a_caller_that_leaves_is_told_which_job_may_have_been_stored() -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="shop.send")(lambda: None)
    held = asyncio.Event()

    async def slow(*_: object) -> list[Receipt]:
        await held.wait()
        return []

    parts_of(jobs).link.store.enqueue = slow  # type: ignore[method-assign]
    async with jobs:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await task.aenqueue()
        cause = caught.value.__cause__ or caught.value.__context__
        assert cause is not None
        assert "may have been" in cause.__notes__[0]
        assert re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-7", cause.__notes__[0])


@pytest.mark.parametrize("certain", [True, False])
def test_only_who_cannot_know_is_told_that_his_job_may_have_been_stored(certain: bool) -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="shop.send")(lambda: None)

    async def away(*_: object) -> list[Receipt]:
        error = StoreAway("no answer")
        error.certain = certain
        raise error

    parts_of(jobs).link.store.enqueue = away  # type: ignore[method-assign]
    with jobs, pytest.raises(StoreAway) as caught:
        task.enqueue()
    assert ("may have been" not in "".join(getattr(caught.value, "__notes__", []))) is certain


def test_whoever_enqueues_many_is_told_how_many_are_stored() -> None:
    jobs = Holdfast("memory://")
    task = jobs.task(name="shop.send")(lambda: None)
    store = parts_of(jobs).link.store
    enqueue, calls = store.enqueue, 0

    async def full_in_the_end(*arguments: Any) -> Sequence[Receipt]:
        nonlocal calls
        calls += 1
        if calls == 2:
            error = StoreAway("the disk is full")
            error.certain = True
            raise error
        return await enqueue(*arguments)

    store.enqueue = full_in_the_end  # type: ignore[method-assign]
    with jobs, pytest.raises(StoreAway) as caught:
        jobs.enqueue_many(task.bind() for _ in range(501))
    assert caught.value.__notes__ == ["500 jobs of this call were stored before, the others were not"]
