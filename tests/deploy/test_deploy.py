"""What is in deploy/ keeps to what there is: metrics, labels, commands, options, events; and Prometheus takes it."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml

from holdfast.cli.shell import shell
from holdfast.job import QueueTerms, State
from holdfast.observe.health import Seen, Vitals
from holdfast.observe.metrics import Shown, families
from holdfast.observe.tally import STATUSES, Counts, Totals
from holdfast.store import QueueStats, Stats

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
BOARD = json.loads((DEPLOY / "grafana.json").read_text())
MANIFESTS = {
    one["kind"]: one
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for one in yaml.safe_load_all(path.read_text())
}
FROM_PROMETHEUS = {"job", "instance", "namespace", "le"}  # labels that scraping adds, and that histograms have
OUTCOMES = {"made", "skipped", "missed"}


class Family(NamedTuple):
    kind: str
    labels: set[str]


def real() -> dict[str, Family]:
    """Every series that a worker shows, by name."""
    vitals = Vitals(number=0, slots=10, running=1, memory=1, lag=0.0, still=0.0, claimed=0.0, held=True, unheard=False)
    queue = QueueStats(
        "mail", QueueTerms(), edited=False, counts={State.QUEUED: 1}, admitted=None, dropped=0, oldest_due=None
    )
    found: dict[str, Family] = {}
    for family in families(Shown(busy(), Seen([vitals], answers=True), Stats(0, [queue]), "0")):
        for sample in family.samples:
            known = found.setdefault(sample.name, Family(family.type, set()))
            known.labels.update(sample.labels)
    return found


def busy() -> Totals:
    """Where everything that is counted was counted once."""
    counts, totals = Counts(), Totals()
    for status in STATUSES:
        counts.ended("mail", "shop.send", status, 1.0)
    for event in ("crashes", "rescued", "stale"):
        counts.event(event, "mail")
    for outcome in OUTCOMES:
        counts.event(f"tick-{outcome}")
    counts.called("claim", 0.1)
    news = counts.take()
    assert news is not None
    cells = [[*cell[:-1], 1] for cell in news.cells]  # one has waited, too
    totals.add(news._replace(cells=cells, lengths=[*news.lengths, ["late", "", 1.0, *news.lengths[0][3:]]]))
    return totals


REAL = real()


def expressions() -> dict[str, str]:
    """All PromQL there is, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in ALERTS}
    for panel in BOARD["panels"]:
        found |= {
            f"{panel['title']} {target['refId']} ({panel['id']})": target["expr"] for target in panel.get("targets", ())
        }
    found["keda"] = MANIFESTS["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
    return found


def named(text: str) -> set[str]:
    return set(re.findall(r"\bworker_\w+", text))


def test_what_is_named_is_measured() -> None:
    assert len(REAL) > 30
    assert [
        (where, sorted(named(text) - REAL.keys())) for where, text in expressions().items() if named(text) - REAL.keys()
    ] == []
    assert all(named(text) for text in expressions().values())
    variables = [one["query"]["query"] for one in BOARD["templating"]["list"] if one["type"] == "query"]
    notes = [note for rule in ALERTS for note in rule["annotations"].values()]
    assert (
        named(" ".join([*variables, *notes, (DEPLOY / "README.md").read_text()]))
        <= REAL.keys() | families_of_histograms()
    )


def families_of_histograms() -> set[str]:
    return {name.removesuffix("_bucket") for name in REAL if name.endswith("_bucket")}


def test_what_is_measured_is_shown() -> None:
    shown = {
        name.removesuffix("_bucket").removesuffix("_count") for text in expressions().values() for name in named(text)
    }
    ours = {re.sub("_(bucket|count|sum)$", "", name) for name in REAL if not name.endswith("_created")}
    assert sorted(ours - shown) == []


@pytest.mark.parametrize(("where", "text"), expressions().items(), ids=str)
def test_labels_are_those_that_the_metrics_have(where: str, text: str) -> None:
    for name, selector in re.findall(r"\b(worker_\w+)(?:\{([^}]*)\})?", text):
        for label, _, value in re.findall(r'(\w+)(=~?|!=)"([^"]*)"', selector):
            assert label in REAL[name].labels | FROM_PROMETHEUS, f"{where}: {name} has no label {label}"
            if label in ("status", "outcome"):
                assert set(value.split("|")) <= {*STATUSES, *OUTCOMES}, where
    for group in re.findall(r"\bby \(([^)]*)\)", text):
        known = set[str]().union(*(REAL[name].labels for name in named(text)))
        assert {label.strip() for label in group.split(",")} <= known | FROM_PROMETHEUS, where


@pytest.mark.parametrize(("where", "text"), expressions().items(), ids=str)
def test_counters_are_looked_at_as_rates_and_gauges_are_not(where: str, text: str) -> None:
    for call, name in re.findall(r"\b(rate|increase)\((worker_\w+)", text):
        assert REAL[name].kind in ("counter", "histogram"), f"{where}: {call} of {name}"
    for name in named(text):
        if REAL[name].kind != "gauge":
            assert re.search(rf"\b(rate|increase)\({name}", text), f"{where}: {name} only ever grows"


def test_legends_name_labels_that_their_series_have() -> None:
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            known = set[str]().union(*(REAL[name].labels for name in named(target["expr"])))
            assert labels <= known | FROM_PROMETHEUS, panel["title"]


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(DEPLOY / "holdfast.service")
    return found


# --- what people are told to run


def told() -> Iterator[str]:
    """Every command of ours that is named anywhere."""
    texts = [note for rule in ALERTS for note in rule["annotations"].values()]
    texts += [path.read_text() for path in DEPLOY.rglob("*") if path.is_file()]
    for text in texts:
        yield from re.findall(r"`(holdfast [^`]+)`", text)
    for kind, container in (("Job", "migrate"), ("Deployment", "worker")):
        [one] = MANIFESTS[kind]["spec"]["template"]["spec"]["containers"]
        assert one["name"] == container
        yield shlex.join(one["command"])
    yield unit()["Service"]["ExecStart"].removeprefix("/srv/shop/venv/bin/")


@pytest.mark.parametrize("line", sorted(set(told())))
def test_commands_and_their_options_exist(line: str) -> None:
    words = shlex.split(re.sub(r"\{\{.*?\}\}", "mail", line).replace("HOST:PORT", "127.0.0.1:9100"))[1:]
    command, context = parsed(shell, words)
    assert command.name != "holdfast"
    assert context.args == [], f"{line}: too many words"


def parsed(command: click.Command, words: list[str]) -> tuple[click.Command, click.Context]:
    """The command that is meant, with its arguments parsed and nothing run."""
    while isinstance(command, click.Group) and words:
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, command.make_context(command.name, list(words))


def test_events_that_are_named_are_on_the_page_of_errors() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    events = re.findall(r"event=([\w-]+)|says `([\w-]+)`", (DEPLOY / "alerts.yml").read_text())
    assert len(events) >= 4
    assert [event for pair in events for event in pair if event and f"| `{event}` |" not in page] == []


# --- the units and the manifests


def deadline(words: list[str]) -> float:
    context = parsed(shell, words)[1]
    return float(context.params["deadline"])


def test_both_leave_a_worker_its_deadline_and_ten_seconds() -> None:
    service = unit()["Service"]
    assert float(service["TimeoutStopSec"]) > deadline(shlex.split(service["ExecStart"])[1:]) + 10
    pod = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > deadline(pod["containers"][0]["command"][1:]) + 10


def test_the_unit_waits_until_it_is_ready_and_signals_the_supervisor_alone() -> None:
    service = unit()["Service"]
    assert (service["Type"], service["KillMode"], service["Restart"]) == ("notify", "mixed", "always")
    assert float(service["WatchdogSec"]) >= 10


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd here")
    text = (DEPLOY / "holdfast.service").read_text().replace("/srv/shop/venv/bin/holdfast", "/bin/true")
    (tmp_path / "shop-worker.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "shop-worker.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_probes_ask_the_endpoint_where_it_listens() -> None:
    [worker] = MANIFESTS["Deployment"]["spec"]["template"]["spec"]["containers"]
    [port] = worker["ports"]
    assert parsed(shell, worker["command"][1:])[1].params["metrics"] == f"0.0.0.0:{port['containerPort']}"
    probes = [worker[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} == {port["name"]}
    assert [probe["path"] for probe in probes] == ["/live", "/live", "/ready"]
    [scraped] = MANIFESTS["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert scraped["port"] == port["name"]


def test_the_manifests_are_about_the_same_pods() -> None:
    deployment = MANIFESTS["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["PodMonitor"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    listed = set(MANIFESTS["Kustomization"]["resources"])
    assert listed == {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}


def test_scaling_counts_the_slots_that_a_pod_has() -> None:
    [worker] = MANIFESTS["Deployment"]["spec"]["template"]["spec"]["containers"]
    params = parsed(shell, worker["command"][1:])[1].params
    [trigger] = MANIFESTS["ScaledObject"]["spec"]["triggers"]
    assert float(trigger["metadata"]["threshold"]) == params["processes"] * params["concurrency"] * 60


# --- Prometheus itself


def promtool(*words: str, cwd: Path) -> str:
    if not shutil.which("promtool"):
        pytest.skip("no promtool here: Debian's package prometheus has it")
    done = subprocess.run(["promtool", *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_alerts_and_they_speak_when_they_should(tmp_path: Path) -> None:
    for path in (DEPLOY / "alerts.yml", *Path(__file__).parent.glob("*_test.yml")):
        shutil.copy(path, tmp_path)
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml", cwd=tmp_path)
    said = promtool("test", "rules", "alerts_test.yml", "paused_test.yml", cwd=tmp_path)
    assert said.count("SUCCESS") == 2
    texts = "".join(path.read_text() for path in tmp_path.glob("*_test.yml"))
    assert [rule["alert"] for rule in ALERTS if rule["alert"] not in texts] == []


def test_promtool_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m").replace("$", "")}
        for number, text in enumerate(expressions().values())
    ]
    (tmp_path / "board.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "board.yml", cwd=tmp_path)
