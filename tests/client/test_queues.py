"""The declaration of queues: when stores are told, by whose word, and what makes no sense."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast import ConfigError, Holdfast, QueueFull, SyncTask
from holdfast.app import parts_of
from holdfast.job import QueueTerms
from holdfast.store import Authority
from tests.client.acts import fill, terms_of


def test_the_first_enqueue_into_a_queue_lays_down_what_is_declared(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=7, when_full="block", block_timeout="5s")
    assert terms_of(app, "mail") is None, "declaring reaches no store"
    send.using(queue="other").enqueue("ann")
    assert terms_of(app, "mail") is None
    send.enqueue("ann")
    assert terms_of(app, "mail") == QueueTerms(7, "block", 5_000)


def test_a_store_is_told_of_a_declaration_once(app: Holdfast, send: SyncTask[..., str]) -> None:
    place = parts_of(app).link.store
    configure, told = place.configure, list[set[str]]()

    async def counted(declared: Mapping[str, QueueTerms | None], by: Authority) -> None:
        told.append(set(declared))
        await configure(declared, by)

    place.configure = counted  # type: ignore[method-assign]
    app.queue("mail", max_size=9)
    for _ in range(3):
        send.enqueue("ann")
    app.queue("other", max_size=9)
    app.queue("third", max_size=9)
    for _ in range(3):
        send.enqueue("ann")
        send.using(queue="other").enqueue("ann")
    assert told == [{"mail"}, {"other", "third"}]


def test_a_queue_may_be_declared_after_others_were_used(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("other", max_size=1)
    send.using(queue="other").enqueue("ann")
    app.queue("mail", max_size=2)
    fill(app, send, 2)
    with pytest.raises(QueueFull):
        send.enqueue("ann")


async def test_the_twins_lay_it_down_too(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2)
    async with app:
        await app.aenqueue_many([send.bind("a"), send.bind("b")])
        with pytest.raises(QueueFull):
            await send.aenqueue("c")


def test_each_opened_store_is_told_anew(tmp_path: Path) -> None:
    app = Holdfast()
    app.queue("mail", max_size=1)
    send = app.task(name="shop.send", queue="mail")(lambda: None)
    for name in ("one", "two"):
        app.configure(f"sqlite:///{tmp_path}/{name}.db?durability=normal")
        with app:
            send.enqueue()
            with pytest.raises(QueueFull):
                send.enqueue()


def two_apps(folder: Path, one: dict[str, Any], other: dict[str, Any]) -> list[Holdfast]:
    """Two programs on one store, each with its own idea of the queue `mail`."""
    apps = [Holdfast(f"sqlite:///{folder}/jobs.db?durability=normal") for _ in range(2)]
    for app, options in zip(apps, (one, other), strict=True):
        app.queue("mail", **options)
        app.task(name="shop.send", queue="mail")(lambda: None)
    return apps


def test_a_worker_that_starts_renews_the_declaration(tmp_path: Path) -> None:
    before, after = two_apps(tmp_path, {"max_size": 1}, {"max_size": 9, "when_full": "drop_newest"})
    with before, after:
        parts_of(before).registry.names["shop.send"].enqueue()
        assert terms_of(after, "mail") == QueueTerms(1)
        with after.worker(queues=["other"]):
            assert terms_of(after, "mail") == QueueTerms(9, "drop_newest")


def test_a_producer_changes_nothing_that_is_declared_already(tmp_path: Path) -> None:
    first, second = two_apps(tmp_path, {"max_size": 1}, {"max_size": 9})
    with first, second:
        parts_of(first).registry.names["shop.send"].enqueue()
        with pytest.raises(QueueFull, match="1 of 1 places are taken;"):
            parts_of(second).registry.names["shop.send"].enqueue()


def test_the_operators_word_stands_above_what_code_says(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", max_size=2)
    fill(app, send, 2)
    parts_of(app).operating.set_queue("mail", QueueTerms(3))
    send.enqueue("ann")
    with pytest.raises(QueueFull, match="3 of 3 places are taken"):
        send.enqueue("ann")
    with app.worker(queues=["other"]):
        assert terms_of(app, "mail") == QueueTerms(3)
    parts_of(app).operating.set_queue("mail", None)
    assert terms_of(app, "mail") == QueueTerms(2)


def test_the_same_declaration_twice_is_fine_and_another_names_both(app: Holdfast) -> None:
    for _ in range(2):
        app.queue("mail", max_size=7, when_full="block", block_timeout="5s")
    with pytest.raises(
        ConfigError,
        match=r"queue 'mail' is declared twice: max_size=7, when_full='block', block_timeout=5, "
        r"and max_size=8, when_full='reject'",
    ):
        app.queue("mail", max_size=8)
    app.queue("mail", max_size=7, when_full="block", block_timeout=5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_size": 0}, r"^max_size=0: a whole number from 1"),
        ({"max_size": -1}, r"^max_size=-1"),
        ({"max_size": 1.5}, r"^max_size=1\.5"),
        ({"max_size": True}, r"^max_size=True"),
        ({"max_size": "10"}, r"^max_size='10'"),
        ({"max_size": 10**10}, r"^max_size=10000000000"),
        ({"max_size": float("inf")}, r"^max_size=inf"),
        ({"max_size": 5, "when_full": "wait"}, r"^when_full='wait': 'block', 'reject', 'drop_oldest', 'drop_newest'"),
        ({"max_size": 5, "when_full": None}, r"^when_full=None"),
        ({"max_size": 5, "when_full": ["block"]}, r"^when_full=\['block'\]"),
        ({"when_full": "block"}, r"^when_full='block': a queue without max_size= is never full"),
        ({"max_size": 5, "block_timeout": 5}, r"^block_timeout=5: only when_full='block' waits"),
        ({"max_size": 5, "when_full": "block", "block_timeout": 0}, r"^block_timeout=0"),
        ({"max_size": 5, "when_full": "block", "block_timeout": "soon"}, r"^block_timeout='soon'"),
        ({"max_size": 5, "when_full": "block", "block_timeout": -1}, r"^block_timeout=-1"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_declaration_that_makes_no_sense_names_the_parameter(app: Holdfast, options: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        app.queue("mail", **options)
    app.queue("mail", max_size=1)  # nothing of it was kept


@pytest.mark.parametrize("name", ["", "a b", None, 5, "x" * 101])
def test_a_queue_has_a_name_that_needs_no_escaping(app: Holdfast, name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^name="):
        app.queue(name, max_size=1)


# --- weights


def test_a_weight_is_declared_beside_a_bound_or_without_one(app: Holdfast, send: SyncTask[..., str]) -> None:
    app.queue("mail", weight=6)
    app.queue("other", max_size=5, weight=3)
    send.enqueue("ann")
    assert terms_of(app, "mail") == QueueTerms(weight=6)
    assert terms_of(app, "other") == QueueTerms(5, weight=3)


@pytest.mark.parametrize("weight", [0, -1, 1001, 1.5, "6", None, True])
def test_a_weight_that_makes_no_sense_is_refused(app: Holdfast, weight: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^weight=.*from 1 to 1,000; a queue of which nothing shall be started .* pause"
    ):
        app.queue("mail", weight=weight)


def test_two_weights_for_one_queue_are_refused(app: Holdfast) -> None:
    app.queue("mail", weight=6)
    app.queue("mail", weight=6)
    with pytest.raises(ConfigError, match=r"'mail' is declared twice: max_size=None.*weight=6, and max_size=None"):
        app.queue("mail")


@pytest.mark.parametrize("queues", [None, []])
def test_strictly_needs_an_order(app: Holdfast, queues: Any) -> None:
    with pytest.raises(ConfigError, match=r"^strict=True: in which order|^queues=\[\]"):
        app.worker(queues=queues, strict=True)
