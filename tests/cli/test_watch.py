"""`holdfast job ID --watch` and `holdfast workers`: a job followed to its end, and who runs jobs."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from holdfast.cli import follow, show
from holdfast.cli.shell import shell
from holdfast.client.operating import Operating
from holdfast.errors import StoreAway
from holdfast.job import Failed, Failure, Note, Succeeded
from tests.cli.shop import Run, Shop


@pytest.fixture
def happens(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What happens between the looks of who follows a job."""

    def script(*acts: Callable[[], object]) -> None:
        left = iter(acts)

        def ended(operating: Operating, id: UUID, timeout: float) -> bool:
            next(left, _more_looks_than_acts)()
            return True

        monkeypatch.setattr(Operating, "ended", ended)

    return script


def _more_looks_than_acts() -> None:
    pytest.fail("it goes on looking at a job that has ended")


def note(**said: Any) -> Note:
    return Note(uuid4(), 0, uuid4(), **said)


@pytest.fixture
def url(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    return shop.url


def _texts(output: str) -> list[str]:
    """The lines without their times."""
    return [line if line.startswith(" ") else line[10:] for line in output.splitlines()[1:]]


def test_a_job_is_followed_to_its_end(shop: Shop, url: str, happens: Callable[..., None]) -> None:
    job = shop.resize.enqueue("a.png").id
    failed = Failed(Failure("KeyError", "'sku'\x1b[2J", ""))
    lines = note(progress=0.5, text="half of it", lines=((0, "first \u202e"), (0, "second")))
    happens(lambda: None, lambda: shop.after(job, failed), shop.jobs.job(job).cancel)
    result = CliRunner().invoke(shell, ["job", str(job), "--watch"])
    assert result.exit_code == 1, "it was cancelled"
    assert result.output.splitlines()[0] == f"shop.resize   {job}   queue default"
    first, second, third = _texts(result.output)
    assert first.startswith("▤ queued")
    assert second.startswith(r"◷ scheduled   attempt 1 of 3: KeyError: 'sku'\x1b[2J; due in ")
    assert third.startswith("⊘ cancelled")

    job = shop.resize.enqueue("b.png").id
    happens(lambda: shop.said(job, lines), lambda: _finished(shop, job))
    result = CliRunner().invoke(shell, ["job", str(job), "--watch"])
    assert result.exit_code == 0, result.output
    texts = _texts(result.output)
    assert texts[0].startswith("▤ queued")
    assert texts[1].startswith("▶ running   attempt 1 of 3 on worker ")
    assert texts[2:5] == ["  first ⟪RLO⟫", "  second", "50 % half of it"]
    assert texts[5].startswith("✓ succeeded   in ")
    assert texts[6] == '          {"width": 80}'
    assert len(texts) == 7, "nothing is told twice"


def test_times_are_those_of_what_happened(
    shop: Shop, url: str, happens: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.resize.enqueue("a.png").id
    shop.said(job, note(lines=((0, "one"), (0, "two"))))
    started = shop.record(job).started_at
    assert started is not None
    monkeypatch.setattr(show, "now", lambda: started + 3 * 3_600_000)
    happens(lambda: _finished(shop, job))
    result = CliRunner().invoke(shell, ["job", str(job), "--watch"])
    running, one, two, ended, *_ = result.output.splitlines()[1:]
    assert (one[10:], two[10:]) == ("  one", "  two")
    assert running.startswith(f"{show.utc(started)[11:19]}  ▶ running")
    assert ended.startswith(f"{show.utc(shop.record(job).finished_at or 0)[11:19]}  ✓ succeeded")


def test_whoever_watches_is_told_once_why_nobody_begins_it(
    shop: Shop, url: str, happens: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.send.enqueue(1)
    shop.jobs.pause("mail", reason="the provider is down")
    happens(lambda: None, lambda: monkeypatch.setattr(follow, "LONG", 0.0), lambda: None, lambda: None, job.cancel)
    lines = CliRunner().invoke(shell, ["job", str(job.id), "--watch"]).output.splitlines()
    (why,) = [line for line in lines if "why: " in line]
    assert "  why: queue mail is paused since " in why
    assert lines.index(why) == 2, "it waits longer than a moment, first"


def _finished(shop: Shop, id: UUID) -> None:
    import asyncio

    from holdfast.app import parts_of
    from holdfast.job import held_as
    from holdfast.policy import decide

    record = shop.record(id)
    assert record.worker is not None

    async def finish() -> None:
        store = parts_of(shop.jobs).link.store.twin()
        await store.open()
        await store.finish([decide(held_as(record, record.worker or id), Succeeded(b'{"width":80}'))])
        await store.close()

    asyncio.run(finish())


def test_a_dead_job_tells_its_traceback_and_is_1(shop: Shop, url: str, happens: Callable[..., None]) -> None:
    happens()
    result = CliRunner().invoke(shell, ["job", str(shop.dead()), "--watch"])
    assert result.exit_code == 1
    assert "✕ dead   attempt 1 of 3: TimeoutError: no \\x1b[31mroute" in result.output
    assert "            File shop.py" in result.output
    assert all(line.isprintable() for line in result.output.splitlines())


def test_each_change_is_an_object(run: Run, shop: Shop, url: str, happens: Callable[..., None]) -> None:
    job = shop.resize.enqueue("a.png").id
    happens(lambda: None, lambda: shop.after(job, Succeeded(b"1")))
    found = [json.loads(line) for line in run("job", str(job), "--watch", "--json").stdout.splitlines()]
    assert [one["state"] for one in found] == ["queued", "succeeded"]
    assert found[1]["result"] == 1


def test_a_store_that_is_away_for_a_while_is_asked_again(
    run: Run, shop: Shop, url: str, happens: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise StoreAway("no answer from the store")

    job = shop.resize.enqueue("a.png").id
    monkeypatch.setattr(follow, "AWAY_PAUSE", 0.0)
    happens(away, away, lambda: shop.after(job, Succeeded(b"1")))
    result = run("job", str(job), "--watch")
    assert result.stderr == "no answer from the store; trying again\n", "said once"
    assert "✓ succeeded" in result.stdout


def test_a_job_that_is_deleted_while_it_is_watched_is_4(shop: Shop, url: str, happens: Callable[..., None]) -> None:
    job = shop.resize.enqueue("a.png")
    happens(job.delete)
    result = CliRunner().invoke(shell, ["job", str(job.id), "--watch"])
    assert result.exit_code == 4
    assert f"no job {job.id}" in result.output


def test_a_job_that_waits_says_why(run: Run, shop: Shop, url: str) -> None:
    job = shop.send.enqueue(1).id
    assert "  why        no worker is live" in run("job", str(job)).stdout
    shop.jobs.pause("mail", reason="the provider\u202e is down")
    assert "  why        queue mail is paused since " in (text := run("job", str(job)).stdout)
    assert "(the provider⟪RLO⟫ is down)" in text
    assert "why  " not in run("job", str(shop.send.using(delay="1h").enqueue(2).id)).stdout


# --- workers


def test_no_worker_is_told_beside_the_output(run: Run, shop: Shop, url: str) -> None:
    shop.resize.enqueue("a.png")
    result = run("workers")
    assert result.stdout == ""
    assert result.stderr.startswith("no worker is at work on sqlite")


def test_a_worker_says_what_it_serves_and_leaves(
    run: Run, shop: Shop, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop.jobs.worker(queues=["mail", "slow"], concurrency=7):
        (row,) = run("workers").stdout.splitlines()
        name, own, state, slots, queues, tasks, *_, beat, since = row.split("\t")
        assert (state, slots, queues, tasks) == ("live", "7", "mail,slow", "2")
        assert ":" in name
        assert beat.endswith("Z")
        assert since.endswith("Z")
        assert run("workers", "-q").stdout == f"{own}\n"
        found = json.loads(run("workers", "--json").stdout)
        assert (found["id"], found["state"], found["facts"]["queues"]) == (own, "live", ["mail", "slow"])
        monkeypatch.setattr(show, "on_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", "200")
        heads, line = run("workers").stdout.splitlines()
        assert heads.split()[:3] == ["WORKER", "ID", "STATE"]
        assert "● live" in line
        monkeypatch.undo()
        monkeypatch.setenv("HOLDFAST_URL", url)
    assert run("workers").stdout == ""
    assert run("workers", "--all").stdout.split("\t")[2] == "left"
    assert run("workers", "--json", "-q", fails=True).exit_code == 2
