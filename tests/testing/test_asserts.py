"""assert_enqueued and enqueued: which calls are the same, and what is said when there is none."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from holdfast import ConfigError, Holdfast
from holdfast.errors import PayloadError
from holdfast.testing import Sandbox

jobs = Holdfast()


@dataclass
class Order:
    number: int
    tags: list[str]


@jobs.task(name="shop.send_invoice")
def send_invoice(order_id: int, email: str = "ann@example.com", *, copies: int = 1) -> str:
    return email


@jobs.task(name="shop.resize")
async def resize(path: str, width: int = 80) -> int:
    return width


@jobs.task(name="shop.note")
def note(order: Order, at: datetime, *ids: UUID, **more: float) -> None: ...


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(jobs) as box:
        yield box


def test_it_returns_the_handle(box: Sandbox) -> None:
    job = send_invoice.enqueue(42)
    found = box.assert_enqueued(send_invoice, 42)
    assert found == job
    box.run()
    assert found.result() == "ann@example.com"
    assert box.assert_enqueued(send_invoice, 42) == job, "whatever became of it"


@pytest.mark.parametrize(
    "again",
    [
        lambda box: box.assert_enqueued(send_invoice, 42),
        lambda box: box.assert_enqueued(send_invoice, order_id=42),
        lambda box: box.assert_enqueued(send_invoice, 42, "ann@example.com"),
        lambda box: box.assert_enqueued(send_invoice, 42, copies=1),
        lambda box: box.assert_enqueued(send_invoice, 42, email="ann@example.com", copies=1),
    ],
)
@pytest.mark.parametrize(
    "made",
    [
        lambda: send_invoice.enqueue(42),
        lambda: send_invoice.enqueue(order_id=42),
        lambda: send_invoice.enqueue(42, email="ann@example.com"),
    ],
)
def test_how_arguments_are_passed_is_no_matter(box: Sandbox, made: Any, again: Any) -> None:
    assert made() == again(box)


@pytest.mark.parametrize(
    "call",
    [
        lambda box: box.assert_enqueued(send_invoice, 43),
        lambda box: box.assert_enqueued(send_invoice, 42, "bob@example.com"),
        lambda box: box.assert_enqueued(send_invoice, 42, copies=2),
        lambda box: box.assert_enqueued(resize, "42"),
    ],
)
def test_other_arguments_are_another_call(box: Sandbox, call: Any) -> None:
    send_invoice.enqueue(42)
    with pytest.raises(AssertionError, match="was not enqueued"):
        call(box)


def test_typed_arguments_are_compared_as_their_handler_gets_them(box: Sandbox) -> None:
    now, ids = datetime.now(UTC), (UUID(int=1), UUID(int=2))
    job = note.enqueue(Order(1, ["eu"]), now, *ids, factor=0.5)
    assert box.assert_enqueued(note, Order(1, ["eu"]), now, *ids, factor=0.5) == job
    with pytest.raises(AssertionError):
        box.assert_enqueued(note, Order(1, ["us"]), now, *ids, factor=0.5)
    with pytest.raises(AssertionError):
        box.assert_enqueued(note, Order(1, ["eu"]), now, *ids, factor=0.25)


def test_of_several_the_newest_is_returned(box: Sandbox) -> None:
    send_invoice.enqueue(42)
    box.advance(1)
    newest = send_invoice.enqueue(42)
    assert box.assert_enqueued(send_invoice, 42) == newest


def test_the_message_shows_what_was_enqueued_instead_the_nearest_first(box: Sandbox) -> None:
    send_invoice.enqueue(7, "bob@example.com", copies=3)
    send_invoice.enqueue(43)
    send_invoice.using(delay=5).enqueue(42, "bob@example.com", copies=2)
    resize.enqueue("a.png")
    resize.enqueue("b.png")
    with pytest.raises(AssertionError) as caught:
        box.assert_enqueued(send_invoice, 42)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("shop.send_invoice(order_id=42, email='ann@example.com', copies=1) was not enqueued.")
    assert first.endswith("Of this task there are 3 jobs, the nearest first:")
    assert rest == [
        "  shop.send_invoice(order_id=43, email='ann@example.com', copies=1): order_id differs (queued)",
        "  shop.send_invoice(order_id=42, email='bob@example.com', copies=2): email, copies differ (scheduled)",
        "  shop.send_invoice(order_id=7, email='bob@example.com', copies=3): order_id, email, copies differ (queued)",
        "Of other tasks: shop.resize (2)",
    ]


def test_the_message_is_bounded(box: Sandbox) -> None:
    for number in range(30):
        send_invoice.enqueue(number, "x" * 10_000)
    with pytest.raises(AssertionError, match="… and 20 more") as caught:
        box.assert_enqueued(send_invoice, 99)
    assert len(str(caught.value)) < 5_000


def test_the_message_when_there_is_nothing_of_the_task(box: Sandbox) -> None:
    with pytest.raises(AssertionError, match=r"shop.resize\(path='a', width=80\) was not enqueued; nothing was$"):
        box.assert_enqueued(resize, "a")
    send_invoice.enqueue(1)
    with pytest.raises(AssertionError, match=r"nor any other job of this task\.\nOf other tasks: shop.send_invoice"):
        box.assert_enqueued(resize, "a")


def test_enqueued_lists_them_the_oldest_first(box: Sandbox) -> None:
    assert box.enqueued(send_invoice) == []
    made = [send_invoice.enqueue(1), send_invoice.enqueue(2)]
    resize.enqueue("a.png")
    box.run()
    made.append(send_invoice.enqueue(3))
    assert box.enqueued(send_invoice) == made
    assert [job.id for job in box.enqueued(send_invoice)] == [job.id for job in made]


def test_very_many_are_found(box: Sandbox) -> None:
    jobs.enqueue_many(send_invoice.bind(number) for number in range(1200))
    assert len(box.enqueued(send_invoice)) == 1200
    box.assert_enqueued(send_invoice, 0)


def test_options_are_not_compared_and_that_is_said(box: Sandbox) -> None:
    send_invoice.enqueue(42)
    with pytest.raises(ConfigError, match="options are not compared"):
        box.assert_enqueued(send_invoice.using(delay="1h"), 42)


def test_a_task_of_another_app_is_refused(box: Sandbox) -> None:
    other = Holdfast()

    @other.task(name="other.task")
    def task() -> None: ...

    with pytest.raises(ConfigError, match=r"other\.task is not a task of this sandbox's app"):
        box.assert_enqueued(task)
    with pytest.raises(ConfigError, match=r"other\.task is not"):
        box.enqueued(task)


def test_arguments_that_do_not_fit_are_the_tests_mistake(box: Sandbox) -> None:
    with pytest.raises(TypeError):
        box.assert_enqueued(send_invoice)  # type: ignore[call-arg]
    with pytest.raises(PayloadError):
        box.assert_enqueued(send_invoice, "42")  # type: ignore[arg-type]


async def test_it_works_on_a_loop() -> None:
    async with Sandbox(jobs) as box:
        job = await resize.aenqueue("a.png")
        assert box.assert_enqueued(resize, "a.png") == job
