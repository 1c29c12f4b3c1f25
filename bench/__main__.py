"""`python -m bench [PART …]`: measures and prints; figures are this machine's at this moment, aims are in brackets.

STORE=postgres in the environment measures on PostgreSQL, in a server of its own with fsync on; STORE=redis on Valkey or
Redis, in one of its own with AOF everysec; else on SQLite.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench.bounds import bounds
from bench.measure import say, until
from bench.observing import observing
from bench.places import Places, PostgresServer, places
from bench.pool import pool
from bench.postgres import held, producers
from bench.recovery import recovery
from bench.scheduled import scheduled
from bench.stores import drain, enqueue, latency


def imports(folder: Path) -> None:
    """Import time, beside an empty interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=environment)
        return time.perf_counter() - start

    run("import holdfast")  # once, so that the byte code is there, as after an installation
    bare = statistics.median(run("pass") for _ in range(7))
    full = statistics.median(run("import holdfast") for _ in range(7))
    say("import holdfast (median of 7)", f"{(full - bare) * 1000:.0f} ms", "[<= 60 ms]")


def slots(folder: Path) -> None:
    """Jobs in processes of their own: the cost of one, and how long one waits for its process."""
    os.environ["HOLDFAST_URL"] = f"sqlite:///{folder}/slots.db"
    from bench.app import jobs, slot, spin

    def waited() -> float:
        asked = time.time()
        return (slot.enqueue().result(60) - asked) * 1000

    with jobs, jobs.worker(concurrency=1):
        say("process job, enqueue to start, cold", f"{waited():.0f} ms")
        time.sleep(1)
        say("process job, enqueue to start, warm", f"{statistics.median(waited() for _ in range(50)):.1f} ms")
        began = [job.result(60) for job in jobs.enqueue_many(slot.bind() for _ in range(500))]
        say("process jobs that wait already, one slot", f"{(max(began) - min(began)) / 499 * 1000:.2f} ms/job")
        waits: list[float] = []
        for _ in range(7):
            ended = spin.enqueue()
            until(lambda ended=ended: ended.status().finished, "the end by force", every=0.005)
            waits.append(waited())
            time.sleep(0.7)
        say("  enqueue to start after an end by force", f"{statistics.median(waits):.0f} ms", "[<= 100 ms]")


ANY_STORE: Mapping[str, Callable[[Places, Path], None]] = {
    "enqueue": enqueue,
    "drain": drain,
    "latency": latency,
    "observing": observing,
}
SQLITE: Mapping[str, Callable[[Path], None]] = {
    "imports": imports,
    "bounds": bounds,
    "slots": slots,
    "scheduled": scheduled,
    "recovery": recovery,
    "pool": pool,
}
POSTGRES: Mapping[str, Callable[[PostgresServer, Path], None]] = {"producers": producers, "held": held}


def main() -> int:
    kind = os.environ.get("STORE") or "sqlite"
    with places(kind) as stores:
        parts: dict[str, Callable[[Path], None]] = {name: partial(part, stores) for name, part in ANY_STORE.items()}
        if isinstance(stores, PostgresServer):
            parts |= {name: partial(part, stores) for name, part in POSTGRES.items()}
        elif kind == "sqlite":
            parts |= SQLITE
        names = sys.argv[1:] or list(parts)
        unknown = [name for name in names if name not in parts]
        if unknown:
            print(f"STORE={kind} has no part {unknown[0]!r}; there are {', '.join(parts)}", file=sys.stderr)
            return 2
        print(f"holdfast bench: {stores.name}, python {sys.version.split()[0]}, {os.cpu_count()} cores")
        for name in names:
            with tempfile.TemporaryDirectory(prefix=f"holdfast-bench-{name}-") as folder:
                parts[name](Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
