"""A bad day of the invoice shop, in under a minute: `make demo`.

The mail server falters, a worker is killed, the service is restarted; then every number is checked.
With `--serve` (`make demo SERVE=1`) the shop then stays open, with new orders, until Ctrl-C; with `--store postgres`
(`make demo STORE=postgres`) orders and jobs are in a PostgreSQL that is started for the day; with `--store redis` the
orders are in SQLite, and their jobs in a Valkey that is started for the day.
"""

import argparse
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx

from examples.invoices import database
from examples.invoices.audit import Findings, audit, read_csv, read_log, read_reports
from examples.invoices.counters import Counters
from examples.invoices.evening import orders_of_the_evening
from examples.invoices.make_orders import CSV, REFUSED
from examples.invoices.processes import ROOT, Crew, address, children, listening
from tools.servers import Postgres, Valkey

OUT = Path(__file__).with_name("out")
DEADLINE = 90  # seconds for the whole day
SLOTS = 8  # jobs at once per worker process
HANDED_ON = 1.5  # seconds after which a service surely has what its processes counted: they tell it twice a second
UNSEEN = 2 * SLOTS  # attempts that may end after the last look at the metrics of a service that leaves
CLIENTS = 10
THINKING = 0.2  # seconds that a client waits before each request
OUTAGE = 5.0  # seconds of "try again later"
NIGHT = "*/5 * * * * *"  # on this day night falls every five seconds
SHOWN = 20  # findings at most; the first ones tell the most
BROKEN = (OSError, LookupError, RuntimeError, httpx.HTTPError, subprocess.SubprocessError)


