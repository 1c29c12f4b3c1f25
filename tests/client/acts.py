"""What the tests of queues do again and again."""

from holdfast import Holdfast, Job, SyncTask
from holdfast.app import parts_of
from holdfast.job import QueueTerms


def fill(app: Holdfast, send: SyncTask[..., str], count: int) -> list[Job[str]]:
    """Enqueues so many jobs in one call."""
    return app.enqueue_many([send.bind(str(n)) for n in range(count)])


def states(jobs: list[Job[str]]) -> list[str]:
    return [str(job.status().state) for job in jobs]


def terms_of(app: Holdfast, name: str) -> QueueTerms | None:
    """What the store says is in effect for a queue; None for one that it does not know."""
    stats = parts_of(app).operating.stats()
    return next((queue.terms for queue in stats.queues if queue.name == name), None)
