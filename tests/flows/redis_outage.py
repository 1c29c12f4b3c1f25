"""A Redis server that a test may stop, cut short, fill and replace; and whether the promises were kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote
from uuid import UUID

import pytest
import redis

from holdfast.job import Record
from holdfast.store import Where
from holdfast.stores import open_store
from tests.flows.conftest import Ledger, until
from tests.flows.outage import took_effect_once
from tools.servers import Valkey


def own(**settings: object) -> Valkey:
    """A server of the test's own, with an append-only file; skips where only a foreign one was given."""
    try:
        return Valkey(persistent=True, **settings)  # type: ignore[arg-type]
    except LookupError as error:
        if os.environ.get("TEST_REDIS_URL"):
            pytest.skip(f"it stops and kills its server, and TEST_REDIS_URL's is not ours: {error}")
        raise


def place(server: Valkey, options: str = "") -> str:
    """The URL of the store of that server."""
    return f"redis://127.0.0.1:{server.port}/0{options and '?'}{options}"


def short_leases(url: str, length: int) -> None:
    """Makes the store, with leases of so many ms, before anybody uses it."""
    asyncio.run(open_store(url).migrate())
    server, _, prefix = url.partition("?prefix=")
    with redis.Redis.from_url(server) as connection:
        assert connection.hset(f"{{{unquote(prefix) or 'holdfast'}}}:meta", "lease", length) == 0


def records(url: str, jobs: Sequence[UUID]) -> Mapping[UUID, Record]:
    """Those that there are."""

    async def ask() -> Mapping[UUID, Record]:
        store = open_store(url)
        await store.open(create=False)
        try:
            return {row.id: row for row in await store.find(Where(ids=jobs), None, len(jobs) + 1)}
        finally:
            await store.close()

    return asyncio.run(ask())


def all_succeed(url: str, jobs: Sequence[UUID], seconds: float = 60) -> None:
    """Waits until the jobs stand as succeeded."""

    def others() -> list[UUID]:
        found = records(url, jobs)
        return [job for job in jobs if job not in found or found[job].state != "succeeded"]

    until(lambda: not others(), f"{len(jobs)} jobs succeeded", seconds)


def ran_once(url: str, jobs: Sequence[UUID], ledger: Ledger, seconds: float = 60) -> None:
    """Waits until all jobs stand as succeeded; each took effect once."""
    until(lambda: ledger.count("effect") >= len(jobs), f"{len(jobs)} effects", seconds)
    all_succeed(url, jobs, seconds)
    took_effect_once(jobs, ledger)


def written(server: Valkey) -> int:
    """Bytes that the append-only file has now, which is all that the server has answered."""
    until(lambda: "aof_buffer_length:0\r" in server.say("INFO", "persistence"), "an empty buffer of the server")
    return _appended(server).stat().st_size


def cut_short(server: Valkey, size: int) -> None:
    """Kills the server as a power cut would: what was written last never reached the disk. It starts again."""
    server.kill()
    with _appended(server).open("r+b") as file:
        assert file.seek(0, os.SEEK_END) > size, "nothing was written since"
        file.truncate(size)
    server.start()


def _appended(server: Valkey) -> Path:
    """Since Redis 7 the file has parts, the last of which grows."""
    [*_, last] = sorted([*server.folder.glob("appendonly.aof"), *server.folder.glob("appendonlydir/*.incr.aof")])
    return last


def loads_slowly(server: Valkey, seconds: int) -> None:
    """Stops the server; when it starts again it is so long in reading its data."""
    keys = seconds * 500
    server.say("EVAL", f"for n = 1, {keys} do redis.call('SET', 'filler:' .. n, string.rep('x', 200)) end", 0)
    server.say("BGREWRITEAOF")
    until(lambda: "aof_rewrite_in_progress:0\r" in server.say("INFO", "persistence"), "the end of a rewrite")
    server.stop()
    server.settings |= {"key_load_delay": 2000, "loading_process_events_interval_bytes": 1024}  # microseconds for a key
    server.start(loaded=False)
    del server.settings["key_load_delay"], server.settings["loading_process_events_interval_bytes"]
