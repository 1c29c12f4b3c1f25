"""`holdfast enqueue`: one job from the shell, checked before anything is stored."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from holdfast.clock import moment
from tests.cli.shop import Run, Shop

APP = """
from datetime import datetime
from holdfast import Holdfast, Retry

jobs = Holdfast("sqlite:///shop.db", modules=["elsewhere"], retry=Retry(max_attempts=4))

@jobs.task(queue="mail", tags=["eu"])
def send_invoice(order_id: int, email: str = "") -> str:
    return email

@jobs.task
async def remind(at: datetime, *, loud: bool = False) -> None: ...
"""
ELSEWHERE = """
from till import jobs

@jobs.task
def resize(path: str, *widths: int) -> None: ...
"""


@pytest.fixture(autouse=True)
def app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app of this shop, in a module `till` of the working directory."""
    (folder / "till.py").write_text(APP)
    (folder / "elsewhere.py").write_text(ELSEWHERE)
    monkeypatch.setenv("HOLDFAST_APP", "till:jobs")


def test_it_prints_the_id_of_a_job_that_is_stored(run: Run, shop: Shop) -> None:
    made = UUID(run("enqueue", "till.send_invoice", "42", '"ann@example.com"').stdout.strip())
    record = shop.record(made)
    assert json.loads(record.payload) == {"args": [42, "ann@example.com"]}
    assert (record.task, record.queue, record.tags, record.state) == ("till.send_invoice", "mail", ("eu",), "queued")
    assert record.terms.max_attempts == 4


def test_options_are_those_of_using(run: Run, shop: Shop) -> None:
    before = datetime.now(UTC)
    options = ["--queue=slow", "--delay=2h", "--priority=-7", "--tag=a", "--tag=b", "--timeout", "90s"]
    record = shop.record(run("enqueue", *options, "till.send_invoice", "--kwargs", '{"order_id": 1}').stdout.strip())
    assert (record.queue, record.priority, record.tags) == ("slow", -7, ("a", "b"))
    assert record.terms.timeout == 90_000
    assert record.state == "scheduled"
    assert timedelta(hours=1.9) < moment(record.due_at) - before < timedelta(hours=2.1)
    assert json.loads(record.payload) == {"kwargs": {"order_id": 1}}


def test_at_takes_an_instant(run: Run, shop: Shop) -> None:
    made = run("enqueue", "--at", "2099-01-01T00:00:00+01:00", "till.send_invoice", "1").stdout.strip()
    assert moment(shop.record(made).due_at) == datetime(2098, 12, 31, 23, tzinfo=UTC)


def test_negative_numbers_and_typed_arguments(run: Run, shop: Shop) -> None:
    made = run("enqueue", "till.send_invoice", "-5").stdout.strip()
    assert json.loads(shop.record(made).payload) == {"args": [-5]}
    arguments = ["till.remind", '"2026-11-22T14:03:22Z"', "--kwargs", '{"loud": true}']
    assert shop.record(run("enqueue", *arguments).stdout.strip()).state == "queued"


