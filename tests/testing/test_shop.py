"""The invoice shop of examples/, tested as its own programmers would: its tasks and pages in a Sandbox, no server."""

from collections.abc import AsyncIterator, Iterator
from datetime import date
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from examples.invoices import database, mail, outbox, settings, tasks
from examples.invoices.orders import Line, Order
from examples.invoices.shop import app
from examples.invoices.tasks import jobs, send_invoice
from holdfast import JobFailed, StoreError
from holdfast.testing import Sandbox


class Outside:
    """What the shop's jobs talk to: mail server, mail service, the team's chat. Each may be away for a while."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.posts: list[httpx.Request] = []
        self.mail_errors: list[Exception] = []  # of the next mails
        self.chat_errors = 0  # of the next posts

    def send(self, message: EmailMessage) -> None:
        if self.mail_errors:
            raise self.mail_errors.pop(0)
        self.mails.append(message)

    def accepted(self, message_id: str) -> bool:
        return any(message["Message-ID"] == message_id for message in self.mails)

    def post(self, request: httpx.Request) -> httpx.Response:
        if self.chat_errors:
            self.chat_errors -= 1
            return httpx.Response(503, request=request)
        self.posts.append(request)
        return httpx.Response(204, request=request)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    outside = Outside()
    monkeypatch.setattr(mail, "send", outside.send)
    monkeypatch.setattr(mail, "accepted", outside.accepted)
    with httpx.Client(transport=httpx.MockTransport(outside.post)) as client:
        monkeypatch.setattr(tasks, "http", client)
        yield outside


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of the test's own, with orders 1 to 3; order 3 is paid."""
    monkeypatch.setattr(database, "DATABASE", f"sqlite:///{tmp_path}/shop.db")
    monkeypatch.setattr(tasks, "INVOICES", tmp_path / "invoices")
    monkeypatch.setattr(tasks.invoice, "render", lambda order: f"%PDF of {order.number}".encode())
    database.create()
    with database.transaction() as db:
        for number in (1, 2, 3):
            database.add(db, an_order(number, paid_on=date(2026, 11, 2) if number == 3 else None))


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(jobs, now="2026-11-22T09:00:00+01:00") as box:
        yield box


@pytest.fixture
async def abox() -> AsyncIterator[Sandbox]:
    async with Sandbox(jobs, now="2026-11-22T09:00:00+01:00") as box:
        yield box


@pytest.fixture
async def web(abox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


def an_order(number: int, *, paid_on: date | None) -> Order:
    line = Line("A100-0001", "Oak shelf", Decimal(2), Decimal("9.99"), Decimal(0), Decimal(19))
    return Order(
        number=number,
        ordered_on=date(2026, 11, 1),
        paid_on=paid_on,
        customer="Zoë Müller",
        email=f"customer-{number}@customers.example",
        street="Große Elbstraße 9",
        city="Hamburg",
        country="Germany",
        currency="EUR",
        lines=(line,),
    )


# --- the job


def test_an_invoice_is_mailed_filed_and_told(box: Sandbox, outside: Outside, tmp_path: Path) -> None:
    job = send_invoice.enqueue(3)
    box.run()
    [message] = outside.mails
    assert message["To"] == "Zoë Müller <customer-3@customers.example>"
    assert job.result() == message["Message-ID"] == f"<{job.id}@shop.example>"
    assert (tmp_path / "invoices" / "invoice-3.pdf").read_bytes() == b"%PDF of 3"
    [post] = outside.posts
    assert post.headers["Idempotency-Key"] == str(job.id)


def test_a_mail_server_that_is_away_is_tried_again(box: Sandbox, outside: Outside) -> None:
    outside.mail_errors = [ConnectionRefusedError("away")] * 3
    job = send_invoice.enqueue(3)
    tries = box.advance("1m")
    assert [str(status.state) for status in tries] == ["scheduled", "scheduled", "scheduled", "succeeded"]
    assert len(outside.mails) == 1
    assert [error.type for error in job.status().errors] == ["ConnectionRefusedError"] * 3


def test_a_mail_that_went_out_is_not_sent_again_when_the_chat_is_away(box: Sandbox, outside: Outside) -> None:
    outside.chat_errors = 2
    job = send_invoice.enqueue(3)
    assert len(box.advance("5m")) == 3
    assert job.status().state == "succeeded"
    assert (len(outside.mails), len(outside.posts)) == (1, 1)


def test_an_address_that_is_refused_is_not_tried_again(box: Sandbox, outside: Outside) -> None:
    outside.mail_errors = [mail.Refused("550 no such user")]
    job = send_invoice.enqueue(3)
    assert [status.id for status in box.advance("1d") if status.task == send_invoice.name] == [job.id]
    with pytest.raises(JobFailed, match="order 3: 550 no such user"):
        job.result()


def test_an_order_that_nobody_knows_is_not_tried_again(box: Sandbox, outside: Outside) -> None:
    job = send_invoice.enqueue(99)
    assert [status.id for status in box.advance("1d") if status.task == send_invoice.name] == [job.id]
    assert job.status().state == "dead"
    assert outside.mails == []


def test_an_outage_of_an_hour_is_too_long_and_an_operator_can_retry(box: Sandbox, outside: Outside) -> None:
    outside.mail_errors = [ConnectionRefusedError("away")] * 12
    job = send_invoice.enqueue(3)
    assert len(box.advance("1h")) == 12
    assert job.status().state == "dead"
    assert jobs.retry(state="dead", task=send_invoice.name) == 1
    box.run()
    assert job.result() == outside.mails[0]["Message-ID"]


# --- the pages


async def test_paying_an_order_enqueues_its_invoice_once(
    web: httpx.AsyncClient, abox: Sandbox, outside: Outside
) -> None:
    answer = await web.post("/orders/1/paid")
    assert answer.status_code == 202
    job = abox.assert_enqueued(send_invoice, 1)
    assert answer.json() == {"order": 1, "job": str(job.id)}
    assert (await web.post("/orders/1/paid")).json() == answer.json()
    assert abox.enqueued(send_invoice) == [job]
    assert (await web.get("/orders/1")).json()["invoice"]["state"] == "queued"
    await abox.arun()
    assert (await web.get("/orders/1")).json()["invoice"]["state"] == "succeeded"
    assert [message["To"].addresses[0].username for message in outside.mails] == ["customer-1"]


async def test_an_order_that_does_not_exist_enqueues_nothing(web: httpx.AsyncClient, abox: Sandbox) -> None:
    assert (await web.post("/orders/77/paid")).status_code == 404
    assert abox.enqueued(send_invoice) == []


async def test_a_queue_without_a_place_is_a_503_and_the_order_stays_unpaid(
    web: httpx.AsyncClient, abox: Sandbox, outside: Outside
) -> None:
    send = send_invoice.using(unique=None)
    await jobs.aenqueue_many(send.bind(number) for number in range(settings.MAIL_PLACES))
    answer = await web.post("/orders/1/paid")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert database.load(1).paid_on is None
    await abox.arun(1)
    assert (await web.post("/orders/1/paid")).status_code == 202


# --- the outbox, where the jobs are elsewhere


@pytest.fixture
def outboxed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "NEEDED", True)


