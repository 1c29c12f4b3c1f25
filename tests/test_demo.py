"""The invoice shop of examples/: its money, its invoices, its mail server, and the judge of its bad day."""

import csv
import io
import json
import re
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import httpx
import pytest
from pypdf import PdfReader

from examples.invoices import mail as mailing
from examples.invoices import make_orders
from examples.invoices.audit import Findings, audit, read_csv, read_log, read_reports
from examples.invoices.counters import Counters
from examples.invoices.evening import COUNT, orders_of_the_evening
from examples.invoices.invoice import render
from examples.invoices.orders import Line, Order, read_orders
from examples.invoices.processes import ROOT, Crew, address, listening
from holdfast import Holdfast
from tests import servers

REFUSED = frozenset({make_orders.REFUSED})


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.02)


def an_order(number: int = 7, *, currency: str = "EUR", lines: int = 1, **changes: object) -> Order:
    line = Line("A100-0001", "Oak shelf", Decimal(3), Decimal("9.99"), Decimal("12.5"), Decimal(19))
    facts: dict[str, object] = {
        "ordered_on": date(2026, 11, 1),
        "paid_on": date(2026, 11, 2),
        "customer": "Zoë Müller-Lüdenscheidt",
        "email": f"customer-{number}@customers.example",
        "street": "Große Elbstraße 9",
        "city": "Hamburg",
        "country": "Germany",
    } | changes
    return Order(number=number, currency=currency, lines=(line,) * lines, **facts)  # type: ignore[arg-type]


def exported(*orders: Order) -> str:
    """The CSV of orders of one line each."""
    text = io.StringIO()
    sheet = csv.DictWriter(text, make_orders.HEADER)
    sheet.writeheader()
    for order in orders:
        head = {name: getattr(order, name) for name in make_orders.HEADER[1:9]}
        [line] = order.lines
        sheet.writerow({"order": order.number} | head | vars(line))
    return text.getvalue()


def text_of(pdf: bytes) -> list[str]:
    """The text of each page, without the invisible marks that let long words break."""
    return [page.extract_text().replace("\u200b", "") for page in PdfReader(io.BytesIO(pdf)).pages]


# orders


def test_the_checked_in_orders_are_what_the_generator_writes() -> None:
    written = io.StringIO()
    make_orders.write(written)
    assert written.getvalue() == make_orders.CSV.read_text(encoding="utf-8")


def test_the_orders_are_varied() -> None:
    orders = {order.number: order for order in read_csv(make_orders.CSV)}
    assert len(orders) == 300
    assert len(read_csv(make_orders.CSV)) > 300, "some orders are exported twice"
    assert {"JPY", "KWD", "EUR"} < {order.currency for order in orders.values()}
    assert max(len(order.lines) for order in orders.values()) > 100
    assert [order.number for order in orders.values() if order.email in REFUSED] == [10064]
    assert {order.paid_on is None for order in orders.values()} == {True, False}


