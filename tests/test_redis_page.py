"""docs/redis.md is true: its rights are enough and none too much, its tables are the code's, its program runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from holdfast import Holdfast
from holdfast.cli.shell import shell
from holdfast.errors import ConfigError, StoreError
from holdfast.job import Succeeded
from holdfast.policy import decide
from holdfast.store import Store
from holdfast.stores import open_store
from holdfast.stores.redis.durability import Server
from tests import servers
from tests.store.acts import PATIENCE, draft, hand, record, stored
from tests.store.everything import all_that_a_store_does
from tools.servers import Valkey

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "redis.md").read_text("utf-8")
ACL = re.findall(r"^(ACL SETUSER .*)$", PAGE, re.MULTILINE)
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
LIMIT = 60

pytestmark = pytest.mark.timeout(4 * LIMIT)


@pytest.fixture(scope="module")
def server() -> Valkey:
    return servers.lasting(Valkey())


@pytest.fixture
def admin(server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port, decode_responses=True) as admin:
        yield admin
        admin.flushall()


def _allow(admin: redis.Redis, lines: Sequence[str], *more: str) -> None:
    admin.execute_command("ACL", "SETUSER", "shop_app", "reset")
    for line in lines:
        admin.execute_command(*line.split())
    if more:
        admin.execute_command("ACL", "SETUSER", "shop_app", *more)


def _url(server: Valkey, user: str = "shop_app:change_me@", prefix: str = "shop") -> str:
    return f"redis://{user}127.0.0.1:{server.port}/0?prefix={prefix}"


async def _opened(url: str) -> Store:
    store = open_store(url)
    await store.open()
    return store


# --- rights


async def test_what_the_page_allows_is_enough_for_all_that_a_store_does(server: Valkey, admin: redis.Redis) -> None:
    _allow(admin, ACL)
    store = await _opened(_url(server) + "&wait=0")
    try:
        await all_that_a_store_does(store)
        assert not await store.wait(["nothing here"], 0.05)
    finally:
        await store.close()
    refused = [entry for entry in admin.acl_log() if entry["username"] == "shop_app"]
    assert [entry["object"] for entry in refused] == []
    store = await _opened(_url(server).replace("/0?", "/1?"))
    await store.close()


async def test_without_the_last_line_all_goes_on(server: Valkey, admin: redis.Redis) -> None:
    assert "+publish +subscribe" in ACL[-1]
    _allow(admin, ACL[:-1])
    store = await _opened(_url(server))
    try:
        await all_that_a_store_does(store)
        assert not await store.wait(["nothing here"], 0.05)
        await stored(store, draft(queue="something"))
        assert await store.wait(["something"], PATIENCE)
    finally:
        await store.close()


async def test_no_right_of_the_middle_lines_is_too_much_and_the_one_that_lacks_is_named(
    server: Valkey, admin: redis.Redis
) -> None:
    rights = [word for line in ACL[1:-1] for word in line.split()[3:] if word != "+multi"]
    assert len(rights) > 30
    for right in rights:
        _allow(admin, ACL, "-" + right[1:])
        with pytest.raises(StoreError, match=re.escape(f"ACL SETUSER shop_app {right} ")):
            await _opened(_url(server))
    assert admin.dbsize() == 0, "nothing is written before"


async def test_other_keys_than_those_of_the_prefix_are_forbidden(server: Valkey, admin: redis.Redis) -> None:
    _allow(admin, ACL)
    with pytest.raises(StoreError, match=r"ACL SETUSER shop_app ~\{other\}:\* ~\{other:\*"):
        await _opened(_url(server, prefix="other"))
    assert admin.dbsize() == 0


# --- the tables


def test_the_options_are_those_of_the_url() -> None:
    with pytest.raises(ConfigError, match=r"there is no option x=; there are ") as refusal:
        open_store("redis://cache.example/0?x=1")
    told = re.findall(r"\w+", str(refusal.value).partition("there are ")[2].partition(".")[0])
    named = re.findall(r"`(\w+)=(?:0`|`)", PAGE.partition("| in the URL")[2].partition("**The prefix")[0])
    assert len(told) > 10
    assert sorted(named) == sorted(told)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, "nothing"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "the last second or two"),
        ({"appendonly": "yes", "appendfsync": "no"}, "what its system had not written yet, half a minute or so"),
        ({"appendonly": "no", "save": "3600 1 …"}, "all since its last snapshot"),
        ({"appendonly": "no", "save": ""}, "everything"),
    ],
)
def test_what_a_setting_can_lose_is_what_the_log_says(settings: dict[str, str], said: str) -> None:
    row = ", ".join(f"`{name} {value}`" if value else f'`{name} ""`' for name, value in settings.items())
    assert re.search(rf"^\| {re.escape(row)} \| {re.escape(said)}[ ;]", PAGE, re.MULTILINE), row
    assert str(Server({}, settings).loses).startswith(said)


async def test_a_job_takes_as_much_memory_as_the_page_says(server: Valkey, admin: redis.Redis) -> None:
    found = re.search(r"some ([\d.]+) kB while it waits, and ([\d.]+) kB when it is finished", PAGE)
    assert found
    store = await _opened(_url(server, ""))
    try:
        before, number = admin.info("memory")["used_memory"], 3000
        await stored(store, *(draft(payload=b'[42,"ann@example.com"]') for _ in range(number)))
        waiting = (admin.info("memory")["used_memory"] - before) / number / 1000
        worker = await hand(store)
        while jobs := await worker.claim(500):
            await store.finish([decide(job, Succeeded(b'"ann@example.com"')) for job in jobs])
        finished = (admin.info("memory")["used_memory"] - before) / number / 1000
    finally:
        await store.close()
    for measured, told in zip((waiting, finished), map(float, found.groups()), strict=True):
        assert told / 2 < measured < told * 1.2, f"{measured:.2f} kB, and the page says {told}"


def test_a_process_has_as_many_connections_as_the_page_says(server: Valkey, admin: redis.Redis) -> None:
    assert "at most nine connections" in PAGE
    app = Holdfast(_url(server, ""))

    @app.task(name="shop.count")
    def count() -> None:
        count.using(delay=60).enqueue().cancel()

    def seen() -> Counter[str]:
        names = [entry["name"] for entry in admin.client_list()]
        return Counter(name.removeprefix("holdfast-") for name in names if name.startswith("holdfast-"))

    full = {"enqueue": 1, "claim": 1, "finish": 1, "listen": 2, "beat": 2, "work": 2}
    _until(lambda: not seen(), "the connections of other tests are gone")
    with app, app.worker():
        count.enqueue().result(timeout=LIMIT)
        _until(lambda: seen() == full, "all connections are there")


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < end, f"not after {LIMIT} s: {what}"
        time.sleep(0.05)


async def test_no_key_expires_but_a_hint_so_that_only_the_policies_that_the_page_names_delete_jobs(
    server: Valkey, admin: redis.Redis
) -> None:
    assert "no key of ours expires but `idle`" in " ".join(PAGE.split())
    store = await _opened(_url(server, ""))
    try:
        await all_that_a_store_does(store)
        assert not await store.wait(["nothing here"], 0.05)
        keys = list(admin.scan_iter(count=1000))
        assert {key.rpartition(":")[2] for key in keys if admin.ttl(key) >= 0} == {"idle"}
    finally:
        await store.close()


@pytest.mark.parametrize(("key", "stuck"), [("ready", "queued"), ("held:{worker}", "running")])
async def test_a_key_that_is_deleted_by_itself_costs_the_jobs_that_the_page_says(
    server: Valkey, admin: redis.Redis, key: str, stuck: str
) -> None:
    assert f"`…:{key.replace('{worker}', '…')}`" in PAGE
    store = await _opened(_url(server, ""))
    try:
        jobs = await stored(store, draft(priority=1), draft())
        worker = await hand(store)
        await worker.claim(1)
        assert admin.delete("{shop:mail}:" + key.format(worker=worker.id))
        await worker.retire()
        sweeper = await hand(store)
        got = [*await sweeper.reclaim(), *(job.id for job in await sweeper.claim())]
        [left] = [await record(store, job) for job in jobs if job not in got]
        assert left.state == stuck
    finally:
        await store.close()


# --- what is to be typed


def test_the_commands_of_the_page_work(server: Valkey, admin: redis.Redis) -> None:
    [wipe, delete] = COMMANDS
    app = Holdfast(_url(server, ""))
    app.queue("mail", max_size=10)
    with app:
        app.task(name="shop.send", queue="mail")(lambda: None).enqueue()
    ran = CliRunner().invoke(shell, shlex.split(delete.replace("cache.example", f"127.0.0.1:{server.port}"))[1:])
    assert ran.output == "holdfast: nothing to delete: no job matches\n"
    admin.set("{shopping}:meta", "another's")
    [pattern] = re.findall(r"--pattern '(.*?)'", wipe)
    ours = set(admin.scan_iter(pattern, count=1000))
    assert {"{shop}:meta", "{shop:mail}:jobs"} <= ours
    assert set(admin.scan_iter(count=1000)) - ours == {"{shopping}:meta"}


def test_the_outbox_of_the_page_makes_one_invoice_of_two_jobs(
    server: Valkey, admin: redis.Redis, tmp_path: Path
) -> None:
    [(program, printed)] = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "orders.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "orders.py"],
        cwd=tmp_path,
        env={**os.environ, "HOLDFAST_URL": _url(server, "")},
        text=True,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, printed), done.stderr
