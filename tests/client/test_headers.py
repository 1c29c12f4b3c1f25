"""Headers: texts that travel with a job, and the context variables that an app carries with each."""

import json
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest

from holdfast import ConfigError, CurrentJob, Holdfast, current_job
from holdfast.errors import PayloadError
from holdfast.headers import headers_of
from holdfast.job import HEADERS_LIMIT, new_id

PATIENCE = 30

tenant: ContextVar[Any] = ContextVar("tenant")
locale: ContextVar[Any] = ContextVar("locale")


class Colour(StrEnum):
    RED = "red"


def bound(carry: list[ContextVar[Any]], **options: Any) -> str:
    task = Holdfast("memory://", carry=carry).task(name="shop.send")(lambda: None)
    return task.using(**options).bind().draft.headers


@pytest.fixture(autouse=True)
def fresh() -> Any:
    """Every test sets the variables for itself alone."""
    tokens = [variable.set(variable.get(None)) for variable in (tenant, locale)]
    unset = ContextVar[Any]("unset")
    yield unset
    for variable, token in zip((tenant, locale), tokens, strict=True):
        variable.reset(token)


# --- what travels


def test_a_job_has_no_headers_unless_someone_gives_it_some() -> None:
    assert bound([]) == bound([], headers={}) == ""
    assert bound([ContextVar("never_set")]) == "", "a variable that is not set does not travel"
    assert bound([ContextVar("locale", default="en")]) == "", "where it is not set, the worker's own default counts"


def test_headers_are_kept_as_they_were_given() -> None:
    given = {"trace": "4bf9", "größe": 'ein "Text"\n', "nul": "a\0b"}
    assert headers_of(bound([], headers=given)) == given
    assert headers_of("") == {}


def test_the_headers_of_a_later_using_replace_those_before() -> None:
    task = Holdfast("memory://").task(name="shop.send")(lambda: None).using(headers={"a": "1"})
    assert headers_of(task.using(headers={"b": "2"}).bind().draft.headers) == {"b": "2"}
    assert headers_of(task.using(priority=1).bind().draft.headers) == {"a": "1"}


def test_what_changes_in_a_dict_later_does_not_change_the_job() -> None:
    given = {"a": "1"}
    task = Holdfast("memory://").task(name="shop.send")(lambda: None).using(headers=given)
    given["a"] = "2"
    assert headers_of(task.bind().draft.headers) == {"a": "1"}


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**70), 1.5, "", "größe", [], [1, [None]], {}, {"a": {"b": [1.5, "x"]}}]
)
def test_a_carried_value_travels_as_json_under_the_variables_name(value: Any) -> None:
    tenant.set(value)
    headers = headers_of(bound([tenant, ContextVar("never_set")], headers={"trace": "4bf9"}))
    assert headers.keys() == {"trace", "tenant"}
    assert headers["trace"] == "4bf9"
    assert json.loads(headers["tenant"]) == value


def test_what_is_carried_is_the_value_where_the_job_is_bound() -> None:
    task = Holdfast("memory://", carry=[tenant]).task(name="shop.send")(lambda: None)
    tenant.set("one")
    first = task.bind()
    tenant.set("two")
    assert [headers_of(job.draft.headers)["tenant"] for job in (first, task.bind())] == ['"one"', '"two"']


def test_a_handler_reads_the_headers_of_its_job(app: Holdfast) -> None:
    @app.task(name="shop.read")
    def read() -> dict[str, str]:
        return dict(current_job().headers)

    with app.worker():
        assert read.using(headers={"trace": "4bf9"}).enqueue().result(PATIENCE) == {"trace": "4bf9"}
        assert read.enqueue().result(PATIENCE) == {}


# --- bad input


@pytest.mark.parametrize(
    "headers",
    [
        None,
        5,
        "trace",
        [("a", "b")],
        {"a": 1},
        {1: "a"},
        {"a": None},
        {"": "a"},
        {"a": b"x"},
        {"\ud800": "a"},
        {"a": "\udc00"},
    ],
    ids=repr,
)
def test_what_is_no_dict_of_texts_is_refused_by_name(headers: Any) -> None:
    with pytest.raises(ConfigError, match=r"^headers"):
        bound([], headers=headers)


_loop: list[Any] = []
_loop.append(_loop)


NOT_JSON: dict[str, Any] = {
    "object": object(),
    "tuple": (1, 2),
    "number as a key": {1: "a"},
    "set": {1},
    "bytes": b"x",
    "nan": float("nan"),
    "infinite": float("-inf"),
    "enum": Colour.RED,
    "deep in a list": [[object()]],
    "deep in a dict": {"a": {"b": object()}},
    "half a surrogate pair": "\ud800",
    "endless": _loop,
    "more digits than Python writes": 10**5000,
}


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_a_carried_value_that_json_does_not_give_back_is_refused_by_its_variable(value: Any) -> None:
    tenant.set(value)
    with pytest.raises(PayloadError, match=r"^carry: the variable 'tenant' (is|cannot be)"):
        bound([tenant])


def test_a_header_named_like_a_carried_variable_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^headers: 'tenant' is the name of a carried variable"):
        bound([tenant], headers={"tenant": "x"})
    assert headers_of(bound([], headers={"tenant": "x"})) == {"tenant": "x"}


@pytest.mark.parametrize("carry", [tenant, "tenant", ["tenant"], [None], {tenant}, 5])
def test_carry_is_a_list_of_context_variables(carry: Any) -> None:
    with pytest.raises(ConfigError, match=r"^carry="):
        Holdfast("memory://", carry=carry)


def test_a_variable_whose_name_cannot_be_written_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^carry: the name '\\ud800' has half a surrogate pair"):
        Holdfast("memory://", carry=[tenant, ContextVar("\ud800")])


def test_names_of_the_librarys_own_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"headers: 'holdfast\.trace': names that begin with 'holdfast\.'"):
        Holdfast().task(_nothing).using(headers={"holdfast.trace": "1"})
    with pytest.raises(ConfigError, match=r"carry: 'holdfast\.tenant'"):
        Holdfast(carry=[ContextVar("holdfast.tenant")])
    told = '{"holdfast.schedule":"n","holdfast.scheduled_for":"2026-11-22T12:00:00+00:00","trace":"1"}'
    job = CurrentJob(new_id(), "t", "q", 1, 1, headers=told)
    assert job.scheduled_for == datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert job.headers == {"trace": "1"}


def test_two_variables_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^carry: two variables are named 'tenant'"):
        Holdfast("memory://", carry=[tenant, locale, ContextVar("tenant")])


def test_headers_have_a_limit_together_with_what_is_carried() -> None:
    frame = len(json.dumps({"a": ""}, separators=(",", ":")))
    assert len(bound([], headers={"a": "x" * (HEADERS_LIMIT - frame)})) == HEADERS_LIMIT
    with pytest.raises(PayloadError, match=r"^headers: they are 16,385 bytes as JSON, at most 16,384"):
        bound([], headers={"a": "x" * (HEADERS_LIMIT - frame + 1)})
    tenant.set("x" * HEADERS_LIMIT)
    with pytest.raises(PayloadError, match=r"^headers: they are"):
        bound([tenant])
    with pytest.raises(PayloadError, match=r"^headers: they are"):
        bound([], headers={"a": "ö" * (HEADERS_LIMIT // 2)})  # it is bytes that count


def _nothing() -> None: ...
