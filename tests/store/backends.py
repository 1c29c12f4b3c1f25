"""Every store that the conformance suite runs on: a name, and how to make a fresh one. A new store is one line here."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from holdfast.clock import Clock, FakeClock
from holdfast.store import Store
from holdfast.stores import open_store
from tests import servers
from tests.servers.places import Database, Places
from tests.servers.prefixes import Prefixes

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


STANDS_STILL = f"local function now(shift) return {FakeClock().now()} + shift end"


@contextmanager
def standing_still() -> Iterator[None]:
    """In this process, the time of stores of Redis stands still, where a FakeClock does."""
    from holdfast.stores.redis.place import Place

    ready = Place.__post_init__

    def and_freeze(place: Place) -> None:
        ready(place)
        place.clock = STANDS_STILL

    with patch.object(Place, "__post_init__", and_freeze):
        yield


def _redis(prefixes: Callable[[], Prefixes], histories: int, *, declared: bool = False) -> Backend:
    """`declared`: the server refuses what a script does to another queue's keys than to those that it names."""

    @contextmanager
    def bare(_: Path, __: Clock) -> Iterator[Store]:
        with prefixes().bare() as prefix:
            store = open_store(prefix.url)
            place = store._place  # type: ignore[attr-defined]  # noqa: SLF001
            place.clock, place.shebang = STANDS_STILL, declared
            yield store

    @contextmanager
    def ready(folder: Path, clock: Clock) -> Iterator[Store]:
        with bare(folder, clock) as store:
            asyncio.run(_migrate(store))
            yield store

    return Backend(bare, ready, histories)


BACKENDS: dict[str, Backend] = {
    "memory": _local(lambda _: "memory://"),
    "sqlite": _local(lambda folder: f"sqlite:///{folder}/jobs.db?durability=normal", 12),
    "postgres": _postgres(servers.postgres, 5),
    "pooled": _postgres(servers.pooled, 2),  # an older PostgreSQL, behind pgbouncer
    "redis": _redis(servers.valkey, 8),
    "redis7": _redis(servers.redis7, 4),  # the machine's own
    "slots": _redis(servers.slots, 4, declared=True),  # a cluster
}

# On these all tests run in `make soak`, and always the few that show where they differ. Through the pooler: what a
# connection could remember from one transaction to the next. On another server: each script, by random histories.
ALWAYS = {
    "pooled": {"test_claim", "test_machine", "test_open_migrate", "test_wait"},
    "redis7": {"test_machine", "test_open_migrate"},
    "slots": {"test_machine", "test_open_migrate", "test_retire_reclaim"},
}
