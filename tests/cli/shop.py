"""A shop whose jobs can be brought into any state, without a worker and without waiting."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

from click.testing import Result

from holdfast import Holdfast, Retry
from holdfast.app import parts_of
from holdfast.clock import Span
from holdfast.job import Failed, Failure, Note, Record, Succeeded, Verdict
from holdfast.policy import decide
from holdfast.store import QueueStats, Where

NASTY = "no \x1b[31mroute\x07 \u202eto\nhost\tnow"


class Run(Protocol):
    def __call__(self, *args: str, fails: bool = False) -> Result: ...


class Shop:
    """An app over a SQLite file, whose jobs are brought into a state by speaking to the store as a worker does."""

    def __init__(self, path: Path) -> None:
        self.jobs = Holdfast(f"sqlite:///{path}", retry=Retry(max_attempts=3))
        self.url = f"sqlite:///{path}"
        self.send = self.jobs.task(name="shop.send_invoice", queue="mail", tags=["eu"], timeout=30)(_send_invoice)
        self.resize = self.jobs.task(name="shop.resize")(_resize)

    def dead(self, order: int = 1, error: str = "TimeoutError", message: str = NASTY) -> UUID:
        failed = Failed(Failure(error, message, f"Traceback\n  File shop.py\n{error}: {message}\n"), final=True)
        return self.after(self.send.enqueue(order).id, failed)

    def succeeded(self) -> UUID:
        return self.after(self.resize.enqueue("a.png").id, Succeeded(b'{"width":80}'))

    def retrying(self) -> UUID:
        return self.after(self.resize.enqueue("b.png").id, Failed(Failure("KeyError", "'sku'", "")))

    def running(self) -> UUID:
        return self.after(self.resize.enqueue("c.png").id, None)

    def cancelled(self) -> UUID:
        job = self.send.enqueue(5)
        job.cancel("not wanted")
        return job.id

    def said(self, id: UUID, *notes: Note) -> None:
        """Claims the job, the only one that is due, and says this of it while it runs."""
        asyncio.run(self._say(id, notes))

    async def _say(self, id: UUID, notes: Sequence[Note]) -> None:
        store, worker = parts_of(self.jobs).link.store.twin(), uuid4()
        await store.open()
        try:
            await store.register(worker, None, {})
            (claim,) = (await store.claim(worker, 1, None, 1)).jobs
            assert claim.id == id, "another job was due"
            assert all(await store.note([note._replace(id=id, fence=claim.fence, worker=worker) for note in notes]))
        finally:
            await store.close()

    def queue(self, name: str) -> QueueStats:
        """The queue as the store has it now."""
        (queue,) = (queue for queue in parts_of(self.jobs).operating.stats().queues if queue.name == name)
        return queue

    def after(self, id: UUID, verdict: Verdict | None) -> UUID:
        """Claims the job, the only one that is due, and ends its attempt so; None lets it run on."""
        asyncio.run(self._attempt(id, verdict))
        return id

    async def _attempt(self, id: UUID, verdict: Verdict | None) -> None:
        store, worker = parts_of(self.jobs).link.store.twin(), uuid4()
        await store.open()
        try:
            await store.register(worker, None, {})
            (claim,) = (await store.claim(worker, 1, None, 1)).jobs
            assert claim.id == id, "another job was due"
            if verdict is not None:
                await store.finish([decide(claim, verdict)])
        finally:
            await store.close()

    def promote(self, later: Span) -> None:
        """Promotes, as a worker does, at a time to come."""
        asyncio.run(self._promote(later))

    async def _promote(self, later: Span) -> None:
        store = parts_of(self.jobs).link.store.twin()
        await store.open()
        try:
            store.shift = later
            await store.promote(100)
        finally:
            await store.close()

    def record(self, id: UUID | str) -> Record:
        (record,) = parts_of(self.jobs).operating.records(Where(ids=(UUID(str(id)),)))
        return record

    def states(self) -> dict[UUID, str]:
        return {record.id: str(record.state) for record in parts_of(self.jobs).operating.records(Where())}


def _send_invoice(order_id: int, email: str = "") -> str:
    return email


def _resize(path: str) -> None: ...
