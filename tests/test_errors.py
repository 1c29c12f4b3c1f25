"""The exceptions: the tree drawn in the docstring is the real one, and each says what it must wherever it travels."""

import ast
import asyncio
import copy
import itertools
import pickle
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import uuid4

import pytest

from holdfast import Holdfast, Unique, errors
from holdfast.errors import (
    Cancel,
    ConfigError,
    HoldfastError,
    IdConflict,
    JobFailed,
    PayloadError,
    Permanent,
    QueueFull,
    RetryAfter,
    Snooze,
    Stop,
    StopReason,
    StoreAway,
    StoreError,
    UniqueConflict,
)
from holdfast.job import JobError

DEFINED = {
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, BaseException) and cls.__module__ == errors.__name__
}
BRANCH = re.compile(r"^ {4}(?P<depth>(?:[│ ]   )*)(?:[├└]── )(?P<name>\w+)", re.MULTILINE)
ROOT_LINE = re.compile(r"^ {4}(?P<name>[A-Z]\w+)(?: \((?P<bases>\w+)\))?", re.MULTILINE)


def _drawn() -> dict[str, str | None]:
    """Each exception of the docstring with the one it hangs from; None for those that hang from none of ours."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if branch := BRANCH.match(line):
            depth = len(branch["depth"]) // 4 + 1
            path = [*path[:depth], branch["name"]]
            parents[branch["name"]] = path[depth - 1]
        elif root := ROOT_LINE.match(line):
            path = [root["name"]]
            parents[root["name"]] = None
    return parents


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    ours = {cls.__name__ for cls in DEFINED}
    real = {
        cls.__name__: next((base.__name__ for base in cls.__mro__[1:] if base.__name__ in ours), None)
        for cls in DEFINED
    }
    assert len(real) > 10
    assert _drawn() == real


def test_what_callers_meet_has_one_root() -> None:
    handlers = {Permanent, RetryAfter, Snooze, Cancel, Stop}
    assert all(issubclass(cls, HoldfastError) for cls in DEFINED - handlers)
    assert not any(issubclass(cls, HoldfastError) for cls in handlers)


def test_a_store_that_is_away_is_one_that_failed_and_a_bad_payload_is_a_bad_value() -> None:
    assert issubclass(StoreAway, StoreError)
    assert issubclass(PayloadError, ValueError)


@pytest.fixture
def jobs() -> Holdfast:
    it = Holdfast("memory://")
    it.queue("mail", max_size=1)
    return it


def test_what_refuses_a_job_travels_between_processes_with_what_it_says(jobs: Holdfast) -> None:
    send = jobs.task(name="shop.send", queue="mail", unique=Unique("one", on_clash="raise"))(lambda: None)
    bound = send.bind()
    with pytest.raises(UniqueConflict) as clash:
        jobs.enqueue_many([bound, again := send.bind()])
    with pytest.raises(QueueFull) as full:
        send.using(unique=None).enqueue()
    there = pickle.loads(pickle.dumps(clash.value))
    assert type(there) is UniqueConflict
    assert (str(there), there.queue, there.key, there.job) == (str(clash.value), "mail", "one", jobs.job(bound.id))
    assert there.accepted == [jobs.job(bound.id)]
    assert [job.draft for job in there.refused] == [again.draft]
    away = pickle.loads(pickle.dumps(full.value))
    assert (str(away), away.queue, away.depth, away.bound, away.retry_after) == (str(full.value), "mail", 1, 1, 1.0)
    assert type(pickle.loads(pickle.dumps(IdConflict("other content")))) is IdConflict


async def test_a_handle_that_came_from_another_process_says_so(jobs: Holdfast) -> None:
    it = pickle.loads(pickle.dumps(UniqueConflict("taken", "mail", "one", jobs.job(uuid4())))).job
    for ask in (it.status, it.result, it.cancel, it.retry, it.delete):
        with pytest.raises(ConfigError, match=r"use jobs\.job\(handle\.id\)"):
            ask()
    for ask in (it.astatus, it.aresult, it.acancel, it.aretry, it.adelete):
        with pytest.raises(ConfigError, match=r"use jobs\.job\(handle\.id\)"):
            await ask()


def test_only_being_stopped_passes_through_a_handlers_except_exception() -> None:
    assert issubclass(Stop, BaseException)
    assert not issubclass(Stop, Exception)
    assert not issubclass(Stop, asyncio.CancelledError)
    assert all(issubclass(cls, Exception) for cls in DEFINED - {Stop})


@pytest.mark.parametrize("why", get_args(StopReason))
def test_stop_says_why(why: StopReason) -> None:
    assert (Stop(why).why, str(Stop(why))) == (why, why)


def test_every_class_says_what_it_is_for() -> None:
    assert [cls.__name__ for cls in DEFINED if not cls.__doc__] == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Snooze(60), "snoozed for 60"),
        (Snooze("5m", "the bank is closed"), "the bank is closed"),
        (RetryAfter(60), "retry after 60"),
        (RetryAfter("5m", "they said so"), "they said so"),
        (Cancel(), ""),
        (Cancel("not wanted"), "not wanted"),
        (Permanent("no such order"), "no such order"),
    ],
)
def test_what_a_handler_raises_reads_well_in_a_log(error: Exception, text: str) -> None:
    assert str(error) == text


def _failed() -> JobFailed:
    return JobFailed("dead", JobError(3, datetime(2030, 1, 1, tzinfo=UTC), "ValueError", "no", "Traceback"))


@pytest.mark.parametrize("error", [_failed(), Stop("timeout"), Permanent("no"), Cancel("no"), PayloadError("too big")])
def test_an_exception_survives_a_copy_and_a_pipe(error: BaseException) -> None:
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert (twin.args, vars(twin)) == (error.args, vars(error))


@pytest.mark.parametrize("error", [Snooze("5m", "closed"), Snooze(5), RetryAfter("5m", "closed"), RetryAfter(5)])
def test_a_verdict_keeps_its_delay_through_a_copy_and_a_pipe(error: Snooze | RetryAfter) -> None:
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert (twin.delay, twin.reason) == (error.delay, error.reason)


# --- the page on which people look them up

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text()
ENTRIES = re.findall(r"^\| `([\w-]+)`[^|]*\| \S[^|]*\| \S[^|]*\| \S[^|]*\|$", PAGE, re.MULTILINE)
GRAVE = {"WARNING", "ERROR"}
TELLING = {"tell", "_tell", "tell_of"}


def _is_grave(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr in GRAVE for part in ast.walk(node))


def _names(node: ast.AST) -> Iterator[str]:
    """An event, or both of a conditional one."""
    if isinstance(node, ast.IfExp):
        yield from _names(node.body)
        yield from _names(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _events() -> set[str]:
    """What follows a level of warning or error, in a call that tells or in a tuple that is told later."""
    found = set[str]()
    for path in (ROOT / "src" / "holdfast").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            words = node.args if isinstance(node, ast.Call) and name in TELLING else getattr(node, "elts", [])
            if isinstance(node, ast.Call) and name == "tell_lost":
                found |= {event for word in node.args for event in _names(word)}
            for level, event in itertools.pairwise(words):
                if _is_grave(level):
                    found |= set(_names(event))
    return found


def test_every_exception_and_every_grave_event_has_its_entry_on_the_page() -> None:
    events = _events()
    assert {"dead", "failed", "crashed", "store-away", "lonely"} <= events, "the scan no longer finds what there is"
    wanted = {cls.__name__ for cls in DEFINED} | events
    assert sorted(wanted - set(ENTRIES)) == [], "docs/errors.md has no entry, or one that is not four cells wide"
    assert sorted(set(ENTRIES) - wanted) == [], "docs/errors.md tells of what there is no more"
    assert len(ENTRIES) == len(set(ENTRIES))


def test_the_page_names_the_exceptions_in_the_order_of_the_tree() -> None:
    assert [name for name in ENTRIES if name in _drawn()] == list(_drawn())
