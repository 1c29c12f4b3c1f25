"""Unique keys as producers use them: what a key is made of, what a clash means, and what is refused by name."""

import asyncio
import functools
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from holdfast import ConfigError, Holdfast, Job, SyncTask, Task, Unique, UniqueConflict
from holdfast.app import parts_of
from holdfast.errors import PayloadError
from holdfast.job import KEY_LIMIT, UniqueKey

PATIENCE = 30


def key_of(task: Task[..., Any], *args: object, **kwargs: object) -> UniqueKey:
    key = task.bind(*args, **kwargs).draft.unique
    assert key is not None, "the job has no key"
    return key


def thumb(photo: int, width: int = 80, *, tags: Any = None) -> int:
    return photo * width


# --- the key


def test_a_task_without_a_key_makes_jobs_without_one(app: Holdfast) -> None:
    assert app.task(thumb).bind(1).draft.unique is None


def test_the_key_may_be_a_function_of_the_tasks_own_arguments(app: Holdfast) -> None:
    task = app.task(unique=lambda photo, width=80, *, tags=None: f"thumb:{photo}:{width}")(thumb)
    assert key_of(task, 42) == key_of(task, photo=42) == UniqueKey("thumb:42:80")
    assert key_of(task, 42, width=3, tags=["x"]).text == "thumb:42:3"


def test_the_terms_of_a_key_travel_with_the_job(app: Holdfast) -> None:
    task = app.task(unique=Unique("one", hold="5m", on_clash="raise"))(thumb)
    assert key_of(task, 1) == UniqueKey("one", "finished", 300_000, "raise")
    other = task.using(unique=Unique("two", until="started", on_clash="replace"))
    assert key_of(other, 1) == UniqueKey("two", "started", 0, "replace")


def test_what_using_says_of_the_key_replaces_what_the_task_says_as_a_whole(app: Holdfast) -> None:
    task = app.task(unique=Unique("one", hold="5m", on_clash="raise"))(thumb)
    assert key_of(task.using(unique="thumb:42"), 1) == UniqueKey("thumb:42")
    assert task.using(unique=None).bind(1).draft.unique is None
    assert key_of(task.using(priority=5), 1).on_clash == "raise", "another option leaves the key alone"


def test_a_key_by_arguments_is_the_same_however_they_are_passed(app: Holdfast) -> None:
    task = app.task(name="shop.thumb", unique=Unique())(thumb)
    same = [
        key_of(task, 1, 2, tags={"a": 1, "b": 2}),
        key_of(task, 1, width=2, tags={"a": 1, "b": 2}),
        key_of(task.using(priority=3), 1, width=2, tags={"a": 1, "b": 2}),
        key_of(task, width=2, photo=1, tags={"b": 2, "a": 1}),
        key_of(task, tags={"b": 2, "a": 1}, width=2, photo=1),
    ]
    assert len({key.text for key in same}) == 1
    others = [
        key_of(task, 1),
        key_of(task, 2),
        key_of(task, 1, 3),
        key_of(task, 1, 2, tags={"a": 2, "b": 1}),
        key_of(task, 1, 2, tags=["a", "b"]),
        key_of(app.task(name="shop.other", unique=Unique())(thumb), 1),
    ]
    assert len({key.text for key in [same[0], *others]}) == 7, "other arguments, or another task, have another key"


def test_an_argument_that_is_its_default_is_no_other_argument(app: Holdfast) -> None:
    task = app.task(name="shop.thumb", unique=Unique())(thumb)
    assert (
        len({key_of(task, *args, **rest).text for args, rest in (((1,), {}), ((1, 80), {}), ((1,), {"tags": None}))})
        == 1
    )

    def with_more(photo: int, width: int = 80, *, tags: Any = None, quality: int = 3) -> int: ...

    after = Holdfast("memory://").task(name="shop.thumb", unique=Unique())(with_more)
    assert key_of(after, 1) == key_of(task, 1), "a new parameter leaves the keys of stored jobs as they are"
    assert key_of(after, 1, quality=4) != key_of(task, 1)


def test_true_is_no_default_of_one(app: Holdfast) -> None:
    def call(number: Any = 1) -> None: ...

    task = app.task(name="shop.call", unique=Unique())(call)
    assert key_of(task) == key_of(task, 1)
    assert len({key_of(task, number).text for number in (1, True, 1.0, "1")}) == 4


class Parcel(pydantic.BaseModel):
    weight: float = 1.0
    notes: dict[str, int] = {}