@pytest.mark.parametrize(
    ("currency", "price", "net", "tax", "total"),
    [
        ("EUR", "9.99", "26.22", "4.98", "31.20"),
        ("JPY", "1999", "5,247", "997", "6,244"),
        ("KWD", "3.333", "8.749", "1.662", "10.411"),
    ],
)
def test_money_is_rounded_to_the_smallest_unit_of_its_currency(
    currency: str, price: str, net: str, tax: str, total: str
) -> None:
    line = Line("A100-0001", "Oak shelf", Decimal(3), Decimal(price), Decimal("12.5"), Decimal(19))
    order = Order(**(vars(an_order(currency=currency)) | {"lines": (line,)}))
    assert order.money(order.net) == net
    assert {rate: order.money(amount) for rate, amount in order.taxes.items()} == {Decimal(19): tax}
    assert order.money(order.total) == total


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (make_orders.HEADER, ["8,2026-11-01,,Ann,a@b.example,S,C,X,EUR,A1,Shelf,many,1,0,0"]),
        (make_orders.HEADER[:-1], ["8,2026-11-01,,Ann,a@b.example,S,C,X,EUR,A1,Shelf,1,1,0"]),
        (
            make_orders.HEADER,
            ["8,2026-11-01,,Ann,a@b.example,S,C,X,EUR,A1,Shelf,1,1,0,0", "9,,,,,,,,,A1,Shelf,1,1,0,0"],
        ),
    ],
    ids=["no number", "no column for the tax", "a line of another order"],
)
def test_an_order_that_cannot_be_read_is_named(header: tuple[str, ...], rows: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^order '8' cannot be read: "):
        list(read_orders([",".join(header), *rows]))


# the invoice


def test_an_invoice_of_many_lines_has_its_header_and_number_on_every_page() -> None:
    order = an_order(lines=120)
    pages = text_of(render(order))
    assert len(pages) > 2
    for number, page in enumerate(pages, start=1):
        assert f"Invoice 7 · Page {number} of {len(pages)}" in page
        assert "ARTICLE" in page, f"page {number} lacks the table's header"
    assert f"Total EUR {order.money(order.total)}" in pages[-1]


@pytest.mark.parametrize(
    "name",
    [
        "Γιώργος Αγγελόπουλος",
        "Олексій Ґалаґан",
        "Nguyễn Thị Ánh",
        "გიორგი ბერიძე",
        "Ægir Þórðarson",
        'Smith "Nobby" & <Sons> #1 $x$ *_@\\',
        "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetzberatungs GmbH",
    ],
)
def test_an_invoice_says_the_customers_name(name: str) -> None:
    [page] = text_of(render(an_order(customer=name)))
    assert "".join(name.split()) in "".join(page.split()).replace("-", "")


def test_the_same_order_gives_the_same_invoice() -> None:
    assert render(an_order()) == render(an_order())


def test_an_unpaid_order_gets_no_invoice() -> None:
    with pytest.raises(ValueError, match="order 7 is not paid"):
        render(an_order(paid_on=None))


# the mail server


class Post:
    """A running mail server, and both ways to talk to it."""

    def __init__(self, folder: Path, smtp: str, http: httpx.Client) -> None:
        self.folder = folder
        self.http = http
        self._smtp = smtp

    def send(self, message_id: str, to: str = "ann@customers.example", timeout: float = 10) -> None:
        mail = EmailMessage()
        mail["Message-ID"], mail["From"], mail["To"] = message_id, "shop@shop.example", to
        host, port = self._smtp.split(":")
        with smtplib.SMTP(host, int(port), "shop.example", timeout) as smtp:
            smtp.send_message(mail)

    def faults(self, **wanted: bool) -> None:
        self.http.put("/faults", json=wanted).raise_for_status()

    def accepted(self, message_id: str) -> bool:
        return self.http.get(f"/messages/{message_id}").status_code == 200

    def files(self) -> list[str]:
        return [path.read_text() for path in (self.folder / "new").iterdir()]

    def events(self) -> list[str]:
        return [line["event"] for line in read_log(self.folder / "log.jsonl")]


@pytest.fixture
def post(tmp_path: Path) -> Generator[Post]:
    smtp, http = listening(), listening()
    where, doors = address(smtp), ("--smtp", f"fd:{smtp.fileno()}", "--http", f"fd:{http.fileno()}")
    command = ("python", "-m", "examples.invoices.mailserver", str(tmp_path / "mail"), *doors)
    client = httpx.Client(base_url=f"http://{address(http)}", timeout=20)
    with Crew(tmp_path, {}) as crew, client:
        crew.start("mailserver", *command, "--refuse", make_orders.REFUSED, sockets=(smtp, http))
        yield Post(tmp_path / "mail", where, client)


def test_the_mail_server_keeps_what_it_accepts_and_refuses_the_rest(post: Post) -> None:
    post.send("<1@shop.example>")
    post.faults(busy=True)
    with pytest.raises(smtplib.SMTPDataError, match="try again later"):
        post.send("<2@shop.example>")
    post.faults()
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="no such mailbox"):
        post.send("<3@shop.example>", to=make_orders.REFUSED)
    assert [post.accepted(f"<{each}@shop.example>") for each in (1, 2, 3)] == [True, False, False]
    [only] = post.files()
    assert "<1@shop.example>" in only
    assert [event for event in post.events() if event not in {"asked", "faults"}] == ["accepted", "busy", "refused"]


def test_a_held_reply_is_lost_with_its_client_but_the_message_is_kept(post: Post) -> None:
    post.faults(hold=True)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        post.send("<1@shop.example>", timeout=0.5)
    until("the lost reply in the log", lambda: "reply lost" in post.events())
    assert post.accepted("<1@shop.example>")


