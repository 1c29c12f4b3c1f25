"""From a URL to a store: which URLs there are, and what the others are told."""

import threading
from pathlib import Path

import pytest

from holdfast.clock import FakeClock
from holdfast.errors import ConfigError
from holdfast.stores import masked, open_store
from tests.flows.conftest import Guest, until


def test_memory_has_a_store() -> None:
    store = open_store("memory://")
    assert (store.url, store.shared) == ("memory://", False)


async def test_a_store_takes_its_time_from_the_clock_that_it_is_given() -> None:
    clock = FakeClock(now=5)
    store = open_store("memory://", clock)
    await store.open()
    clock.advance(7)
    assert (await store.beat([])).now == 12
    await store.close()


@pytest.mark.parametrize("query", ["", "?durability=full", "?durability=normal"])
def test_sqlite_has_a_store_and_building_it_opens_nothing(tmp_path: Path, query: str) -> None:
    threads = threading.active_count()
    store = open_store(f"sqlite:///{tmp_path}/my%20jobs.db{query}")
    assert store.shared
    assert "my" in store.url
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads


@pytest.mark.parametrize("slashes", ["///", "////"])
async def test_three_slashes_are_relative_and_four_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slashes: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = "jobs.db" if slashes == "///" else str(tmp_path / "jobs.db").removeprefix("/")
    store = open_store(f"sqlite:{slashes}{path}")
    await store.open()
    await store.close()
    assert (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "no scheme"),
        ("jobs.db", "no scheme"),
        ("/var/lib/jobs.db", "no scheme"),
        ("memory", "no scheme"),
        ("mysql://localhost/jobs", "no store for mysql"),
        ("sqlite3:///jobs.db", "no store for sqlite3"),
        ("http://[::1/jobs", "IPv6 address"),
        ("memory:", "no host, path or options"),
        ("memory://here", "no host, path or options"),
        ("memory://?durability=full", "no host, path or options"),
        ("sqlite:jobs.db", "three slashes"),
        ("sqlite:/var/jobs.db", "three slashes"),
        ("sqlite://jobs.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:////var/lib/", "names no file"),
        ("sqlite:///:memory:", "use memory://"),
        ("sqlite:///jobs.db#1", "%23"),
        ("sqlite:///jobs.db?durability=fast", "full or normal"),
        ("sqlite:///jobs.db?durability=", "full or normal"),
        ("sqlite:///jobs.db?Durability=full&mode=ro", "Durability, mode"),
    ],
)
def test_any_other_url_is_refused_with_the_reason_and_the_schemes_that_exist(url: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    message = str(refused.value)
    assert repr(url) in message
    assert why in message
    assert "memory://" in message
    assert "sqlite:///path" in message


@pytest.mark.parametrize(
    "url",
    [
        "mysql://app:s3cret@db.example/jobs",
        "mysql://app:s3cret@with@signs:s3cret@db.example/jobs",
        "mysql://app:s3cret/with?odd#signs@db.example/jobs",
        "mysql://:s3cret@db.example",
        "mysql://db.example/jobs?user=app&password=s3cret&x=1",
        "mysql://app:s3cret@[::1/jobs",
        "memory://app:s3cret@here",
        "sqlite://app:s3cret@here/jobs.db",
        "host=db.example password=s3cret",
        "host=db.example password = 's3cret with \\' s3cret' dbname=jobs",
        "mysql:/app:s3cret@db.example/jobs",
        "app:s3cret@db.example/jobs",
    ],
)
def test_a_refusal_shows_no_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    assert "s3cret" not in str(refused.value)
    assert "***" in str(refused.value)
    assert refused.value.__cause__ is None


def test_masking_leaves_the_rest_of_a_url_as_it_is() -> None:
    assert masked("redis://app:x@db.example:6379/0?a=1") == "redis://app:***@db.example:6379/0?a=1"
    for harmless in ("memory://", "sqlite:////var/a:b/jobs.db?durability=full", "redis://db.example:6379/0"):
        assert masked(harmless) == harmless


@pytest.mark.timeout(120)
def test_a_supervisor_opens_the_file_that_the_app_means(tmp_path: Path) -> None:
    url, name = "sqlite:///my%20jobs%2541.db?durability=normal", "my jobs%41.db"
    tmp_path.joinpath("data").mkdir()
    source = "import os\nfrom holdfast import Holdfast\nos.chdir('data')\njobs = Holdfast()\n"
    guest = Guest(url, tmp_path, source)
    try:
        until(lambda: "ready in" in guest.text(), "the banner")
    finally:
        code = guest.stop()
    assert code == 0, guest.text()
    assert [path.name for path in tmp_path.rglob("*.db")] == [name]
    assert tmp_path.joinpath("data", name).exists()
