"""current_job(): where there is one, and how a handler learns that it must end."""

import asyncio
import contextvars
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, get_args
from uuid import uuid4

import pytest

from holdfast import ConfigError, Holdfast, Stop, current_job
from holdfast.context import CurrentJob, ask_to_end, asked, current, detached
from holdfast.errors import PayloadError, StopReason, StoreAway
from holdfast.job import Note


def job(**options: Any) -> CurrentJob:
    return CurrentJob(uuid4(), "shop.send", "mail", 2, 7, **options)


def test_outside_of_a_job_there_is_none() -> None:
    with pytest.raises(LookupError, match=r"not inside a job; threads you start yourself do not inherit it"):
        current_job()


def test_inside_of_a_job_it_says_which() -> None:
    mine = job()

    def handler() -> CurrentJob:
        current.set(mine)
        return current_job()

    assert contextvars.copy_context().run(handler) is mine
    assert (mine.task, mine.queue, mine.attempt, mine.fence) == ("shop.send", "mail", 2, 7)


async def test_tasks_that_a_handler_starts_are_inside_the_job_and_its_threads_are_not() -> None:
    mine = job()
    found: list[object] = []

    def thread() -> None:
        with pytest.raises(LookupError):
            current_job()
        found.append("none")

    async def child() -> None:
        found.append(current_job())

    async def handler() -> None:
        current.set(mine)
        await asyncio.gather(child(), asyncio.to_thread(lambda: found.append(current_job())))
        bare = threading.Thread(target=thread)
        bare.start()
        await asyncio.to_thread(bare.join, 30)

    await asyncio.wait_for(asyncio.create_task(handler()), 30)
    assert found == [mine, mine, "none"]


def test_a_job_that_may_go_on_is_not_stopped_by_a_check() -> None:
    mine = job()
    mine.check()
    assert (asked(mine), mine.cancelled, mine.held) == (None, False, True)


@pytest.mark.parametrize("why", get_args(StopReason))
def test_a_check_raises_the_reason_to_stop(why: StopReason) -> None:
    mine = job()
    assert ask_to_end(mine, why)
    with pytest.raises(Stop) as stopped:
        mine.check()
    assert (stopped.value.why, asked(mine)) == (why, why)
    assert mine.cancelled is (why == "cancelled")
    assert mine.held is (why != "lost")


def test_the_first_reason_to_stop_stays() -> None:
    mine = job()
    assert [ask_to_end(mine, "timeout"), ask_to_end(mine, "cancelled"), ask_to_end(mine, "timeout")] == [
        True,
        False,
        False,
    ]
    assert asked(mine) == "timeout"


def test_a_check_in_a_loop_raises_every_time() -> None:
    mine = job()
    ask_to_end(mine, "shutdown")
    for _ in range(3):
        with pytest.raises(Stop, match="shutdown"):
            mine.check()


def test_held_asks_the_worker_each_time() -> None:
    answers = iter([True, False, True])
    mine = job(held=lambda: next(answers))
    assert [mine.held, mine.held, mine.held] == [True, False, True]


def test_without_a_timeout_no_time_is_told() -> None:
    assert job().time_left is None
    assert detached("shop.send", "mail").time_left is None


def test_time_left_falls_and_ends_at_zero() -> None:
    mine = job(deadline=time.monotonic() + 1_000)
    first = mine.time_left
    assert first is not None
    assert 900 < first <= 1_000
    assert (mine.time_left or 0) <= first
    assert job(deadline=time.monotonic() - 5).time_left == 0


def test_a_detached_job_is_always_held_and_never_stopped() -> None:
    alone = detached("shop.send", "mail")
    alone.check()
    assert (alone.attempt, alone.fence, alone.held, alone.cancelled) == (1, 0, True, False)
    assert alone.id.version == 7


def test_a_handler_sees_what_is_for_handlers_and_nothing_else() -> None:
    calls = {"afinish", "asave", "check", "finish", "log", "progress", "save", "saved"}
    facts = {"attempt", "cancelled", "fence", "headers", "held", "id", "queue", "scheduled_for", "task", "time_left"}
    assert {name for name in dir(job()) if not name.startswith("_")} == calls | facts


# --- what a handler says


