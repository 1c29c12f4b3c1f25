"""What a server can lose is said when it is opened; and with ?wait= its replicas are waited for."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.errors import StoreAway
from holdfast.job import Outcome, State
from holdfast.store import Where
from holdfast.stores import open_store
from holdfast.stores.redis.durability import Server, tell_durability
from tests.flows.conftest import until
from tests.stores.redis_places import draft, events, opened, place, refusal, said
from tools.servers import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """A server whose settings may be changed."""
    with Valkey() as server:
        yield server


@pytest.mark.parametrize(
    ("settings", "info", "loses"),
    [
        ({"appendonly": "yes", "appendfsync": "always", "save": ""}, {}, "nothing"),
        ({"appendonly": "yes", "appendfsync": "everysec", "save": "3600 1"}, {}, "the last second or two"),
        ({"appendonly": "yes", "appendfsync": "no", "save": ""}, {}, "half a minute"),
        ({"appendonly": "no", "appendfsync": "everysec", "save": "3600 1"}, {}, "last snapshot (save 3600 1)"),
        ({"appendonly": "no", "appendfsync": "everysec", "save": ""}, {}, "everything"),
        ({}, {"aof_enabled": "1"}, "appendfsync is unknown"),
        ({}, {"aof_enabled": "0"}, "if it makes any"),
        ({}, {}, None),
    ],
)
def test_what_a_crash_loses_follows_from_the_settings(
    settings: dict[str, str], info: dict[str, str], loses: str | None
) -> None:
    assert loses == Server(info, settings).loses or (loses and loses in str(Server(info, settings).loses))


async def told(url: str, caplog: pytest.LogCaptureFixture, *, create: bool = True) -> list[tuple[int, str]]:
    """Level and words of the lines about what the server can lose."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "holdfast.store"):
        async with opened(url, create=create):
            pass
    return [(level, str(fields["message"])) for level, fields in events(caplog, "durability")]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_what_the_server_can_lose_is_said_when_it_is_opened(
    own: Valkey, caplog: pytest.LogCaptureFixture, protocol: int
) -> None:
    url = f"{own.url}?prefix=said&protocol={protocol}"
    [(level, words)] = await told(url, caplog)
    assert level == logging.WARNING
    assert "loses everything" in words
    said(own, "CONFIG", "SET", "save", "3600 1")
    try:
        [(level, words)] = await told(url, caplog)
        assert level == logging.INFO
        assert "all since its last snapshot (save 3600 1)" in words
    finally:
        said(own, "CONFIG", "SET", "save", "")


async def test_it_is_said_once_for_a_place_and_not_to_those_who_only_look(
    own: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "holdfast.store"):
        store = open_store(f"{own.url}?prefix=once")
        await store.open()
        twin = store.twin()
        await twin.open()
        await twin.close()
        await store.close()
    assert len(events(caplog, "durability")) == 1
    assert await told(f"{own.url}?prefix=once", caplog, create=False) == []


async def test_a_user_who_may_not_ask_is_told_that_it_is_unknown(own: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    said(own, "ACL", "SETUSER", "mute", "reset", "on", ">pw", "~*", "&*", "+@all", "-info", "-config", "-client")
    [(level, words)] = await told(f"redis://mute:pw@127.0.0.1:{own.port}?prefix=mute", caplog)
    assert level == logging.INFO
    assert "INFO and CONFIG GET are forbidden" in words


@pytest.mark.parametrize(
    ("info", "failing"),
    [
        ({"aof_last_write_status": "ok", "rdb_last_bgsave_status": "ok"}, None),
        ({"aof_last_write_status": "err", "rdb_last_bgsave_status": "ok"}, "the append-only file"),
        ({"aof_last_write_status": "ok", "rdb_last_bgsave_status": "err"}, "its snapshot"),
    ],
)
def test_a_disk_that_cannot_be_written_is_a_warning(
    caplog: pytest.LogCaptureFixture, info: dict[str, str], failing: str | None
) -> None:
    with caplog.at_level(logging.INFO, "holdfast.store"):
        tell_durability(Server(info, {"appendonly": "yes", "appendfsync": "always"}), place("redis://h"))
    [(level, fields)] = events(caplog, "durability")
    assert (level, fields["cannot_write"]) == (logging.WARNING if failing else logging.INFO, failing)


APP = """
from holdfast import Holdfast

jobs = Holdfast()

@jobs.task(run_in="process")
def errand():
    leaf.enqueue()  # in a process of its own, which opens the store

@jobs.task
def leaf():
    pass
"""


def test_a_service_of_many_processes_says_it_once(own: Valkey, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "enqueue.py").write_text("from app import errand\nfor _ in range(4): errand.enqueue()")
    url = f"{own.url}?prefix=service"
    how: Any = {
        "cwd": tmp_path,
        "env": {**os.environ, "HOLDFAST_URL": url, "PYTHONPATH": os.pathsep.join([str(Path.cwd() / "src"), "."])},
        "stderr": subprocess.STDOUT,
    }
    subprocess.run([sys.executable, "enqueue.py"], check=True, timeout=60, stdout=subprocess.DEVNULL, **how)
    log = tmp_path / "log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "holdfast", "worker", "--log", "kv", "--processes", "2", "app:jobs"]
        process = subprocess.Popen(command, stdout=out, **how)
    try:
        asyncio.run(asyncio.wait_for(succeeded(url, 8), 60))
        until(lambda: "event=durability" in log.read_text(), "what the server can lose")
    finally:
        process.terminate()
        process.wait(60)
    text = log.read_text()
    assert text.count("event=durability") == 1, text
    assert text.count("event=started") >= 2, text


async def succeeded(url: str, jobs: int) -> None:
    async with opened(url, create=False) as store:
        while len(await store.find(Where(states=[State.SUCCEEDED]))) < jobs:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# --- replicas


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Valkey, Valkey]]:
    """A primary and its replica."""
    with Valkey() as primary, Valkey(replica_of=primary) as replica:
        yield primary, replica


