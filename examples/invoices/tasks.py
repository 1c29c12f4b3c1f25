"""The shop's background jobs. `holdfast worker examples.invoices.tasks:jobs` runs them."""

from datetime import UTC, datetime

import httpx

from examples.invoices import database, invoice, mail
from examples.invoices.orders import Order
from examples.invoices.settings import INVOICES, JOBS, MAIL_PLACES, NIGHT, REPORTS, WEBHOOK
from holdfast import Cancel, CurrentJob, Holdfast, Permanent, Retry, current_job

jobs = Holdfast(JOBS)
jobs.queue("mail", max_size=MAIL_PLACES, when_full="reject")  # a web request must not wait: it is told 503
http = httpx.Client(timeout=10)


def invoice_of(number: int) -> str:
    """At most one unfinished job per order, whoever asks, and however often."""
    return f"invoice:{number}"


@jobs.task(
    queue="mail",
    unique=invoice_of,
    retry=Retry(max_attempts=12, base_delay=1, max_delay=60, never=(database.UnknownOrder,)),
    timeout=60,
)
def send_invoice(number: int) -> str:
    """Mail the invoice of a paid order, file it, and tell the team; returns the mail's Message-ID."""
    job = current_job()
    order = database.load(number)
    # An outbox may enqueue an order's job twice, the second time when the first has ended.
    if (sender := database.sender(number, str(job.id))) != str(job.id):
        raise Cancel(f"the invoice of order {number} goes out with job {sender}")
    message_id = f"<{job.id}@shop.example>"
    # A job runs at least once: an earlier run may have died after the mail server took its message
    # and before the job was done. A fence above 1 says that there was one, so ask before sending.
    if job.fence == 1 or not mail.accepted(message_id):
        _mail(job, order, message_id)
    job.progress(2, 3, text="telling the team")
    _tell_the_team(job, order)
    return message_id


def _mail(job: CurrentJob, order: Order, message_id: str) -> None:
    job.progress(0, 3, text="writing the PDF")
    pdf = invoice.render(order)
    INVOICES.mkdir(parents=True, exist_ok=True)
    (INVOICES / f"invoice-{order.number}.pdf").write_bytes(pdf)
    job.check()  # cancelled, or past its time: this is the last moment to leave without a trace
    job.progress(1, 3, text="handing it to the mail server")
    try:
        mail.send(mail.message(order, pdf, message_id))
    except mail.Refused as error:
        raise Permanent(f"order {order.number}: {error}") from error


def _tell_the_team(job: CurrentJob, order: Order) -> None:
    # The job's id is the same in every run: with it the receiver ignores what it has heard before.
    http.post(
        WEBHOOK,
        json={"order": order.number, "total": order.money(order.total), "currency": order.currency},
        headers={"Idempotency-Key": str(job.id)},
    ).raise_for_status()


@jobs.cron(NIGHT, tz="Europe/Amsterdam", name="nightly-report")
@jobs.task(retry=Retry(max_attempts=12, base_delay=1, max_delay=60), timeout=60)
def nightly_report() -> dict[str, object]:
    """Tell the team what was ordered and paid by now: once a night, however many workers there are."""
    job = current_job()
    night = job.scheduled_for or datetime.now(UTC)  # None by hand: `holdfast schedules trigger nightly-report`
    report = {"night": night.isoformat(), **database.takings()}
    http.post(REPORTS, json=report, headers={"Idempotency-Key": str(job.id)}).raise_for_status()
    return report