# the shop


@contextmanager
def in_sqlite() -> Generator[dict[str, str]]:
    yield {}


@contextmanager
def in_postgres() -> Generator[dict[str, str]]:
    with servers.postgres().ready() as database:
        yield {"SHOP_DATABASE": database.url}


@contextmanager
def in_redis() -> Generator[dict[str, str]]:
    """The jobs; the orders stay in SQLite."""
    with servers.valkey().bare() as prefix:
        yield {"SHOP_JOBS": prefix.url}


Where: TypeAlias = Callable[[], AbstractContextManager[dict[str, str]]]


@pytest.fixture(params=[in_sqlite, in_postgres, in_redis])
def where(request: pytest.FixtureRequest) -> Generator[dict[str, str]]:
    """What the shop's environment says of where its orders and jobs are."""
    place: Where = request.param
    with place() as environment:
        yield environment


@pytest.fixture
def shop(tmp_path: Path, where: dict[str, str]) -> Generator[httpx.Client]:
    door = listening()
    client = httpx.Client(base_url=f"http://{address(door)}", timeout=20)
    with Crew(tmp_path, {"SHOP_OUT": str(tmp_path), **where}) as crew, client:
        crew.start("shop", "uvicorn", "examples.invoices.shop:app", "--fd", str(door.fileno()), sockets=(door,))
        yield client


def test_importing_and_paying_again_changes_nothing(shop: httpx.Client) -> None:
    export = exported(an_order(1), an_order(2, paid_on=None), an_order(1)).encode()
    assert shop.post("/orders", content=export).json() == {"orders": 2, "repeated": 1, "jobs": 1}
    assert shop.post("/orders", content=export).json() == {"orders": 0, "repeated": 3, "jobs": 0}
    first, again = (shop.post("/orders/2/paid") for _ in range(2))
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert shop.get("/status").json() == {"orders": 2, "paid": 2, "waiting": 2, "dead": 0}


def test_the_shop_tells_where_an_invoice_is(shop: httpx.Client) -> None:
    shop.post("/orders", content=exported(an_order(1, paid_on=None)).encode()).raise_for_status()
    assert shop.get("/orders/1").json()["invoice"] is None
    job = shop.post("/orders/1/paid").json()["job"]
    told = shop.get("/orders/1").json()
    assert told["invoice"] == {"job": job, "state": "queued", "attempt": 0}
    assert (told["customer"], told["total"]) == ("Zoë Müller-Lüdenscheidt", "31.20")
    assert "<dt>paid</dt><dd>1</dd>" in shop.get("/").text


def test_an_unknown_order_cannot_be_paid(shop: httpx.Client) -> None:
    answer = shop.post("/orders/9/paid")
    assert (answer.status_code, answer.json()) == (404, {"error": "no order has the number 9"})
    assert shop.get("/status").json()["waiting"] == 0


# the shop's page, with everything that stands behind it


class Open:
    """A shop that is open: its page as a person has it, and the witnesses."""

    def __init__(self, out: Path, client: httpx.Client, jobs: str, metrics: str) -> None:
        self.out = out
        self.client = client
        self.jobs = jobs  # the URL of their store
        self.metrics = metrics  # the URL of its workers' endpoint

    def click(self, action: str) -> httpx.Response:
        return self.client.post(action, headers={"Accept": "text/html"})

    def row(self, number: int) -> str:
        """What the page says of an order, tags left out."""
        page = self.client.get("/").raise_for_status().text
        found = re.search(rf"<tr id=order-{number}>(.*?)(?=<tr |</tbody)", page, re.DOTALL)
        assert found, page
        return " ".join(re.sub("<[^>]+>", " ", found[1]).split())

    def mails(self) -> list[Path]:
        return list((self.out / "mail" / "new").glob("*.eml"))

    def until_row_says(self, number: int, words: str) -> None:
        until(f"{words!r} in {self.row(number)!r}", lambda: words in self.row(number))


@pytest.fixture
def open_shop(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Open]:
    """On SQLite, unless a test says where."""
    place: Where = getattr(request, "param", in_sqlite)
    with place() as where:
        yield from _opened(tmp_path, where)


