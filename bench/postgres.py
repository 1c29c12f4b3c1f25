"""What is measured on PostgreSQL alone: committing producers with and without notifications, and a held snapshot."""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from bench.measure import percentile, say
from bench.places import PostgresSchema, PostgresServer

PRODUCERS = 200
ROUNDS, ROUND = 3, 6  # so many, each so many seconds, in turns

RATE, EVERY = 1000, 0.01  # jobs a second, and seconds between two enqueues
BEFORE = 15.0  # seconds of the baseline
HELD = float(os.environ.get("BENCH_HELD", "60"))  # seconds that the snapshot is held; the aim speaks of minutes
SPAN = 10.0  # seconds over which a percentile is taken
RECOVERY = 90.0


def producers(server: PostgresServer, folder: Path) -> None:
    """Transactions of others that enqueue one job each, with the wake-up and with a function in its place that does
    nothing; nobody claims.
    """
    from tools.servers import installed

    program = installed() / "pgbench"
    if not program.exists():
        print(f"  no {program}: producers were not measured")
        return
    kinds = {"off": server.fresh(folder, "off"), "on": server.fresh(folder, "on")}
    kinds["off"].rows(
        f'CREATE OR REPLACE FUNCTION "{kinds["off"].schema}".holdfast_wake(queues text[], moment bigint) RETURNS void '
        "LANGUAGE sql AS 'SELECT'"
    )
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind, place in kinds.items():
        place.rows("CREATE TABLE orders (id bigserial PRIMARY KEY, total float8)")
        place.rows(f'LISTEN "holdfast_{place.schema}"')
        (folder / kind).write_text(_script(place.schema))
    for _ in range(ROUNDS):
        for kind, place in kinds.items():
            rates[kind].append(_committed(program, folder / kind, place.dsn))
    on, off = (statistics.median(rates[kind]) for kind in ("on", "off"))
    say(f"{PRODUCERS} committing producers, notifications off", f"{off:,.0f}/s")
    say(f"{PRODUCERS} committing producers, notifications on", f"{on:,.0f}/s", f"ratio {on / off:.2f} [>= 0.9]")


def _script(schema: str) -> str:
    job = '[{"task": "bench.app.noop", "args": [1]}]'
    return (
        f'BEGIN;\nINSERT INTO "{schema}".orders (total) VALUES (random());\n'
        f"SELECT * FROM \"{schema}\".holdfast_enqueue('{job}');\nEND;\n"
    )


def _committed(program: Path, script: Path, dsn: str) -> float:
    command = [program, "--no-vacuum", "-c", str(PRODUCERS), "-j", "2", "-T", str(ROUND), "-f", script, dsn]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"tps = ([0-9.]+)", said)
    if found is None:
        raise RuntimeError(said)
    return float(found[1])


def held(server: PostgresServer, folder: Path) -> None:
    """Jobs at a steady rate, while someone else's transaction keeps a snapshot, so that nothing can be cleaned up."""
    asyncio.run(_held(server.fresh(folder, "held")))


async def _held(place: PostgresSchema) -> None:
    import psycopg

    async with _service(place) as claims:
        await asyncio.sleep(BEFORE)
        before = claims.since(SPAN)
        say("claim p99, nothing held", f"{before.p99:.2f} ms", f"{before.rate:,.0f} jobs/s")
        async with await psycopg.AsyncConnection.connect(place.dsn) as other:
            await other.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            await other.execute("SELECT 1")
            for _ in range(int(HELD // SPAN)):
                await asyncio.sleep(SPAN)
                during = claims.since(SPAN)
                print(f"    p50 {during.p50:.2f} p99 {during.p99:.2f} ms, {during.rate:,.0f} jobs/s")
        say(
            f"claim p99, snapshot held for {HELD:.0f} s",
            f"{during.p99:.2f} ms",
            f"ratio {during.p99 / before.p99:.2f} [<= 3], rate {during.rate / before.rate:.2f} [>= 0.80]",
        )
        freed = time.monotonic()
        while (after := claims.since(2)).p99 > 1.5 * before.p99 and time.monotonic() < freed + RECOVERY:  # noqa: ASYNC110
            await asyncio.sleep(1)
        say("  back to normal after", f"{time.monotonic() - freed:.0f} s", f"p99 {after.p99:.2f} ms [<= 60 s]")


class Seen:
    """Claims that found jobs, of the last seconds."""

    def __init__(self, claims: list[tuple[float, float, int]], seconds: float) -> None:
        times = [took * 1000 for _, took, _ in claims] or [0.0]
        self.p50, self.p99 = percentile(times, 0.50), percentile(times, 0.99)
        self.rate = sum(found for _, _, found in claims) / seconds


class Claims:
    """When each ended, how long it took, and how many jobs it found."""

    def __init__(self) -> None:
        self.all: list[tuple[float, float, int]] = []

    def since(self, seconds: float) -> Seen:
        first = time.monotonic() - seconds
        return Seen([claim for claim in self.all if claim[0] >= first], seconds)


@asynccontextmanager
async def _service(place: PostgresSchema) -> AsyncIterator[Claims]:
    """One that enqueues and one that claims and finishes, each with a store of its own."""
    claims = Claims()
    tasks = [asyncio.create_task(_produce(place.url)), asyncio.create_task(_consume(place.url, claims))]
    try:
        yield claims
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _produce(url: str) -> None:
    from holdfast import Holdfast

    client = Holdfast(url)
    send = client.task(name="bench.app.noop")(_job)
    loop = asyncio.get_running_loop()
    due = loop.time()
    with client:
        while True:
            due += EVERY
            await client.aenqueue_many(send.bind(number) for number in range(int(RATE * EVERY)))
            await asyncio.sleep(max(0, due - loop.time()))


async def _consume(url: str, claims: Claims) -> None:
    from holdfast.job import Succeeded
    from holdfast.policy import decide
    from holdfast.stores import open_store

    store, worker, ticket = open_store(url), uuid4(), 0
    await store.open()
    await store.register(worker, None, {})
    beaten = time.monotonic()
    while True:
        start = time.monotonic()
        taken = await store.claim(worker, ticket + 1, None, 100)
        if not taken.jobs:
            await store.wait(None, 0.1)
        else:
            now = time.monotonic()
            claims.all.append((now, now - start, len(taken.jobs)))
            ticket += 1
            await store.finish([decide(claim, Succeeded(b"null")) for claim in taken.jobs])
        if start > beaten + 2:
            beaten = start
            await store.beat([worker])


async def _job(number: int) -> None: ...
