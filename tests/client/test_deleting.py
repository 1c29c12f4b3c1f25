"""Deleting jobs: one, all that match, and what is running."""

import threading

import pytest

from holdfast import ConfigError, Holdfast, JobNotFound, StoreError, SyncTask
from tests.client.acts import fill, states

PATIENCE = 30


def test_a_deleted_job_is_gone_and_its_place_is_free(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=1)
    (job,) = fill(app, send, 1)
    job.delete()
    for ask in (job.status, job.delete, job.cancel):
        with pytest.raises(JobNotFound, match=str(job.id)):
            ask()
    assert send.enqueue("next").created


def test_a_running_job_is_not_deleted(app: Holdfast) -> None:
    go, running = threading.Event(), threading.Event()

    @app.task(name="shop.slow")
    def slow() -> None:
        running.set()
        assert go.wait(PATIENCE), "nobody lets it go on"

    with app.worker():
        job = slow.enqueue()
        assert running.wait(PATIENCE), "it is never started"
        with pytest.raises(StoreError, match=rf"job {job.id} is running; cancel it first"):
            job.delete()
        assert app.delete(dry_run=True, task="shop.slow") == app.delete(task="shop.slow") == 0
        go.set()
        job.result(PATIENCE)
    job.delete()
    with pytest.raises(JobNotFound):
        job.status()


def test_delete_all_that_match(app: Holdfast, send: SyncTask[..., str]) -> None:
    jobs = fill(app, send, 3)
    jobs[0].cancel()
    assert app.delete(dry_run=True, queue="mail") == 3
    assert app.delete(state="cancelled", queue="mail") == 1
    assert states(jobs[1:]) == ["queued", "queued"]
    assert app.delete(queue="mail") == 2
    assert list(app.find(queue="mail")) == []
    with pytest.raises(ConfigError, match="no filter is given"):
        app.delete()


async def test_the_twins_delete_too(app: Holdfast, send: SyncTask[..., str]) -> None:
    async with app:
        one, two = await app.aenqueue_many([send.bind("a"), send.bind("b")])
        await one.adelete()
        with pytest.raises(JobNotFound):
            await one.astatus()
        assert await app.adelete(dry_run=True, queue="mail") == 1
        assert await app.adelete(queue="mail") == 1
        assert two.created