@contextmanager
def stopped(server: Valkey) -> Iterator[None]:
    """It neither answers nor confirms."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def waiting(primary: Valkey, replicas: int = 1, timeout: int = 300) -> str:
    return f"{primary.url}?prefix=w{uuid4().hex}&wait={replicas}&wait_timeout={timeout}"


PATIENT = 30_000


async def test_an_enqueue_that_replicas_confirm_is_accepted(pair: tuple[Valkey, Valkey]) -> None:
    async with opened(waiting(pair[0], timeout=PATIENT)) as store:
        [receipt] = await store.enqueue([draft()])
        assert receipt.created


async def test_an_enqueue_that_no_replica_confirms_is_away_and_may_be_repeated(pair: tuple[Valkey, Valkey]) -> None:
    primary, replica = pair
    url = waiting(primary)
    job = draft()
    async with opened(url) as store:
        with stopped(replica):
            with pytest.raises(StoreAway, match="only 0 of 1 replicas confirmed") as away:
                await store.enqueue([job])
            assert not away.value.certain
            assert len(await store.find(Where(ids=[job.id]))) == 1, "it is stored on the primary"
    async with opened(url.replace("wait_timeout=300", f"wait_timeout={PATIENT}")) as store:
        [receipt] = await store.enqueue([job])
        assert (receipt.answer, receipt.created) == ("accepted", False)


async def test_a_repeat_on_another_connection_is_not_confirmed_before_the_replica_has_it(
    pair: tuple[Valkey, Valkey],
) -> None:
    primary, replica = pair
    url = waiting(primary)
    job = draft()
    async with opened(url) as store:
        await store.stats()
    with stopped(replica):
        for _ in range(2):
            async with opened(url) as store:
                with pytest.raises(StoreAway, match="0 of 1"):
                    await store.enqueue([job])


async def test_callers_at_once_share_the_waiting(pair: tuple[Valkey, Valkey]) -> None:
    """Each for itself, one behind the other on the connection, they would wait 20 times as long."""
    primary, _ = pair
    async with opened(waiting(primary, timeout=PATIENT)) as store:
        said(primary, "CONFIG", "RESETSTAT")
        receipts = await asyncio.gather(*(store.enqueue([draft()]) for _ in range(20)))
        assert all(receipt.created for [receipt] in receipts)
        [calls] = re.findall(r"cmdstat_wait:calls=(\d+)", said(primary, "INFO", "commandstats"))
        assert int(calls) < 20


async def test_more_replicas_than_there_are_never_confirm(pair: tuple[Valkey, Valkey]) -> None:
    async with opened(waiting(pair[0], replicas=2)) as store:
        with pytest.raises(StoreAway, match=r"only [01] of 2 replicas"):
            await store.enqueue([draft()])


async def test_a_finish_that_no_replica_confirms_stands_and_is_said_once(
    pair: tuple[Valkey, Valkey], caplog: pytest.LogCaptureFixture
) -> None:
    primary, replica = pair
    url = waiting(primary)
    worker = uuid4()
    async with opened(url) as store:
        await store.register(worker, None, {})
        for _ in range(3):
            with suppress(StoreAway):  # on a busy machine the replica may take longer than that
                await store.enqueue([draft()])
        jobs = (await store.claim(worker, 1, ["q"], 10)).jobs
        done = [
            Outcome(job.id, job.fence, worker, "succeeded", State.SUCCEEDED, 1, 0, 0, 0, alone=False, keep=60_000)
            for job in jobs
        ]
        with caplog.at_level(logging.INFO, "holdfast.store"):
            with stopped(replica):
                for outcome in done[:2]:
                    [settled] = await store.finish([outcome])
                    assert settled.state is State.SUCCEEDED
            [(level, fields)] = events(caplog, "unreplicated")
            assert level == logging.WARNING
            assert (fields["replicas"], fields["wait"]) == (0, 1)
            while not events(caplog, "replicated"):
                await store.finish(done[2:])


async def test_what_waiting_needs_is_asked_of_the_acl(pair: tuple[Valkey, Valkey]) -> None:
    primary, _ = pair
    said(primary, "ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "&*", "+@all", "-wait")
    url = f"redis://app:pw@127.0.0.1:{primary.port}?prefix=acl"
    async with opened(url):
        pass
    assert "+wait" in await refusal(f"{url}&wait=1")