def test_tasks_of_other_modules_are_known(run: Run, shop: Shop) -> None:
    made = run("enqueue", "elsewhere.resize", '"a.png"', "80", "160").stdout.strip()
    assert json.loads(shop.record(made).payload) == {"args": ["a.png", 80, 160]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["till.send_invoice"], "missing a required argument: 'order_id'"),
        (["till.send_invoice", "1", '"x"', "2"], "too many positional arguments"),
        (["till.send_invoice", '"one"'], "order_id"),
        (["till.send_invoice", "1", "--kwargs", '{"mail": "x"}'], "unexpected keyword argument 'mail'"),
        (["till.send_invoice", "1", "ann@example.com"], """as a text it is written '"ann@example.com"'"""),
        (["till.send_invoice", "--kwargs", "order_id=1"], "--kwargs 'order_id=1' is not JSON"),
        (["till.send_invoice", "--kwargs", "[1]"], "is not an object"),
        (["till.send_invoce", "1"], "did you mean till.send_invoice"),
        (["zzz", "1"], "there are elsewhere.resize, till.remind, till.send_invoice"),
        (["till.send_invoice", "1", "--quee", "x"], "No such option '--quee'"),
        (["till.send_invoice", "1", "--delay", "soon"], "'--delay': 'soon': not a duration"),
        (["till.send_invoice", "1", "--delay", "-1"], "'--delay': '-1': a duration must be zero or more"),
        (["till.send_invoice", "1", "--at", "2h"], "'--at': '2h': not a time"),
        (["till.send_invoice", "1", "--at", "2026-11-22T14:03:22"], "has no time zone"),
        (["till.send_invoice", "1", "--priority", "101"], "priority=101"),
        (["till.send_invoice", "1", "--queue", "a b"], "queue='a b'"),
        (["till.send_invoice", "1", "--timeout", "0"], "timeout=0"),
        (["till.send_invoice", "1", "--delay", "1", "--at", "2099-01-01T00:00:00Z"], "exclude each other"),
        (["till.send_invoice", "1", f'"{"x" * 1_100_000}"'], "the limit is 1,048,576"),
        (["till.remind", '"tomorrow"'], "at"),
        ([], "Missing argument 'TASK'"),
    ],
)
def test_what_does_not_fit_is_2_and_stores_nothing(run: Run, shop: Shop, arguments: list[str], words: str) -> None:
    result = run("enqueue", *arguments, fails=True)
    assert result.exit_code == 2
    assert words in result.stderr
    assert shop.states() == {}


def test_an_app_in_memory_is_refused(run: Run, folder: Path) -> None:
    (folder / "brief.py").write_text("from holdfast import Holdfast\njobs = Holdfast('memory://')\n")
    result = run("enqueue", "--app", "brief:jobs", "brief.x", fails=True)
    assert result.exit_code == 2
    assert "the job would end with this command" in result.stderr


def test_the_app_comes_from_the_flag_first(run: Run, folder: Path) -> None:
    (folder / "other.py").write_text("from holdfast import Holdfast\njobs = Holdfast('sqlite:///other.db')\n")
    result = run("enqueue", "--app", "other:jobs", "till.send_invoice", "1", fails=True)
    assert "the app has none" in result.stderr


def test_no_app_names_every_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDFAST_APP")
    result = run("enqueue", "till.send_invoice", "1", fails=True)
    assert result.exit_code == 2
    assert all(place in result.stderr for place in ("module:attribute", "HOLDFAST_APP", "[tool.holdfast]"))


def test_a_job_may_have_an_end(run: Run, shop: Shop) -> None:
    made = run("enqueue", "--expires=5m", "--deadline=2h", "till.send_invoice", "1").stdout.strip()
    record = shop.record(made)
    assert record.expires_at is not None
    assert record.deadline_at is not None
    assert (record.expires_at - record.enqueued_at, record.deadline_at - record.enqueued_at) == (300_000, 7_200_000)
    document = json.loads(run("job", "--json", made, "--url", shop.url).stdout)
    assert document["expires_at"] < document["deadline_at"]
    shown = run("job", made, "--url", shop.url).stdout
    assert "   expires 20" in shown
    assert "   deadline 20" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--expires=soon"], "'--expires': 'soon': not a duration"),
        (["--deadline=2020-01-01T00:00:00Z"], "'--deadline': '2020-01-01T00:00:00Z': that is over"),
        (
            ["--expires=5m", "--delay=1h"],
            "expires=5 m 0 s: the job is not due before that, but in 1 h 0 m; give a later",
        ),
    ],
)
def test_an_end_that_makes_no_sense_stores_nothing(run: Run, shop: Shop, options: list[str], words: str) -> None:
    result = run("enqueue", *options, "till.send_invoice", "1", fails=True)
    assert result.exit_code == 2
    assert words in result.stderr
