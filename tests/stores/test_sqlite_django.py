"""Calls in Django's transactions, on its connection to the store's file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections, transaction
from django.utils.connection import ConnectionProxy

from holdfast import ConfigError, Holdfast, Job, JobNotFound, QueueFull, State
from holdfast.errors import StoreAway
from holdfast.job import Claim, Succeeded
from holdfast.policy import decide
from holdfast.store import Store
from holdfast.stores import open_store
from holdfast.task import Task
from tests.store.acts import hand, record, running
from tests.stores.tills import django_alias

PATIENCE = 30  # seconds, for whatever a test waits for


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def app(file: Path) -> Iterator[Holdfast]:
    with Holdfast(f"sqlite:///{file}") as app:
        yield app


@pytest.fixture
def send(app: Holdfast) -> Task[[int], None]:
    app.queue("narrow", max_size=1)

    @app.task(name="send")
    def send(order: int) -> None: ...

    return send


@pytest.fixture
def shop(app: Holdfast, file: Path) -> Iterator[Any]:
    with django_alias("shop", ENGINE="django.db.backends.sqlite3", NAME=str(file)) as shop:
        with shop.cursor() as cursor:
            cursor.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        yield shop


def orders(shop: Any) -> list[int]:
    with shop.cursor() as cursor:
        return [number for (number,) in cursor.execute("SELECT id FROM orders").fetchall()]


def insert(shop: Any, number: int) -> None:
    with shop.cursor() as cursor:
        cursor.execute("INSERT INTO orders (id) VALUES (%s)", [number])


def stored(job: Job[Any]) -> bool:
    try:
        return bool(job.status())
    except JobNotFound:
        return False


@pytest.mark.parametrize("proxy", [False, True], ids=["connections[alias]", "connection"])
def test_a_job_is_part_of_the_block(proxy: bool, shop: Any, send: Task[[int], None]) -> None:
    lent = ConnectionProxy(connections, "shop") if proxy else shop
    with transaction.atomic(using="shop"):
        kept = send.using(connection=lent).enqueue(1)  # a block may begin with it
        insert(shop, 1)
        with transaction.atomic(using="shop"):
            gone = send.using(connection=lent).enqueue(2)
            transaction.set_rollback(True, using="shop")
        assert not stored(kept), "visible before the commit"
    with transaction.atomic(using="shop"):
        insert(shop, 3)
        left = send.using(connection=lent).enqueue(3)
        transaction.set_rollback(True, using="shop")
    assert [stored(kept), stored(gone), stored(left)] == [True, False, False]
    assert orders(shop) == [1]


def test_a_refused_job_leaves_the_block_as_it_was(shop: Any, app: Holdfast, send: Task[[int], None]) -> None:
    narrow = send.using(queue="narrow")
    with transaction.atomic(using="shop"):
        insert(shop, 1)
        with pytest.raises(QueueFull):
            app.enqueue_many([narrow.bind(1), narrow.bind(2)], connection=shop)
        [job] = app.enqueue_many([narrow.bind(3)], connection=shop)
    assert [status.id for status in app.find()] == [job.id]
    assert orders(shop) == [1]


async def test_a_success_is_part_of_the_block(
    shop: Any, file: Path, store: Store, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    success, shop = decide(claim, Succeeded(b"7")), connections["shop"]  # the loop's own
    with transaction.atomic(using="shop"):
        assert (await store.finish([success], shop))[0].answer == "accepted"
        transaction.set_rollback(True, using="shop")
    assert (await record(store, claim.id)).state == "running"
    with transaction.atomic(using="shop"):
        assert await store.finish([success], shop) == [("accepted", State.SUCCEEDED)]
        assert (await record(store, claim.id)).state == "running", "visible before the commit"
    found = await record(store, claim.id)
    assert (found.state, found.result) == ("succeeded", b"7")
    shop.close()


@pytest.fixture
async def store(app: Holdfast, file: Path) -> AsyncIterator[Store]:
    store = open_store(f"sqlite:///{file}")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def claim(store: Store) -> Claim:
    return await running(store, await hand(store), queue=uuid4().hex)


def test_without_a_block_there_is_nothing_to_be_part_of(shop: Any, send: Task[[int], None]) -> None:
    with pytest.raises(ConfigError, match=r"\['shop'\]: it commits every statement by itself.*transaction\.atomic\(\)"):
        send.using(connection=shop).enqueue(1)
    shop.set_autocommit(False)
    job = send.using(connection=shop).enqueue(2)
    assert not stored(job)
    shop.commit()
    assert stored(job)


def test_an_old_snapshot_is_told_of_the_transaction_mode(shop: Any, send: Task[[int], None]) -> None:
    with transaction.atomic(using="shop"):
        assert orders(shop) == []
        send.enqueue(1)
        with pytest.raises(StoreAway, match=r'Django: "OPTIONS": \{"transaction_mode": "IMMEDIATE"\}'):
            send.using(connection=shop).enqueue(2)


def test_another_file_is_refused(shop: Any, send: Task[[int], None], tmp_path: Path) -> None:
    other = django_alias("other", ENGINE="django.db.backends.sqlite3", NAME=str(tmp_path / "other.db"))
    with (
        other as lent,
        transaction.atomic(using="other"),
        pytest.raises(ConfigError, match=r"\['other'\] to .*other\.db: the jobs are in another file; .*Django"),
    ):
        send.using(connection=lent).enqueue(1)


def test_another_database_is_refused_untouched(shop: Any, send: Task[[int], None]) -> None:
    with (
        django_alias("big", ENGINE="django.db.backends.postgresql", NAME="nowhere", HOST="127.0.0.1", PORT="1") as lent,
        pytest.raises(ConfigError, match=r"connections\['big'\] on postgresql: accepted are .*Django's connection"),
    ):
        send.using(connection=lent).enqueue(1)


def test_other_threads_loops_and_broken_blocks_are_refused(shop: Any, send: Task[[int], None]) -> None:
    lent = send.using(connection=shop)
    with transaction.atomic(using="shop"):
        with ThreadPoolExecutor(1) as thread, pytest.raises(ConfigError, match=r"\['shop'\].* thread"):
            thread.submit(lent.enqueue, 1).result(PATIENCE)
        with pytest.raises(ConfigError, match=r"\['shop'\].* async context"):
            asyncio.run(_awaited(lent))
        with pytest.raises(KeyError), transaction.atomic(using="shop", savepoint=False):
            raise KeyError
        with pytest.raises(ConfigError, match=r"\['shop'\].* 'atomic' block"):
            lent.enqueue(1)
        shop.set_rollback(False)
        job = lent.enqueue(1)
    assert stored(job)


async def _awaited(lent: Any) -> None:
    await lent.aenqueue(1)


def test_what_only_looks_like_it_is_none(send: Task[[int], None]) -> None:
    from django.core.cache import cache

    with pytest.raises(ConfigError, match=r"connection=django\.utils\.connection\.ConnectionProxy: accepted are"):
        send.using(connection=cache).enqueue(1)
