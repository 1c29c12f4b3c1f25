"""The app's link to its store: sync calls on a loop, many loops, and what callers hear when the app is closed."""

import asyncio
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from types import FunctionType
from uuid import UUID, uuid4

import pytest

from holdfast import (
    Holdfast,
    JobNotFound,
    SyncTask,
)

PATIENCE = 30


async def test_async_with_opens_and_closes(app: Holdfast, send: SyncTask[..., str]) -> None:
    async with app:
        job = await send.aenqueue("ann")
        assert (await job.astatus()).state == "queued"


async def test_a_sync_call_on_a_running_loop_works_and_warns_once_naming_its_twin(
    app: Holdfast, send: SyncTask[..., str]
) -> None:
    with pytest.warns(RuntimeWarning, match=r"await ….aenqueue\(\)") as warned:
        job = send.enqueue("ann")
    assert [warning.filename for warning in warned] == [__file__], "it points at the caller's line"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        send.enqueue("bob")
    with pytest.warns(RuntimeWarning, match=r"await ….astatus\(\)"):
        assert job.status().state == "queued"
    await asyncio.to_thread(app.close)


@pytest.mark.parametrize(
    ("call", "twin"),
    [
        (lambda app, send: app.enqueue_many([send.bind("x")]), "aenqueue_many"),
        (lambda app, send: app.cancel(queue="mail"), "acancel"),
        (lambda app, send: app.retry(queue="mail"), "aretry"),
        (lambda app, send: list(app.find(queue="mail")), "afind"),
        (lambda app, send: app.job(uuid4()).cancel(), "acancel"),
    ],
    ids=["enqueue_many", "cancel all", "retry all", "find", "cancel one"],
)
async def test_every_sync_call_on_a_running_loop_points_at_its_caller(
    app: Holdfast, send: SyncTask[..., str], call: FunctionType, twin: str
) -> None:
    with pytest.warns(RuntimeWarning, match=rf"await ….{twin}\(\)") as warned, suppress(JobNotFound):
        call(app, send)
    assert [(warning.filename, warning.lineno) for warning in warned] == [(__file__, call.__code__.co_firstlineno)]
    await asyncio.to_thread(app.close)


def test_one_app_serves_many_loops_at_once_and_one_after_another(app: Holdfast, send: SyncTask[..., str]) -> None:
    async def enqueue(n: int) -> list[UUID]:
        return [job.id for job in await asyncio.gather(*(send.aenqueue(f"{n}-{k}") for k in range(5)))]

    def loops(n: int) -> list[UUID]:
        return asyncio.run(enqueue(n)) + asyncio.run(enqueue(n))

    with ThreadPoolExecutor(4) as pool:
        made = list(chain.from_iterable(pool.map(loops, range(4), timeout=PATIENCE)))
    assert len(set(made)) == 40
    assert len(list(app.find(task="shop.send"))) == 40


def test_a_caller_that_waits_for_a_result_is_told_when_the_app_is_closed(
    app: Holdfast, send: SyncTask[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.bridge.EXIT_GRACE", 0.1)
    job = send.enqueue("ann")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.result)
        with pytest.raises(TimeoutError):
            waiting.result(0.05)
        app.close()
        assert waiting.exception(PATIENCE) is not None, "it waits for ever"
