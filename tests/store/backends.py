"""Every store that the conformance suite runs on: a name, and how to make a fresh one. A new store is one line here."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from holdfast.clock import Clock
from holdfast.store import Store
from holdfast.stores import masked, open_store
from holdfast.stores.postgres import PostgresStore
from holdfast.stores.postgres.address import address_of
from tests import servers
from tests.servers.places import Database, Places, freeze

Make = Callable[[Path, Clock], AbstractContextManager[Store]]
SCHEMA = 'Job\'s "own" $$ place; {} :x'  # whoever forgets to quote it fails everywhere


class Backend(NamedTuple):
    """How a store in a fresh place is made; its time stands still, and moves with `shift`."""

    bare: Make  # no schema
    ready: Make  # migrated, no jobs, not open


def _local(url: Callable[[Path], str]) -> Backend:
    """A store without a server."""

    @contextmanager
    def bare(folder: Path, clock: Clock) -> Iterator[Store]:
        yield open_store(url(folder), clock)

    @contextmanager
    def ready(folder: Path, clock: Clock) -> Iterator[Store]:
        store = open_store(url(folder), clock)
        asyncio.run(_migrate(store))
        yield store

    return Backend(bare, ready)


async def _migrate(store: Store) -> None:
    await store.migrate()


class StillPostgres(PostgresStore):
    """A store whose time stands still from the migration on."""

    async def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        ran = await super().migrate(dry_run=dry_run)
        if not dry_run:
            freeze(self._place.address.conninfo, self._place.schema)
        return ran


def _postgres(places: Callable[[], Places]) -> Backend:
    def store(database: Database) -> Store:
        return StillPostgres(address_of(urlsplit(database.url), masked))

    @contextmanager
    def bare(_: Path, __: Clock) -> Iterator[Store]:
        with places().bare(SCHEMA) as database:
            yield store(database)

    @contextmanager
    def ready(_: Path, __: Clock) -> Iterator[Store]:
        with places().ready(SCHEMA, frozen=True) as database:
            yield store(database)

    return Backend(bare, ready)


BACKENDS: dict[str, Backend] = {
    "memory": _local(lambda _: "memory://"),
    "sqlite": _local(lambda folder: f"sqlite:///{folder}/jobs.db?durability=normal"),
    "postgres": _postgres(servers.postgres),
    "pooled": _postgres(servers.pooled),  # an older PostgreSQL, behind pgbouncer
}