def _opened(tmp_path: Path, where: dict[str, str]) -> Generator[Open]:
    smtp, mail_api, webhook, door, metrics = (listening() for _ in range(5))
    counted = address(metrics)
    metrics.close()
    client = httpx.Client(base_url=f"http://{address(door)}", timeout=20, follow_redirects=True)
    environment = {
        "SHOP_OUT": str(tmp_path),
        "SHOP_SMTP": address(smtp),
        "SHOP_MAIL_API": f"http://{address(mail_api)}",
        "SHOP_WEBHOOK": f"http://{address(webhook)}/invoices",
        "SHOP_REPORTS": f"http://{address(webhook)}/reports",
        **where,
    }
    doors = ("--smtp", f"fd:{smtp.fileno()}", "--http", f"fd:{mail_api.fileno()}")
    provider = ("-m", "examples.invoices.mailserver", str(tmp_path / "mail"), *doors, "--refuse", make_orders.REFUSED)
    with Crew(tmp_path, environment) as crew, client:
        crew.start("mailserver", "python", *provider, sockets=(smtp, mail_api))
        for name, its in (("webhook", webhook), ("shop", door)):
            crew.start(name, "uvicorn", f"examples.invoices.{name}:app", "--fd", str(its.fileno()), sockets=(its,))
        client.post("/orders", content=exported(*(an_order(n, paid_on=None) for n in (1, 2, 3))).encode())
        options = ("--concurrency", "2", "--metrics", counted)
        worker = crew.start("worker", "holdfast", "worker", "examples.invoices.tasks:jobs", *options)
        (tmp_path / "worker.pid").write_text(str(worker))
        database = where.get("SHOP_DATABASE", f"sqlite:///{tmp_path}/shop.db")
        yield Open(tmp_path, client, where.get("SHOP_JOBS", database), f"http://{counted}")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("open_shop", [in_sqlite, in_redis], indirect=True)
def test_paying_twice_on_the_page_sends_one_invoice_which_is_counted_and_reported_at_night(open_shop: Open) -> None:
    assert open_shop.row(1).endswith("Pay –")
    assert "http-equiv=refresh" not in open_shop.client.get("/").text, "nothing is unfinished: nothing to refresh"
    for _ in range(2):
        assert open_shop.click("/orders/1/pay").url.fragment == "order-1"
    open_shop.until_row_says(1, "sent PDF")
    assert open_shop.row(1).endswith("sent PDF")
    assert "Invoice 1" in " ".join(text_of(open_shop.client.get("/orders/1/invoice.pdf").content))
    assert open_shop.client.get("/orders/2/invoice.pdf").status_code == 404
    open_shop.click("/orders/2/pay")
    open_shop.until_row_says(2, "sent PDF")  # all that was enqueued before it has ended, too
    assert len(open_shop.mails()) == 2
    assert "<dt>mails in the provider’s mailbox</dt><dd>2</dd>" in open_shop.client.get("/").text
    counters = Counters(open_shop.metrics)
    mailed = {"queue": "mail", "status": "succeeded"}
    until("both in the counters", lambda: counters.look() and counters.total("worker_jobs_total", **mailed) == 2)
    with Holdfast(open_shop.jobs) as jobs:
        jobs.trigger_schedule("nightly-report").result(timeout=20)
    [report] = read_reports(open_shop.out / "webhook" / "reports")
    report.pop("night")
    assert report == {"orders": 3, "paid": 2, "totals": {"EUR": "62.40"}}
    assert 'worker_queue_depth{queue="mail"} 0.0' in open_shop.client.get("/jobs/metrics").text


@pytest.mark.timeout(120)
def test_what_needs_a_look_can_be_looked_at(open_shop: Open) -> None:
    assert "Need a look" not in open_shop.client.get("/").text
    refused = an_order(4, paid_on=None, email=make_orders.REFUSED)
    open_shop.client.post("/orders", content=exported(refused).encode()).raise_for_status()
    open_shop.click("/orders/4/pay")
    open_shop.until_row_says(4, "given up after attempt 1")
    assert '<a href="/?dead=1">Need a look (1)</a>' in open_shop.client.get("/").text
    assert re.findall(r"id=order-(\d+)", open_shop.client.get("/?dead=1").text) == ["4"]