def test_equal_arguments_have_one_key_however_they_were_written(app: Holdfast) -> None:
    def ship(parcel: Parcel, price: float) -> None: ...

    task = app.task(name="shop.ship", unique=Unique())(ship)
    made: list[Any] = [Parcel(), Parcel(weight=1), Parcel(notes={}), {"weight": 1}]
    keys = {key_of(task, parcel, price).text for parcel in made for price in (2, 2.0)}
    keys |= {key_of(task, Parcel(notes=notes), price=2).text for notes in ({"a": 1, "b": 2}, {"b": 2, "a": 1})}
    assert len(keys) == 2
    assert key_of(task, Parcel(weight=1.5), 2).text not in keys


@dataclass
class Order:
    number: int


def bill(order: Order, copies: int = 1, *, note: str = "") -> None: ...


@pytest.mark.parametrize(
    "key",
    [
        lambda order: f"{order.number}",
        lambda *, order: f"{order.number}",
        lambda order, **_: f"{order.number}",
        lambda copies, order: f"{order.number}" * copies,
        lambda o, c, note: f"{o.number}" * c + note,
        lambda o, *_, **__: f"{o.number}",
        lambda *args, **_: f"{args[0].number}" * args[1],
        lambda order, prefix="": f"{prefix}{order.number}",
        functools.partial(lambda prefix, order: f"{prefix}{order.number}", ""),
    ],
)
def test_a_key_function_gets_what_the_handler_will_however_it_was_passed(app: Holdfast, key: Any) -> None:
    task = app.task(name="shop.bill", unique=key)(bill)
    jsons: Any = {"number": 7}
    for made in (task.bind(Order(7)), task.bind(order=Order(7)), task.bind(jsons), task.bind(Order(7), 1, note="")):
        assert made.draft.unique == UniqueKey("7")


def test_a_key_function_gets_rest_and_extra_arguments(app: Holdfast) -> None:
    def any_of(first: int, /, *rest: int, **extra: int) -> None: ...

    in_order = app.task(name="shop.any", unique=lambda *args, **extra: f"{args} {extra}")(any_of)
    assert key_of(in_order, 1, 2, a=3).text == "(1, 2) {'a': 3}"
    by_name = app.task(name="shop.some", unique=lambda first, **more: f"{first} {more}")(any_of)
    assert key_of(by_name, 1, a=3).text == "1 {'rest': (), 'a': 3}"


@pytest.mark.parametrize(
    "key",
    [lambda: "x", lambda job: job, lambda a, b: a, lambda order, other: other, lambda *, number: number],
)
def test_a_key_function_that_cannot_be_called_is_refused_at_once(app: Holdfast, key: Any) -> None:
    told = r"^unique=.*<lambda>\(.*\): it gets the arguments of shop\.bill\(order: .*Order, copies: .* can be called"
    for unique in (key, Unique(key)):
        with pytest.raises(ConfigError, match=told):
            app.task(name="shop.bill", unique=unique)(bill)
    task = app.task(name="shop.bill")(bill)
    with pytest.raises(ConfigError, match=told):
        task.using(unique=key)
    with pytest.raises(ConfigError, match=told):
        task.using(unique=Unique(key))


def test_a_key_by_arguments_knows_rest_and_extra_parameters(app: Holdfast) -> None:
    @app.task(name="shop.any", unique=Unique())
    def any_of(first: int, /, *rest: int, **extra: int) -> None: ...

    assert key_of(any_of, 1, 2, a=1, b=2) == key_of(any_of, 1, 2, b=2, a=1)
    assert (
        len({key_of(any_of, *args, **extra).text for args, extra in [((1, 2), {}), ((1,), {"a": 2}), ((1,), {})]}) == 3
    )


def test_the_longest_key_fits(app: Holdfast) -> None:
    assert key_of(app.task(thumb).using(unique="k" * KEY_LIMIT), 1).text == "k" * KEY_LIMIT


# --- a clash


def test_a_clash_answers_with_the_job_that_holds_the_key(app: Holdfast, send: SyncTask[..., str]) -> None:
    unique = send.using(unique="ann")
    first, again = unique.enqueue("ann"), unique.enqueue("ann again")
    assert (first.created, again.created) == (True, False)
    assert again == first
    assert len(list(app.find(task="shop.send"))) == 1
    with app.worker():
        assert again.result(PATIENCE) == "ann", "the handle is the holder's"
    assert unique.enqueue("ann").created, "a finished job holds it no more"


async def test_the_twin_says_the_same(app: Holdfast, send: SyncTask[..., str]) -> None:
    async with app:
        first, again = [await send.using(unique="ann").aenqueue("ann") for _ in range(2)]
        assert (again == first, again.created) == (True, False)