class Day:
    """The scenes of the day; `play` has their order. Its processes end with `ending`."""

    def __init__(self, ending: ExitStack, database: str, jobs: str) -> None:
        self._ending = ending
        self._database = database  # URLs
        self._jobs = jobs
        self.wrong: list[str] = []
        self.dead: int | None = None  # by the queue, once the day is over
        self._start = time.monotonic()
        self._awaited = "the start"
        self._paid: list[Future[tuple[int, str]]] = []
        self._clients = ThreadPoolExecutor(CLIENTS)

    def play(self) -> None:
        """Raises one of BROKEN if the day cannot be played to its end."""
        signal.signal(signal.SIGALRM, self._too_late)
        signal.alarm(DEADLINE)
        try:
            self._play()
        finally:
            signal.alarm(0)
            self._clients.shutdown(cancel_futures=True)

    def _play(self) -> None:
        smtp, mail_api, webhook, shop, metrics = (listening() for _ in range(5))
        self._mail = httpx.Client(base_url=f"http://{address(mail_api)}", timeout=10)
        self._shop = httpx.Client(base_url=f"http://{address(shop)}", timeout=30)
        self._metrics = address(metrics)
        metrics.close()  # the workers listen there, one service after the other
        self.counters = Counters(f"http://{self._metrics}")
        environment = {
            "SHOP_OUT": str(OUT),
            "SHOP_DATABASE": self._database,
            "SHOP_JOBS": self._jobs,
            "SHOP_SMTP": address(smtp),
            "SHOP_MAIL_API": f"http://{address(mail_api)}",
            "SHOP_WEBHOOK": f"http://{address(webhook)}/invoices",
            "SHOP_REPORTS": f"http://{address(webhook)}/reports",
            "SHOP_NIGHT": NIGHT,
        }
        self._crew = self._ending.enter_context(Crew(OUT / "logs", environment))
        doors = ("--smtp", f"fd:{smtp.fileno()}", "--http", f"fd:{mail_api.fileno()}")
        provider = ("-m", "examples.invoices.mailserver", str(OUT / "mail"), *doors, "--refuse", REFUSED)
        self._crew.start("mailserver", "python", *provider, sockets=(smtp, mail_api))
        self._crew.start("webhook", *_web("webhook", webhook.fileno()), sockets=(webhook,))
        self._crew.start("shop", *_web("shop", shop.fileno()), sockets=(shop,))
        self._say("started", f"mail server, the team's webhook, the shop at {self._shop.base_url}")
        self._import_orders()
        self._start_worker()
        self._mail_server_is_busy()
        self._kill_a_worker()
        self._restart_the_service()
        self._wait_for_the_end()

    def stay_open(self) -> None:
        """The shop takes clicks until Ctrl-C. Raises one of BROKEN if a process of it ends by itself."""
        export = orders_of_the_evening().encode()
        self._shop.post("/orders", content=export).raise_for_status()
        print(f"The shop stays open: {self._shop.base_url} (Ctrl-C closes it)", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                self._crew.check()
                time.sleep(0.5)
        print("closing", flush=True)

    def _import_orders(self) -> None:
        answer = self._shop.post("/orders", content=CSV.read_bytes()).raise_for_status().json()
        self._say("import", "{orders} orders, {repeated} repeated ones skipped, {jobs} jobs".format(**answer))

    def _start_worker(self) -> None:
        options = ("--processes", "2", "--concurrency", str(SLOTS), "--metrics", self._metrics)
        self._worker = self._crew.start("worker", "holdfast", "worker", "examples.invoices.tasks:jobs", *options)
        (OUT / "worker.pid").write_text(f"{self._worker}\n")
        self._until("the workers' metrics", self.counters.look)
        self._say("worker", f"holdfast worker with 2 processes; http://{self._metrics}/metrics")

    def _mail_server_is_busy(self) -> None:
        self._until("40 mails", lambda: self._mails() >= 40)
        self._mail.put("/faults", json={"busy": True}).raise_for_status()
        self._say("451", f"the mail server says 'try again later' for {OUTAGE:g} s")
        self._customers_pay()
        over = time.monotonic() + OUTAGE
        self._until("100 refused deliveries", lambda: time.monotonic() > over and self._count("busy") >= 100)
        self._mail.put("/faults", json={}).raise_for_status()
        self._say("250", f"the mail server is well again after {self._count('busy')} refused deliveries")

    def _customers_pay(self) -> None:
        chance = random.Random(1)
        orders = {order.number: order for order in read_csv(CSV)}
        late = [number for number, order in orders.items() if order.paid_on is None]
        early = [number for number, order in orders.items() if order.paid_on is not None]
        repeats = chance.choices(late, k=60) + chance.choices(early, k=20)
        requests = late + repeats
        chance.shuffle(requests)
        self._paid = [self._clients.submit(self._pay, number) for number in requests]
        self._say("paid", f"{CLIENTS} clients post {len(late)} payments and {len(repeats)} repetitions")

    def _pay(self, number: int) -> tuple[int, str]:
        time.sleep(THINKING)
        answer = self._shop.post(f"/orders/{number}/paid").raise_for_status()
        return number, answer.json()["job"]

    def _kill_a_worker(self) -> None:
        enough = self._mails() + 40
        self._until("40 more mails", lambda: self._mails() >= enough)
        # The server takes messages and does not say so. When more than one process can hold are in that
        # state, each process has at least one, so whichever is killed dies between acceptance and end.
        self._mail.put("/faults", json={"hold": True}).raise_for_status()
        self._until("accepted mails without a reply", lambda: self._count("held") > SLOTS)
        self._until("two worker processes", lambda: len(children(self._worker)) == 2)
        victim = children(self._worker)[0]
        os.kill(victim, signal.SIGKILL)
        self._until("the killed worker's connections to end", lambda: self._count("reply lost") > 0)
        self._mail.put("/faults", json={}).raise_for_status()
        cut = self._count("reply lost")
        self._say("kill -9", f"worker process {victim}: {cut} mails were accepted, their jobs not yet done")

    def _restart_the_service(self) -> None:
        enough = self._mails() + 40
        self._until("40 more mails", lambda: self._mails() >= enough)
        code = self._crew.stop("worker", meanwhile=self.counters.look)
        self.counters.left()
        self._say("SIGTERM", f"the service has drained, exit code {code}")
        if code != 0:
            self.wrong.append(f"the drained service ended with exit code {code}, see {_shown(OUT / 'logs')}")
        self._start_worker()

    def _wait_for_the_end(self) -> None:
        self._until("every client to be answered", lambda: all(paid.done() for paid in self._paid))
        self._check_answers()
        self._until("every invoice to be settled", lambda: self._status()["waiting"] == 0)
        self._say("done", "nothing is waiting any more")
        self.dead = self._status()["dead"]
        done = datetime.now(UTC)
        self._until("the night's report", lambda: self._last_night() >= done)
        self._say("night", "the team has the report of the day")
        last = time.monotonic() + HANDED_ON
        self._until("a last look at the metrics", lambda: self.counters.look() and time.monotonic() > last)

    def _check_answers(self) -> None:
        jobs: defaultdict[int, set[str]] = defaultdict(set)
        for number, job in (paid.result() for paid in self._paid):
            jobs[number].add(job)
        several = {number: ids for number, ids in jobs.items() if len(ids) > 1}
        self.wrong.extend(f"order {number} was given several jobs: {ids}" for number, ids in several.items())

    def _until(self, awaited: str, condition: Callable[[], bool]) -> None:
        self._awaited = awaited
        shown = time.monotonic()
        while not condition():
            self._crew.check()
            if time.monotonic() - shown > 2:
                shown = time.monotonic()
                self._say("", f"{self._mails()} mails, {self._count('busy')} refused deliveries")
            time.sleep(0.1)

    def _too_late(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"the day is not over after {DEADLINE} s: still waiting for {self._awaited}")

    def _last_night(self) -> datetime:
        with suppress(ValueError):  # the newest is half written
            if reports := read_reports(OUT / "webhook" / "reports"):
                return datetime.fromisoformat(reports[-1]["night"])
        return datetime.min.replace(tzinfo=UTC)

    def _mails(self) -> int:
        return sum(1 for _ in (OUT / "mail" / "new").glob("*.eml"))

    def _count(self, event: str) -> int:
        return sum(each["event"] == event for each in read_log(OUT / "mail" / "log.jsonl"))

    def _status(self) -> dict[str, int]:
        status: dict[str, int] = self._shop.get("/status").raise_for_status().json()
        return status

    def _say(self, what: str, text: str) -> None:
        print(f"{time.monotonic() - self._start:5.1f} s  {what:<8} {text}", flush=True)


def _web(module: str, fd: int) -> tuple[str, ...]:
    return ("uvicorn", f"examples.invoices.{module}:app", "--fd", str(fd), "--no-access-log")


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def jobs_of_orders(url: str) -> dict[int, str]:
    """Which job was to send which invoice, by the shop's own table: to name it, not to judge it."""
    try:
        with database.connected(url) as db:
            return database.invoice_jobs(db)
    except Exception as error:  # noqa: BLE001  # of either driver: there may be no table yet
        print(f"no names of jobs: {error}")
        return {}


@contextmanager
def opened(store: str) -> Generator[tuple[str, str]]:
    """The URLs of the day's orders and of its jobs. A server is private, and gone with the demo."""
    file = f"sqlite:///{OUT}/shop.db"
    match store:
        case "postgres":
            with Postgres() as server:
                subprocess.run([sys.executable, "-m", "holdfast", "migrate", "--url", server.dsn], check=True, cwd=ROOT)
                print(f"PostgreSQL for the day, as long as it lasts: {server.dsn}", flush=True)
                yield server.dsn, server.dsn
        case "redis":
            with Valkey(persistent=True) as server:
                print(f"Valkey for the day, as long as it lasts: {server.url}", flush=True)
                yield file, server.url
        case _:
            yield file, file


def report(found: Findings, counters: Counters) -> None:
    """The table, what the workers' counters say beside the witnesses, and what is wrong."""
    print(f"{'':>22}  {'seen':<6} counted")
    for name, number, counted, remark in (
        ("orders", found.orders, None, f"{found.blocks} in the CSV, {found.blocks - found.orders} are repetitions"),
        ("invoices sent", found.sent, _ended(counters, "succeeded"), f"a mail each in {_shown(OUT / 'mail' / 'new')}"),
        ("retries", found.retries, _ended(counters, "failed"), "'try again later', by the mail server's log"),
        ("dead", found.dead, _ended(counters, "dead"), f"{REFUSED} does not exist: tried once, kept to look at"),
        ("re-run after kill -9", found.rerun, None, "accepted before the kill: asked, and not sent again"),
        ("duplicates", found.duplicates, None, "by the mails on disk"),
        ("lost", found.lost, None, "by the CSV and the mails on disk"),
        ("nightly reports", found.reports, _ticks(counters), "one each night, as the team was given them"),
    ):
        print(f"{name:>22}: {number:<6} {'' if counted is None else counted:<7} {remark}")
    print('counted: worker_jobs_total{queue="mail"} and worker_schedule_ticks_total of both services, by /metrics')
    print(f"PDFs in {_shown(OUT / 'invoices')} (a long one: invoice-10150.pdf), logs in {_shown(OUT / 'logs')}")
    for sentence in found.wrong[:SHOWN]:
        print(f"WRONG: {sentence}")
    if len(found.wrong) > SHOWN:
        print(f"WRONG: and {len(found.wrong) - SHOWN} more")


def _ended(counters: Counters, status: str) -> int:
    return counters.total("worker_jobs_total", queue="mail", status=status)


def _ticks(counters: Counters) -> int:
    return counters.total("worker_schedule_ticks_total", outcome="made")


@contextmanager
def alone() -> Generator[None]:
    """Raises RuntimeError if another demo runs in this checkout."""
    folder = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another demo is running in this checkout; wait for its end") from None
        yield
    finally:
        os.close(folder)


def play_and_check(store: str, *, serve: bool) -> int:
    """Exit code 0 only if every number is right."""
    if OUT.exists():
        shutil.rmtree(OUT)
    (OUT / "logs").mkdir(parents=True)
    print(f"A bad day at the invoice shop. All of it stays in {_shown(OUT)}", flush=True)
    with opened(store) as (orders, jobs), ExitStack() as ending:
        day = Day(ending, orders, jobs)
        try:
            day.play()
        except BROKEN as error:
            day.wrong.append(f"the day broke off: {error}")
            serve = False
        if not serve:
            ending.close()
        right = check(day, jobs_of_orders(orders))
        if serve:
            day.stay_open()
    return 0 if right else 1


def check(day: Day, jobs: dict[int, str]) -> bool:
    """Prints what the witnesses say; whether all of it is right."""
    found = audit(OUT, CSV, frozenset({REFUSED}), jobs)
    if day.dead not in (None, found.dead):
        day.wrong.append(f"the queue says that {day.dead} jobs are dead, the mail server says {found.dead}")
    for name, seen, status in (("sent", found.sent, "succeeded"), ("dead", found.dead, "dead")):
        counted = _ended(day.counters, status)
        if not 0 <= seen - counted <= UNSEEN:
            day.wrong.append(f"{seen} invoices are {name}, and the workers counted {counted}")
    if not found.reports:
        day.wrong.append("night never fell: there is no report")
    if not (found.retries and found.rerun):
        day.wrong.append("nothing was retried, or nothing re-run: this was no bad day")
    found.wrong[:0] = day.wrong
    report(found, day.counters)
    return not found.wrong


def main() -> int:
    """Plays the day; every process that it started has ended when this returns."""
    parser = argparse.ArgumentParser(description="A bad day of the invoice shop.")
    parser.add_argument("--serve", action="store_true", help="keep the shop open afterwards, until Ctrl-C")
    parser.add_argument("--store", choices=("sqlite", "postgres", "redis"), default="sqlite", help="where jobs are")
    wanted = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        with alone():
            return play_and_check(wanted.store, serve=wanted.serve)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BROKEN as error:
        print(f"WRONG: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
