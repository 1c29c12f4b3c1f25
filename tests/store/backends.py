"""Every store that the conformance suite runs on: a name, and how to make a fresh one. A new store is one line here."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from holdfast.clock import Clock
from holdfast.store import Store
from holdfast.stores import open_store
from tests import servers
from tests.servers.places import Database, Places

Make = Callable[[Path, Clock], AbstractContextManager[Store]]
SCHEMA = 'Job\'s "own" place; {} :x'  # whoever forgets to quote it fails everywhere


HISTORIES = 40


class Backend(NamedTuple):
    """How a store in a fresh place is made; its time stands still, and moves with `shift`."""

    bare: Make  # no schema
    ready: Make  # migrated, no jobs, not open
    histories: int = HISTORIES  # random ones that `make test` runs; fewer where they take long, all in `make soak`


def _local(url: Callable[[Path], str], histories: int = HISTORIES) -> Backend:
    """A store without a server."""

    @contextmanager
    def bare(folder: Path, clock: Clock) -> Iterator[Store]:
        yield open_store(url(folder), clock)

    @contextmanager
    def ready(folder: Path, clock: Clock) -> Iterator[Store]:
        store = open_store(url(folder), clock)
        asyncio.run(_migrate(store))
        yield store

    return Backend(bare, ready, histories)


async def _migrate(store: Store) -> None:
    await store.migrate()


def _still(database: Database, clock: Clock) -> Store:
    """A store of PostgreSQL, whose time stands still from its migration on."""
    store = open_store(database.url, clock)
    migrate = store.migrate

    async def and_freeze(*, dry_run: bool = False) -> Sequence[str]:
        ran = await migrate(dry_run=dry_run)
        if not dry_run:
            database.freeze()
        return ran

    store.migrate = and_freeze  # type: ignore[method-assign]
    return store


def _postgres(places: Callable[[], Places], histories: int) -> Backend:
    @contextmanager
    def bare(_: Path, clock: Clock) -> Iterator[Store]:
        with places().bare(SCHEMA) as database:
            yield _still(database, clock)

    @contextmanager
    def ready(_: Path, clock: Clock) -> Iterator[Store]:
        with places().ready(SCHEMA, frozen=True) as database:
            yield _still(database, clock)

    return Backend(bare, ready, histories)


BACKENDS: dict[str, Backend] = {
    "memory": _local(lambda _: "memory://"),
    "sqlite": _local(lambda folder: f"sqlite:///{folder}/jobs.db?durability=normal", 12),
    "postgres": _postgres(servers.postgres, 8),
    "pooled": _postgres(servers.pooled, 4),  # an older PostgreSQL, behind pgbouncer
}

# Through the pooler all tests run in `make soak`, and these always: what a connection could remember from one
# transaction to the next.
POOLED = {"test_claim", "test_enqueue", "test_machine", "test_open_migrate", "test_register_beat", "test_wait"}