def test_a_key_holds_in_its_queue_alone(app: Holdfast, send: SyncTask[..., str]) -> None:
    first = send.using(unique="ann").enqueue("ann")
    assert send.using(unique="ann", queue="other").enqueue("ann").created
    assert send.using(unique="bob").enqueue("bob").created
    assert not send.using(unique="ann", queue="mail").enqueue("ann").created
    assert send.using(unique="ann").enqueue("ann") == first


def test_a_repeated_job_is_no_clash_with_itself(app: Holdfast, send: SyncTask[..., str]) -> None:
    bound = send.using(unique=Unique("ann", on_clash="raise")).bind("ann")
    (first,), (again,) = app.enqueue_many([bound]), app.enqueue_many([bound])
    assert (first == again, first.created, again.created) == (True, True, False)


def test_a_clash_may_be_an_error_that_names_the_holder(app: Holdfast, send: SyncTask[..., str]) -> None:
    strict = send.using(unique=Unique("ann", on_clash="raise"))
    first = strict.enqueue("ann")
    told = rf"job {first.id} of shop.send holds the unique key 'ann' in queue mail"
    with pytest.raises(UniqueConflict, match=told) as clash:
        strict.enqueue("ann again")
    assert (clash.value.queue, clash.value.key, clash.value.job) == ("mail", "ann", first)
    assert clash.value.accepted == []
    assert [new.draft.payload for new in clash.value.refused] == [b'{"args":["ann again"]}']
    first.cancel()
    assert strict.enqueue("ann again").created, "a cancelled job holds it no more"


def test_a_clash_may_replace_what_was_not_started(app: Holdfast, send: SyncTask[..., str]) -> None:
    latest = send.using(unique=Unique("ann", on_clash="replace"))
    first = latest.enqueue("ann")
    later = latest.using(delay="1h").enqueue("ann later")
    assert (later == first, later.created) == (True, False)
    assert first.status().state == "scheduled"
    latest.enqueue("ann now")
    with app.worker():
        assert first.result(PATIENCE) == "ann now"
    assert len(list(app.find(task="shop.send"))) == 1


def test_what_belongs_to_another_task_is_not_replaced(app: Holdfast, send: SyncTask[..., str]) -> None:
    @app.task(name="shop.call", queue="mail", unique=Unique("ann", on_clash="replace"))
    def call(number: int) -> None: ...

    first = send.using(unique="ann").enqueue("ann")
    with pytest.raises(UniqueConflict, match="put into its text what the job does") as clash:
        call.enqueue(1)
    assert clash.value.job == first


def test_a_replacement_that_came_too_late_says_so(app: Holdfast) -> None:
    @app.task(name="shop.wait", unique=Unique("one", hold="1h", on_clash="replace"))
    def wait() -> None: ...

    first = wait.enqueue()
    with app.worker():
        first.result(PATIENCE)
    with pytest.raises(UniqueConflict, match=rf"job {first.id} of shop\.wait holds .*, and was started already"):
        wait.enqueue()


@pytest.mark.parametrize("on_clash", ["return", "raise", "replace"])
async def test_a_key_that_another_tasks_job_holds_is_an_error_that_names_that_task(
    app: Holdfast, send: SyncTask[..., str], on_clash: Any
) -> None:
    first = await send.using(unique="ann").aenqueue("ann")
    other = app.task(name="shop.call", queue="mail", unique=Unique("ann", on_clash=on_clash))(lambda: None)
    told = rf"job {first.id} of shop\.send holds the unique key 'ann' in queue mail; a key is one for all tasks"
    with pytest.raises(UniqueConflict, match=told) as clash:
        await other.aenqueue()
    assert clash.value.job == first
    with pytest.raises(UniqueConflict, match=told):
        await asyncio.to_thread(other.enqueue)
    assert [status.job async for status in app.afind(queue="mail")] == [first]


def test_a_retry_whose_key_is_taken_names_the_holder(app: Holdfast, send: SyncTask[..., str]) -> None:
    unique = send.using(unique="ann")
    first = unique.enqueue("ann")
    first.cancel()
    second = unique.enqueue("ann")
    told = rf"job {first.id} is not retried: job {second.id} holds .* key 'ann'"
    with pytest.raises(UniqueConflict, match=told) as taken:
        first.retry()
    assert (taken.value.job, taken.value.key, taken.value.queue) == (second, "ann", "mail")
    assert app.retry(task="shop.send") == 0, "of many it is left out"
    second.cancel()
    first.retry()
    assert first.status().state == "queued"


def test_in_one_call_a_key_is_given_once(app: Holdfast, send: SyncTask[..., str]) -> None:
    handles: list[Job[str]] = app.enqueue_many([send.using(unique="ann").bind(str(n)) for n in range(3)])
    assert [job.created for job in handles] == [True, False, False]
    assert {job.id for job in handles} == {handles[0].id}