class Book:
    """A notebook that keeps what it is told. `held`: what it answers to a save, or raises."""

    def __init__(self, held: bool | Exception = True) -> None:
        self.notes: list[Note] = []
        self.held = held

    def add(self, note: Note) -> None:
        self.notes.append(note)

    def save(self, note: Note) -> bool:
        self.notes.append(note)
        if isinstance(self.held, Exception):
            raise self.held
        return self.held

    async def asave(self, note: Note) -> bool:
        return self.save(note)


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ((0,), 0.0),
        ((0.25,), 0.25),
        ((1, 4), 0.25),
        ((7, 7), 1.0),
        ((9, 7), 1.0),
        ((-3, 7), 0.0),
        ((0, 0), 1.0),
        ((5, 0), 1.0),
        ((-1, 0), 0.0),
        ((Decimal(1), 8.0), 0.125),
        ((Fraction(1, 2),), 0.5),
        ((10**300, 2 * 10**300), 0.5),
    ],
)
def test_progress_is_a_share_of_all(said: tuple[Any, ...], share: float) -> None:
    book, worker = Book(), uuid4()
    mine = job(notes=book, worker=worker)
    mine.progress(*said, text="page 3")
    assert book.notes == [Note(mine.id, 7, worker, share, "page 3")]


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ((float("nan"),), r"^progress\(done=nan\): a finite number"),
        ((float("inf"), 3), r"^progress\(done=inf\)"),
        (("3", 4), r"^progress\(done='3'\)"),
        ((None,), r"^progress\(done=None\)"),
        ((1, float("nan")), r"^progress\(total=nan\)"),
        ((1, float("inf")), r"^progress\(total=inf\)"),
        ((1, "4"), r"^progress\(total='4'\)"),
        ((1, -1), r"^progress\(total=-1\): how much there is to do, 0 or more"),
        ((10**400,), r"^progress\(done="),
    ],
)
def test_progress_that_makes_no_sense_is_refused_by_name(said: tuple[Any, ...], what: str) -> None:
    book = Book()
    for mine in (job(notes=book), detached("shop.send", "mail")):
        with pytest.raises(ConfigError, match=what):
            mine.progress(*said)
    assert book.notes == []


def test_a_text_for_the_total_is_no_call() -> None:
    with pytest.raises(TypeError):
        job().progress(0.5, 1, "rendered")  # type: ignore[call-arg]


class Unsayable:
    def __str__(self) -> str:
        raise ValueError("no")


def test_no_handler_fails_of_what_it_says() -> None:
    book = Book()
    mine = job(notes=book)
    said: list[Any] = [OSError(2, "no such file"), 5, None, Unsayable()]
    for one in said:
        mine.log(one)
    mine.progress(1, text=said[1])
    assert [note.lines[0][1] for note in book.notes[:4]] == [
        "[Errno 2] no such file", "5", "None", "<its __str__ raised ValueError>",
    ]  # fmt: skip
    assert book.notes[4].text == "5"


def test_long_texts_are_cut_with_a_word_about_it() -> None:
    book = Book()
    mine = job(notes=book)
    mine.progress(0.5, text="a" * 5_000)
    mine.log("b" * 50_000)
    mine.log("\ud800")
    said = [book.notes[0].text or "", *(note.lines[0][1] for note in book.notes[1:])]
    assert [len(text) for text in said] == [pytest.approx(500, abs=60), pytest.approx(2_000, abs=60), 6]
    assert "4500 characters left out" in said[0]
    assert "48000 characters left out" in said[1]
    assert said[2] == "\\ud800"


def test_headers_are_read_once_and_cannot_be_written() -> None:
    mine = job(headers='{"trace": "4bf9"}')
    assert mine.headers == {"trace": "4bf9"}
    assert mine.headers is mine.headers
    with pytest.raises(TypeError):
        mine.headers["trace"] = "other"  # type: ignore[index]
    assert (job().headers, detached("a", "b").headers) == ({}, {})
    assert mine.scheduled_for is None


# --- what is saved


async def saving(job: CurrentJob, how: str, value: object) -> None:
    if how == "save":
        job.save(value)
    else:
        await job.asave(value)


@dataclass
class Place:
    page: int
    seen: list[str]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(5, int), ("é", str), ([1, 2], list[int]), (Place(3, ["a"]), Place), (None, type(None)), ({"a": [1.5]}, dict)],
)
def test_what_is_saved_comes_back_in_the_type_that_is_asked_for(value: Any, kind: Any) -> None:
    book = Book()
    mine = job(notes=book)
    mine.save(value)
    assert mine.saved(kind, "nothing") == value
    later = job(saved=book.notes[-1].saved)
    assert later.saved(kind, "nothing") == value


def test_the_default_comes_back_as_it_is() -> None:
    nothing: Any = object()
    assert job().saved(int, nothing) is nothing