@pytest.mark.timeout(120)
def test_on_the_page_one_sees_retries_and_the_rescue_from_a_killed_worker(open_shop: Open) -> None:
    open_shop.click("/incidents/mail-server/busy")
    open_shop.click("/orders/1/pay")
    open_shop.until_row_says(1, "attempt 1 failed, again at")
    assert "451 4.3.2 try again later" in open_shop.row(1)
    assert "b'" not in open_shop.row(1), "the server's answer in its own words"
    assert "http-equiv=refresh" in open_shop.client.get("/").text
    assert "http-equiv=refresh" not in open_shop.client.get("/?still=1").text
    open_shop.click("/incidents/mail-server/well")
    open_shop.until_row_says(1, "sent, attempt")
    open_shop.click("/incidents/mail-server/silent")
    open_shop.click("/orders/2/pay")
    until("the second mail", lambda: len(open_shop.mails()) == 2)
    open_shop.until_row_says(2, "on its way, attempt 1 handing it to the mail server")
    assert "was ended by kill -9" in open_shop.click("/incidents/kill").text
    open_shop.until_row_says(2, "sent, after its worker had died PDF")
    assert len(open_shop.mails()) == 2


def test_a_full_queue_of_mails_is_told_and_nothing_is_paid(tmp_path: Path) -> None:
    door = listening()
    client = httpx.Client(base_url=f"http://{address(door)}", timeout=20)
    with Crew(tmp_path, {"SHOP_OUT": str(tmp_path), "SHOP_MAIL_PLACES": "1"}) as crew, client:
        crew.start("shop", "uvicorn", "examples.invoices.shop:app", "--fd", str(door.fileno()), sockets=(door,))
        client.post("/orders", content=exported(*(an_order(n, paid_on=None) for n in (1, 2))).encode())
        assert client.post("/orders/1/paid").status_code == 202
        assert client.post("/orders/1/paid").status_code == 202, "it has its place already"
        refused = client.post("/orders/2/paid")
        assert (refused.status_code, refused.json()["error"]) == (503, "queue full")
        page = client.post("/orders/2/pay", headers={"Accept": "text/html"})
        assert (page.status_code, int(page.headers["Retry-After"]) >= 1) == (503, True)
        assert "Please try again in" in page.text
        assert client.get("/status").json() == {"orders": 2, "paid": 1, "waiting": 1, "dead": 0}


@pytest.mark.soak
@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["sqlite", "postgres", "redis"])
def test_after_the_day_the_shop_stays_open_until_ctrl_c(store: str) -> None:
    command = [sys.executable, "-m", "examples.invoices.demo", "--serve", "--store", store]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        lines = iter(demo.stdout.readline, "")
        opened = next((line for line in lines if "stays open" in line), "the demo ended by itself")
        found = re.search(r"http://127\.0\.0\.1:\d+", opened)
        assert found, opened
        page = httpx.get(found[0]).text
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0
    assert page.count(">Pay</button>") == COUNT
    with pytest.raises(httpx.ConnectError):
        httpx.get(found[0])


def test_the_orders_of_the_evening_are_unpaid_and_new() -> None:
    orders = list(read_orders(orders_of_the_evening().splitlines(keepends=True)))
    assert len({order.number for order in orders}) == COUNT
    assert {order.paid_on for order in orders} == {None}
    assert min(order.number for order in orders) > max(order.number for order in read_csv(make_orders.CSV))
    assert sum(order.email in REFUSED for order in orders) == 1


# the judge