# --- bad input


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"key": ""}, r"^key='': a key has 1 to 200 characters"),
        ({"key": "k" * 201}, r"^key='kkkk.*201 characters.*use a digest"),
        ({"key": "a\0b"}, r"^key=.*NUL"),
        ({"key": "\ud800"}, r"^key=.*surrogate"),
        ({"key": 5}, r"^key=5: a text, a plain function"),
        ({"key": str, "until": "done"}, r"^until='done': 'started' or 'finished'"),
        ({"on_clash": "ignore"}, r"^on_clash='ignore': 'return' or 'raise' or 'replace'"),
        ({"on_clash": None}, r"^on_clash=None"),
        ({"hold": "soon"}, r"^hold='soon': not a duration"),
        ({"hold": -1}, r"^hold=-1"),
        ({"hold": 5, "until": "started"}, r"^hold=5: .* needs until='finished'"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_unique_that_makes_no_sense_names_the_parameter(options: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Unique(**options)


async def _async_key(photo: int) -> str:
    return str(photo)


def test_an_async_key_function_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^key=.*a plain function"):
        Unique(_async_key)  # type: ignore[arg-type]


@pytest.mark.parametrize("unique", [5, ["k"], str, b"k", True])
def test_what_is_no_key_is_refused_by_name(app: Holdfast, unique: Any) -> None:
    with pytest.raises(ConfigError, match=r"^unique="):
        app.task(unique=unique)(thumb)
    with pytest.raises(ConfigError, match=r"^unique="):
        app.task(thumb).using(unique=unique)
    assert set(parts_of(app).registry.names) == {f"{__name__}.thumb"}


def test_one_key_for_all_jobs_of_a_task_must_be_meant(app: Holdfast) -> None:
    with pytest.raises(ConfigError, match=r"^unique='thumb': one key for all .*Unique\('thumb'\)"):
        app.task(unique="thumb")(thumb)  # type: ignore[call-overload]
    assert key_of(app.task(unique=Unique("thumb"))(thumb), 1).text == "thumb"


@pytest.mark.parametrize("key", ["", "k" * 201, "a\0b", "\udfff"])
def test_a_key_that_cannot_be_one_is_refused_when_it_is_given(app: Holdfast, key: str) -> None:
    with pytest.raises(ConfigError, match=r"^unique="):
        app.task(thumb).using(unique=key)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (lambda photo, **_: 1 / 0, r"raised ZeroDivisionError: division by zero"),
        (lambda *_, **__: None, r"returned None, which is no text"),
        (lambda *_, **__: 42, r"returned 42, which is no text"),
        (lambda *_, **__: "", r"returned key='': a key has 1 to"),
        (lambda *_, **__: "k" * 5000, r"returned key='k.*5000 characters"),
        (lambda *_, **__: _async_key(1), r"returned <coroutine object _async_key.*no text"),
    ],
)
def test_a_key_function_that_gives_no_key_is_named_and_nothing_is_stored(app: Holdfast, key: Any, told: str) -> None:
    task = app.task(name="shop.thumb", unique=key)(thumb)
    for store in (task.bind, task.enqueue):
        with pytest.raises(ConfigError, match=rf"^shop\.thumb: the key function .*<lambda> {told}") as refused:
            store(1)
        assert (refused.value.__cause__ is not None) == ("raised" in told), "the error of the function is its cause"
    assert list(app.find(task="shop.thumb")) == []


def test_arguments_that_do_not_fit_are_told_before_the_key_is_asked_for(app: Holdfast) -> None:
    task = app.task(unique=lambda photo: 1 / 0)(thumb)
    with pytest.raises(TypeError, match="thumb"):
        task.enqueue()
    with pytest.raises(PayloadError):
        task.enqueue(object())


def test_a_hold_keeps_the_key_after_the_end(app: Holdfast, send: SyncTask[..., str]) -> None:
    held = send.using(unique=Unique("ann", hold="1h"))
    with app.worker():
        first = held.enqueue("ann")
        assert first.result(PATIENCE) == "ann"
        again = held.enqueue("ann")
    assert (again == first, again.created) == (True, False)


def test_a_key_until_the_start_is_free_while_the_job_runs(app: Holdfast) -> None:
    @app.task(name="shop.rebuild", unique=Unique("index", until="started"))
    def rebuild(deep: int) -> list[bool]:
        return [rebuild.using(delay="1h").enqueue(deep + n).created for n in range(2)]

    with app.worker():
        assert rebuild.enqueue(1).result(PATIENCE) == [True, False], "while it runs one more may wait, and only one"