def test_what_was_saved_as_something_else_is_refused_by_name() -> None:
    mine = job(saved=b'"page 3"')
    with pytest.raises(PayloadError, match=r"saved\(type=…\) in shop.send: saved: Expected `int`, got `str`"):
        mine.saved(int, 0)
    with pytest.raises(ConfigError, match=r"saved\(type=…\) in shop.send is annotated complex"):
        mine.saved(complex, 0j)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), r"^save\(value=…\) in shop.send: value: <object of type object> cannot be stored as JSON"),
        ({"a": [float("nan")]}, r"value\['a'\]\[0\]: nan is no number in JSON"),
        (2**70, r"value: an int of 71 bits"),
        ("x" * 2**20, r"is 1,048,578 bytes of JSON, the limit is 1,048,576; save a reference"),
        ("\ud800", r"lone surrogate"),
    ],
    ids=["object", "nan", "long int", "too large", "surrogate"],
)
async def test_what_cannot_be_saved_is_refused_and_what_was_saved_stays(value: Any, what: str) -> None:
    book = Book()
    for mine in (job(notes=book, saved=b"1"), detached("shop.send", "mail")):
        with pytest.raises(PayloadError, match=what):
            mine.save(value)
        with pytest.raises(PayloadError, match=what):
            await mine.asave(value)
        assert mine.saved(int, 1) == 1
    assert book.notes == []


def test_a_store_that_is_away_is_told_to_the_handler_and_what_was_saved_stays() -> None:
    book = Book(StoreAway("away"))
    mine = job(notes=book, saved=b"1")
    with pytest.raises(StoreAway):
        mine.save(2)
    assert mine.saved(int, 0) == 1


async def test_a_save_under_a_stale_word_says_that_the_job_is_lost_from_then_on() -> None:
    book = Book(held=False)
    for save in ("save", "asave"):
        mine = job(notes=book, saved=b"1")
        with pytest.raises(Stop) as stopped:
            await saving(mine, save, 2)
        assert (stopped.value.why, asked(mine), mine.held, mine.saved(int, 0)) == ("lost", "lost", False, 1)
        before = len(book.notes)
        with pytest.raises(Stop, match="lost"):
            mine.save(3)
        assert len(book.notes) == before, "nobody is asked once more"


@pytest.mark.parametrize("why", sorted(set(get_args(StopReason)) - {"lost"}))
async def test_a_save_of_a_job_that_must_end_is_kept_and_then_raises(why: StopReason) -> None:
    for save in ("save", "asave"):
        book = Book()
        mine = job(notes=book)
        ask_to_end(mine, why)
        with pytest.raises(Stop) as stopped:
            await saving(mine, save, 5)
        assert (stopped.value.why, mine.saved(int, 0), [note.saved for note in book.notes]) == (why, 5, [b"5"])


async def test_a_save_on_the_loop_names_the_twin_to_await() -> None:
    book = Book()
    for mine in (job(notes=book, on_loop=True), detached("a", "b", on_loop=True)):
        with pytest.raises(ConfigError, match=r"`await job.asave\(...\)`"):
            mine.save(1)
        await asyncio.to_thread(mine.save, 2)
        assert mine.saved(int, 0) == 2
        await mine.asave(3)
        assert mine.saved(int, 0) == 3


def test_a_detached_job_keeps_all_in_memory() -> None:
    mine = detached("shop.send", "mail")
    mine.progress(1, 2, text="half")
    mine.log("a line")
    assert mine.saved(int, 7) == 7
    mine.save(8)
    assert mine.saved(int, 7) == 8


def test_a_handler_called_directly_has_a_job_to_talk_to() -> None:
    jobs = Holdfast("memory://")

    @jobs.task(name="count")
    def count(upto: int) -> int:
        mine = current_job()
        for number in range(mine.saved(int, 0), upto):
            mine.check()
            mine.log(f"number {number}")
            mine.progress(number + 1, upto)
            mine.save(number + 1)
        return mine.saved(int, 0)

    assert count(3) == 3
    assert count(2) == 2, "each call has a job of its own"


async def test_an_async_handler_called_directly_meets_the_mistake_that_a_worker_would_meet() -> None:
    jobs = Holdfast("memory://")

    @jobs.task(name="wrong")
    async def wrong() -> None:
        current_job().save(1)

    with pytest.raises(ConfigError, match="asave"):
        await wrong()


def test_a_thread_that_the_handler_passes_its_job_may_use_all_of_it() -> None:
    book = Book()
    mine = job(notes=book)

    def talk() -> None:
        mine.check()
        mine.progress(1, 2)
        mine.log("from a thread")
        mine.save("there")

    thread = threading.Thread(target=talk)
    thread.start()
    thread.join(30)
    assert [(note.progress, len(note.lines), note.saved) for note in book.notes] == [
        (0.5, 0, None),
        (None, 1, None),
        (None, 0, b'"there"'),
    ]