def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Order 1 is paid, and the shop dies when it has enqueued the job, before it has noted that."""
    with database.transaction() as db:
        database.mark_paid(db, 1, date(2026, 11, 22))
        outbox.put(db, [1])

    def die(*_: object) -> str:
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr(database, "note_sender", die)
        with pytest.raises(SystemExit):
            outbox.drain()
    assert in_the_outbox() == 1


def in_the_outbox() -> int:
    return database.counts()[2]


async def test_what_is_paid_goes_through_the_outbox_once(
    outboxed: None, web: httpx.AsyncClient, abox: Sandbox, outside: Outside
) -> None:
    answer = await web.post("/orders/1/paid")
    job = abox.assert_enqueued(send_invoice, 1)
    assert (answer.status_code, answer.json()) == (202, {"order": 1, "job": str(job.id)})
    assert (await web.post("/orders/1/paid")).json() == answer.json()
    assert (abox.enqueued(send_invoice), in_the_outbox()) == ([job], 0)
    await abox.arun()
    assert (await web.get("/orders/1")).json()["invoice"]["state"] == "succeeded"
    assert len(outside.mails) == 1


async def test_while_the_store_is_away_orders_are_paid_and_their_invoices_wait(
    outboxed: None, web: httpx.AsyncClient, abox: Sandbox, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as outage:
        outage.setattr(jobs, "enqueue_many", away)
        answer = await web.post("/orders/1/paid")
    assert (answer.status_code, answer.json()) == (202, {"order": 1, "job": None})
    assert (await web.get("/status")).json()["waiting"] == 1
    assert "in the outbox" in (await web.get("/")).text
    await web.post("/orders/2/paid")
    assert in_the_outbox() == 1, "a payment sends its own invoice: others do not make it wait"
    await web.post("/orders", content=b"")  # an import sends all that waits
    await abox.arun()
    assert sorted(message["To"].addresses[0].username for message in outside.mails) == ["customer-1", "customer-2"]
    assert (await web.get("/status")).json() == {"orders": 3, "paid": 3, "waiting": 0, "dead": 0}


async def test_a_full_queue_keeps_invoices_in_the_outbox(
    outboxed: None, web: httpx.AsyncClient, abox: Sandbox, outside: Outside
) -> None:
    send = send_invoice.using(unique=None)
    await jobs.aenqueue_many(send.bind(1000 + number) for number in range(settings.MAIL_PLACES))
    assert (await web.post("/orders/1/paid")).json() == {"order": 1, "job": None}
    assert database.load(1).paid_on is not None
    await abox.arun()
    assert outside.mails == []
    await web.post("/orders", content=b"")
    await abox.arun()
    assert [message["To"].addresses[0].username for message in outside.mails] == ["customer-1"]


def test_after_a_crash_a_job_that_was_not_noted_is_enqueued_again_and_is_the_same(
    outboxed: None, box: Sandbox, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(monkeypatch)
    [job] = box.enqueued(send_invoice)
    outbox.drain()
    assert box.enqueued(send_invoice) == [job]
    with database.connected() as db:
        assert (database.invoice_job(db, 1), in_the_outbox()) == (str(job.id), 0)
    box.run()
    assert len(outside.mails) == 1


def test_a_job_that_ended_before_it_was_noted_is_not_enqueued_again(
    outboxed: None, box: Sandbox, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(monkeypatch)
    [job] = box.enqueued(send_invoice)
    box.run()
    outbox.drain()
    assert box.enqueued(send_invoice) == [job]
    assert (len(outside.mails), in_the_outbox()) == (1, 0)


def test_a_second_job_of_an_order_steps_down(box: Sandbox, outside: Outside) -> None:
    first = send_invoice.enqueue(3)
    box.run()
    second = send_invoice.enqueue(3)
    assert second.id != first.id
    box.run()
    status = second.status()
    assert (status.state, status.reason) == ("cancelled", f"the invoice of order 3 goes out with job {first.id}")
    assert len(outside.mails) == 1
