"""`holdfast worker`: its options are checked before anything starts. What it does is tested with the supervisor."""

import json
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.shop import Run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the supervisor would have been started with; it leaves with 0."""
    calls: list[dict[str, Any]] = []
    fake = SimpleNamespace(run=lambda **options: calls.append(options) or 0)
    monkeypatch.setitem(sys.modules, "holdfast.cli.supervise", fake)  # type: ignore[arg-type]
    return calls


def test_the_defaults(run: Run, started: list[dict[str, Any]]) -> None:
    run("worker", "shop:jobs")
    assert started == [
        {
            "app": "shop:jobs",
            "queues": None,
            "strict": False,
            "concurrency": 10,
            "processes": 1,
            "deadline": 10.0,
            "style": None,
            "level": "info",
            "arguments": False,
            "max_jobs": None,
            "max_memory": None,
            "stall_limit": 300.0,
            "metrics": None,
        }
    ]


def test_every_option_arrives(run: Run, started: list[dict[str, Any]]) -> None:
    sizes = ["--concurrency", "3", "--processes", "2", "--deadline", "1m"]
    run("worker", "--queues", "mail,slow", "--strict", *sizes, "--log", "json", "--log-level", "warning", "shop:jobs")
    assert (started[0]["queues"], started[0]["strict"]) == (["mail", "slow"], True)
    assert (started[0]["concurrency"], started[0]["processes"], started[0]["deadline"]) == (3, 2, 60.0)
    assert (started[0]["style"], started[0]["level"]) == ("json", "warning")


def test_the_style_of_the_log_may_be_in_the_environment(
    run: Run, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_LOG", "json")
    run("worker", "--log-arguments", "shop:jobs")
    run("worker", "--log", "kv", "shop:jobs")
    assert [(one["style"], one["arguments"]) for one in started] == [("json", True), ("kv", False)]
    monkeypatch.setenv("HOLDFAST_LOG", "xml")
    result = run("worker", "shop:jobs", fails=True)
    assert result.exit_code == 2
    assert "HOLDFAST_LOG, or log under [tool.holdfast], is 'xml': there are human, kv, json" in result.stderr


def test_the_app_may_be_in_the_environment(
    run: Run, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_APP", "till:jobs")
    run("worker")
    assert started[0]["app"] == "till:jobs"


def test_the_supervisors_exit_code_is_ours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from holdfast.cli.shell import shell

    monkeypatch.setitem(sys.modules, "holdfast.cli.supervise", SimpleNamespace(run=lambda **_: 3))  # type: ignore[arg-type]
    assert CliRunner().invoke(shell, ["worker", "shop:jobs"]).exit_code == 3


def test_the_workers_processes_have_the_flags_of_the_interpreter() -> None:
    program = """
import json
from uuid import uuid4
from holdfast.cli import supervise
from holdfast.worker.child import Handed

class Supervisor:
    def __init__(self, command, *_, **options):
        print(json.dumps(command(Handed(3, 4, 5), uuid4())))
    async def run(self):
        return 0

supervise.Supervisor = Supervisor
supervise.run(
    app="shop:jobs", queues=None, concurrency=1, processes=1, deadline=1.0, style="kv", level="info"
)
"""
    command = [sys.executable, "-O", "-Wonce", "-c", program]
    said = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True).stdout
    python, *flags = json.loads(said)
    assert python == sys.executable
    assert {"-O", "-Wonce"} <= set(flags[: flags.index("-m")])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--concurrency", "0"], "'--concurrency': 0"),
        (["--concurrency", "many"], "'--concurrency': 'many'"),
        (["--processes", "0"], "'--processes': 0"),
        (["--processes", "-1"], "'--processes': -1"),
        (["--deadline", "-1"], "'--deadline': '-1'"),
        (["--deadline", "soon"], "'--deadline': 'soon'"),
        (["--deadline", "inf"], "'--deadline': 'inf'"),
        (["--queues", "a b"], "--queues='a b'"),
        (["--queues", ","], "--queues names no queue"),
        (["--strict"], "--strict: in which order? Name the queues, as in --queues urgent,mail --strict"),
        (["--log", "xml"], "'--log': 'xml'"),
        (["--log-level", "loud"], "'--log-level': 'loud'"),
    ],
)
def test_nonsense_is_2_and_starts_nothing(
    run: Run, started: list[dict[str, Any]], options: list[str], words: str
) -> None:
    result = run("worker", *options, "shop:jobs", fails=True)
    assert result.exit_code == 2
    assert words in result.stderr
    assert started == []


def test_no_app_is_2(run: Run, started: list[dict[str, Any]]) -> None:
    result = run("worker", fails=True)
    assert result.exit_code == 2
    assert "HOLDFAST_APP" in result.stderr
    assert started == []


def test_where_metrics_are_answered_is_checked_before_anything_starts(
    run: Run, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("worker", "shop:jobs", "--metrics", "9100", fails=True)
    assert result.exit_code == 2
    assert "--metrics 9100: give HOST:PORT, such as 127.0.0.1:9100" in result.stderr
    monkeypatch.setenv("HOLDFAST_METRICS", "127.0.0.1:9999")
    run("worker", "shop:jobs")
    run("worker", "shop:jobs", "--metrics", "[::1]:9100")
    assert [call["metrics"] for call in started] == ["127.0.0.1:9999", "[::1]:9100"]


def test_a_port_in_use_is_refused_and_nothing_is_started(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        at = f"127.0.0.1:{other.getsockname()[1]}"
        result = run("worker", "shop:jobs", "--metrics", at, fails=True)
    assert result.exit_code == 2
    assert f"--metrics {at}: cannot listen there" in result.stderr


def test_the_banner_says_what_is_to_come_and_where() -> None:
    from holdfast.cli.supervise import banner, served

    options = {"app": "shop:jobs", "concurrency": 5, "deadline": 10, "queues": ["mail", "slow"], "strict": True}
    facts: dict[str, Any] = {"store": "sqlite:///x.db", "tasks": ["a", "b"]}

    def cron(schedules: dict[str, str | None]) -> list[str]:
        said = served({**facts, "schedules": schedules}, options, 2, 0.5, "127.0.0.1:9100")
        return [line for line in banner(said) if line.startswith("  cron")]

    assert cron({}) == []
    later, over = "2999-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00"
    assert cron({"a": later, "b": None}) == ["  cron     2: a next 2999-01-01 00:00:00 UTC  …"]
    assert cron({"late": over}) == ["  cron     1: late due now"]
    text = "\n".join(banner(served(facts, options, 2, 0.5, "127.0.0.1:9100")))
    for part in (
        "10 slots in 2 processes",
        "mail slow, strictly",
        "2: a  b",
        "http://127.0.0.1:9100/metrics",
        "0.50 s",
    ):
        assert part in text