def a_day(out: Path) -> Path:
    """What a day with three good orders and one refused one leaves behind; returns its CSV."""
    numbers = (1, 2, 3, 4)
    orders = {number: an_order(number, email=f"{number}@customers.example") for number in numbers[:3]}
    orders[4] = an_order(4, email=make_orders.REFUSED)
    for folder in ("mail/new", "invoices", "webhook/reports"):
        (out / folder).mkdir(parents=True)
    export = out / "orders.csv"
    export.write_text(exported(*orders.values(), orders[2]), encoding="utf-8")
    log: list[dict[str, object]] = [{"event": "refused", "address": make_orders.REFUSED}]
    for number in numbers[:3]:
        job, pdf = uuid4(), render(orders[number])
        (out / "invoices" / f"invoice-{number}.pdf").write_bytes(pdf)
        mail = mailing.message(orders[number], pdf, f"<{job}@shop.example>")
        (out / "mail" / "new" / f"{number}.eml").write_bytes(mail.as_bytes())
        (out / "webhook" / f"{job}.json").write_text(json.dumps({"order": number}))
        log += [{"event": "busy", "message_id": f"{job}"}]
    log += [{"event": "reply lost", "message_id": "<1>"}, {"event": "asked", "message_id": "<1>", "found": True}]
    (out / "mail" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    for hour, number in ((2, 3), (3, 4)):
        report_of(out, hour, orders=number, paid=number)
    return export


def report_of(out: Path, hour: int, **said: int) -> None:
    text = json.dumps({"night": f"2026-11-22T0{hour}:00:00+01:00"} | said)
    (out / "webhook" / "reports" / f"{uuid4()}.json").write_text(text)


def test_a_good_day_is_found_good(tmp_path: Path) -> None:
    found = audit(tmp_path, a_day(tmp_path), REFUSED, {})
    assert found == Findings(orders=4, blocks=5, sent=3, retries=3, dead=1, rerun=1, reports=2)


def lose_a_mail(out: Path) -> None:
    (out / "mail/new/2.eml").unlink()


def send_twice(out: Path) -> None:
    (out / "mail/new/9.eml").write_bytes((out / "mail/new/3.eml").read_bytes())


def spoil_a_pdf(out: Path) -> None:
    (out / "invoices/invoice-1.pdf").write_bytes(b"%PDF-1.7 another one")


def forget_the_team(out: Path) -> None:
    next((out / "webhook").glob("*.json")).unlink()


def try_the_refused_again(out: Path) -> None:
    with (out / "mail/log.jsonl").open("a") as log:
        log.write(json.dumps({"event": "refused", "address": make_orders.REFUSED}) + "\n")


def never_asked_again(out: Path) -> None:
    with (out / "mail/log.jsonl").open("a") as log:
        log.write(json.dumps({"event": "reply lost", "message_id": "<2>"}) + "\n")


def report_a_night_twice(out: Path) -> None:
    report_of(out, 3, orders=4, paid=4)


def report_too_few(out: Path) -> None:
    report_of(out, 4, orders=4, paid=3)


@pytest.mark.parametrize(
    ("spoil", "words", "lost", "duplicates"),
    [
        (lose_a_mail, "lost: no mail for order 2 to 2@customers.example (job 01a2)", 1, 0),
        (send_twice, "duplicate: order 3 got 2 mails: 3.eml", 0, 1),
        (spoil_a_pdf, "not the one filed for order 1", 0, 0),
        (forget_the_team, "the team was not told of order", 0, 0),
        (try_the_refused_again, "was tried 2 times", 0, 0),
        (never_asked_again, "nobody asked for it again", 0, 0),
        (report_a_night_twice, "the night of 2026-11-22T03:00:00+01:00 was reported 2 times", 0, 0),
        (report_too_few, "the last report says 3 orders were paid, all 4 are", 0, 0),
    ],
)
def test_a_bad_day_is_found_out(
    tmp_path: Path, spoil: Callable[[Path], None], words: str, lost: int, duplicates: int
) -> None:
    export = a_day(tmp_path)
    spoil(tmp_path)
    found = audit(tmp_path, export, REFUSED, {2: "01a2"})
    assert (found.lost, found.duplicates) == (lost, duplicates)
    assert words in "\n".join(found.wrong)


def test_what_services_counted_is_added_up_though_each_begins_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([3, 5, None, 2])

    def answer(_: httpx.Request) -> httpx.Response:
        count = next(said)
        if count is None:
            raise httpx.ConnectError("nobody listens")
        text = "# TYPE worker_jobs_total counter\n"
        for status, number in (("succeeded", count), ("dead", 1)):
            text += f'worker_jobs_total{{queue="mail",status="{status}"}} {number}\n'
        return httpx.Response(200, text=text)

    counters = Counters("http://shop.example")
    monkeypatch.setattr(counters, "_http", httpx.Client(transport=httpx.MockTransport(answer), base_url="http://a"))
    assert [counters.look() for _ in range(3)] == [True, True, False]
    counters.left()
    assert counters.look()
    assert counters.total("worker_jobs_total", queue="mail", status="succeeded") == 5 + 2
    assert counters.total("worker_jobs_total", queue="mail") == 5 + 2 + 2
