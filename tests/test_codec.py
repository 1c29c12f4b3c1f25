"""Calls and results as JSON and back: what comes back is what was passed; what cannot is refused by its path."""

import dataclasses
import enum
import functools
import inspect
import json
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NoReturn,
    Optional,
    ParamSpec,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.codec import PAYLOAD_LIMIT, Signature, from_json, to_json
from holdfast.errors import ArgumentsChanged, ConfigError, HoldfastError, PayloadError

# ---- the values of a shop


class Currency(enum.Enum):
    EUR = "eur"
    USD = "usd"


class Size(enum.Enum):
    SMALL = enum.auto()
    LARGE = enum.auto()


class Carrier(enum.StrEnum):
    POST = "post"
    BIKE = "bike"


class Weekday(enum.IntEnum):
    MONDAY = 1
    SUNDAY = 7


class Place(NamedTuple):
    lat: float
    lon: float = 0.0


class Address(TypedDict, total=False):
    street: str
    place: Place


@dataclasses.dataclass
class Line:
    sku: str
    price: Decimal
    count: int = 1


@dataclasses.dataclass
class Order:
    id: UUID
    lines: list[Line] = dataclasses.field(default_factory=list)
    paid_at: datetime | None = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class GiftOrder(Order):
    note: str = ""


class Parcel(msgspec.Struct):
    order: Order
    weight: float | None = None


class Tree(msgspec.Struct):
    name: str
    children: "list[Tree]" = []


class Round(msgspec.Struct, tag=True):
    radius: int


class Square(msgspec.Struct, tag=True):
    side: int


class Left(msgspec.Struct):
    a: int


class Right(msgspec.Struct):
    b: int


@dataclasses.dataclass(eq=False)
class Token:
    text: str
    score: float | None = None


T = TypeVar("T")
P = ParamSpec("P")
OrderId = NewType("OrderId", int)


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]


class Foo:
    """A type that nobody can store."""


class Markup(str):
    __slots__ = ()


class Instant(datetime):
    """As a fake clock in tests or another date library makes them."""


class Quarrelsome:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison, please")

    __hash__ = None


def task_of(*hints: object) -> Signature:
    """A task with the parameters a, b... of these hints; the last is the return annotation as well."""
    names = "abcdef"[: len(hints)]

    def task(*_: object) -> object: ...

    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=hint)
        for name, hint in zip(names, hints, strict=True)
    ]
    task.__signature__ = inspect.Signature(parameters, return_annotation=hints[-1])
    return Signature(task)


def through(hint: object, value: object) -> object:
    signature = task_of(hint)
    (in_place,), _ = signature.decode(signature.encode((value,), {}))
    _, by_name = signature.decode(signature.encode((), {"a": value}))
    assert_same(by_name["a"], in_place)
    assert_same(signature.decode_result(signature.encode_result(value)), in_place)
    return in_place


def assert_same(one: object, other: object) -> None:
    assert one == other
    assert type(one) is type(other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        for part, twin in zip(one, other, strict=True):
            assert_same(part, twin)
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one:
            assert_same(one[key], other[key])


def refusal(fn: Callable[..., object] | Signature, *args: object, **kwargs: object) -> str:
    signature = fn if isinstance(fn, Signature) else Signature(fn)
    with pytest.raises(PayloadError) as caught:
        signature.encode(args, kwargs)
    return str(caught.value)


# ---- round trips

whole_minutes = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
SCALARS: list[tuple[object, st.SearchStrategy[Any]]] = [
    (bool, st.booleans()),
    (int, st.integers(-(2**63), 2**64 - 1)),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, st.text()),
    (bytes, st.binary()),
    (datetime, st.datetimes()),
    (datetime, st.datetimes(timezones=whole_minutes)),
    (datetime, st.datetimes(timezones=st.just(UTC))),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (Currency, st.sampled_from(Currency)),
    (Size, st.sampled_from(Size)),
    (Carrier, st.sampled_from(Carrier)),
    (Weekday, st.sampled_from(Weekday)),
    (Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
    (OrderId, st.integers(0, 99)),
    (Place, st.builds(Place, lat=st.floats(-90, 90), lon=st.floats(-180, 180))),
]
KEYS = [(hint, values) for hint, values in SCALARS if hint in (str, int, date, UUID, Currency, Carrier)]
Typed = tuple[Any, st.SearchStrategy[Any]]


def in_containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return st.one_of(
        inner.map(lambda typed: (list[typed[0]], st.lists(typed[1], max_size=3))),
        inner.map(lambda typed: (tuple[typed[0], ...], st.lists(typed[1], max_size=3).map(tuple))),
        inner.map(lambda typed: (typed[0] | None, st.none() | typed[1])),
        st.tuples(inner, inner).map(lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))),
        st.tuples(st.sampled_from(KEYS), inner).map(
            lambda two: (dict[two[0][0], two[1][0]], st.dictionaries(two[0][1], two[1][1], max_size=3))
        ),
    )


hashable = st.sampled_from([typed for typed in SCALARS if typed[0] is not Place])
sets = hashable.flatmap(
    lambda typed: st.sampled_from(
        [
            (set[typed[0]], st.sets(typed[1], max_size=4)),
            (frozenset[typed[0]], st.frozensets(typed[1], max_size=4)),
        ]
    )
)
anything_typed = st.recursive(st.sampled_from(SCALARS) | sets, in_containers, max_leaves=4)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_hinted_values_come_back_equal_and_in_their_own_type(data: st.DataObject) -> None:
    hint, values = data.draw(anything_typed)
    value = data.draw(values)
    assert_same(through(hint, value), value)


orders = st.builds(
    Order,
    id=st.uuids(),
    lines=st.lists(st.builds(Line, sku=st.text(), price=st.decimals(allow_nan=False)), max_size=3),
    paid_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    meta=st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | st.lists(st.integers(0, 9)), max_size=3),
)


@given(order=orders, weight=st.none() | st.floats(0, 100))
@settings(deadline=None)
def test_classes_come_back_whole(order: Order, weight: float | None) -> None:
    assert_same(through(Order, order), order)
    assert_same(through(Parcel, Parcel(order, weight)), Parcel(order, weight))
    assert_same(
        through(dict[Currency, list[Parcel]], {Currency.EUR: [Parcel(order)]}),
        {Currency.EUR: [Parcel(order)]},
    )


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Address, {"street": "Ringweg 1", "place": Place(52.1, 4.3)}),
        (Tree, Tree("root", [Tree("leaf"), Tree("twig", [Tree("leaf")])])),
        (Round | Square, Square(2)),
        (Page[Order], Page([Order(UUID(int=1))])),
        (Annotated[int, msgspec.Meta(ge=1)], 3),
        (Optional[int], None),  # noqa: UP045
        (Union[int, str, None], None),  # noqa: UP007
        (int | UUID, UUID(int=7)),
        (tuple[()], ()),
        (list[Any], [1, "a", None, {"b": [True]}]),
        (dict[str, object], {"a": {"b": [1.5, None]}}),
        (object, {"a": [1]}),
        (T, {"a": [1]}),
        (Mapping[str, int], {"a": 1}),
        (Sequence[int], [1, 2]),
        (AbstractSet[int], {1, 2}),
        (str, "a\x00b"),
        (str, "😀 \u2028 \x7f"),
        (float, -0.0),
        (bytearray, bytearray(b"\x00\xff")),
    ],
)
def test_these_types_round_trip(hint: object, value: object) -> None:
    assert_same(through(hint, value), value)


def test_a_nul_character_survives_in_values_and_in_keys() -> None:
    assert through(dict[str, str], {"a\x00": "\x00"}) == {"a\x00": "\x00"}
    assert through(Any, ["\x00"]) == ["\x00"]


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)  # fmt: skip
def test_plain_json_needs_no_annotation(value: object) -> None:
    for hint in (inspect.Parameter.empty, Any, object):
        assert_same(through(hint, value), value)


anything = st.recursive(
    st.one_of(
        st.none(),
        st.text(alphabet=st.characters()),
        st.integers(),
        st.integers(2**63 - 2, 2**65),
        st.floats(),
        st.binary(max_size=4),
        st.dates(),
        st.decimals(),
        st.sampled_from([*Size, *Carrier, Foo, Foo(), Quarrelsome(), Token("a"), Left(1), Place(1.0)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(st.integers() | st.text() | st.dates(), max_size=3),
        st.dictionaries(st.text() | st.integers() | st.dates() | st.floats(), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(value=anything)
@settings(max_examples=400, deadline=None)
def test_without_annotation_a_value_comes_back_equal_or_is_refused_with_its_path(value: object) -> None:
    for hint in (inspect.Parameter.empty, Any, object):
        signature = task_of(hint)
        try:
            payload = signature.encode((value,), {})
        except PayloadError as error:
            refused = str(error)
            assert re.match(r"task\(a=…\): a\b", refused)
        else:
            assert signature.decode(payload) == ((value,), {})


class Adelaide(tzinfo):
    """The zone's first Sunday in April, when an hour comes twice: fold 0 at +10:30, fold 1 at +09:30."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=9 if moment and moment.fold else 10, minutes=30)

    def dst(self, moment: datetime | None) -> timedelta:
        return self.utcoffset(moment) - timedelta(hours=9, minutes=30)

    def tzname(self, _: datetime | None) -> str:
        return "Adelaide"


@pytest.mark.parametrize("fold", [0, 1])
def test_an_aware_datetime_keeps_its_instant_even_in_the_hour_that_comes_twice(fold: int) -> None:
    moment = datetime(2026, 4, 5, 2, 30, fold=fold, tzinfo=Adelaide())
    signature = task_of(datetime)
    (back,), _ = signature.decode(signature.encode((moment,), {}))
    assert isinstance(back, datetime)
    assert back.astimezone(UTC) == moment.astimezone(UTC)
    assert back.utcoffset() == moment.utcoffset()


def test_a_naive_datetime_stays_naive() -> None:
    back = through(datetime, datetime(2026, 3, 29, 2, 30))  # noqa: DTZ001
    assert isinstance(back, datetime)
    assert back.tzinfo is None


def test_an_object_without_equality_is_taken_by_its_hint() -> None:
    signature = task_of(Token)
    (back,), _ = signature.decode(signature.encode((Token("a", 0.5),), {}))
    assert isinstance(back, Token)
    assert (back.text, back.score) == ("a", 0.5)


def test_a_decimal_that_is_no_number_is_still_a_decimal() -> None:
    signature = task_of(Decimal)
    for text in ("NaN", "sNaN", "-Infinity"):
        (back,), _ = signature.decode(signature.encode((Decimal(text),), {}))
        assert str(back) == text


@pytest.mark.parametrize(
    ("hint", "value", "plain"),
    [
        (str, Markup("<b>"), "<b>"),
        (float, type("Float64", (float,), {})(1.5), 1.5),
        (int, type("Int", (int,), {})(2), 2),
        (Decimal, type("Money", (Decimal,), {})("1.10"), Decimal("1.10")),
        (date, type("Day", (date,), {})(2026, 1, 2), date(2026, 1, 2)),
        (datetime, Instant(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
        (UUID, type("DriverUUID", (UUID,), {})(int=3), UUID(int=3)),
        (bool, True, True),
        (Any, Carrier.BIKE, "bike"),
        (Any, Weekday.SUNDAY, 7),
        (Any, OrderedDict(a=1), {"a": 1}),
        (Any, Markup("<b>"), "<b>"),
    ],
)
def test_a_subclass_that_equals_its_plain_value_comes_back_as_that(hint: object, value: object, plain: object) -> None:
    assert_same(through(hint, value), plain)


@pytest.mark.parametrize(
    ("hint", "form", "value"),
    [
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (UUID, "00000000-0000-0000-0000-000000000005", UUID(int=5)),
        (Currency, "eur", Currency.EUR),
        (Line, {"sku": "a", "price": "1.10"}, Line("a", Decimal("1.10"))),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (list[int], (1, 2), [1, 2]),
        (Sequence[int], (1, 2), [1, 2]),
        (Sequence[datetime], (datetime(2026, 1, 2, tzinfo=UTC),), [datetime(2026, 1, 2, tzinfo=UTC)]),
        (float, 3, 3.0),
    ],
)
def test_a_hint_also_takes_the_json_form_of_its_type(hint: object, form: object, value: object) -> None:
    assert_same(through(hint, form), value)


# ---- what is stored


def send_invoice(order: Order, to: str = "billing@example.com", *, copies: int = 1) -> str:
    return f"{order.id} {to} {copies}"


def send(order_id: int, to: str) -> str:
    return f"{order_id} {to}"


def anyhow(x, y=None):
    return x, y


def spread(first: int, *days: date, **prices: Decimal) -> None: ...


def strict(first: int, /, second: int, *, third: int, fourth: int = 4) -> None: ...


def masked(name: int, /, **rest: str) -> None: ...


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "payload"),
    [
        (anyhow, (1,), {}, b'{"args":[1]}'),
        (anyhow, (1, None), {}, b'{"args":[1,null]}'),
        (anyhow, (), {"x": "é"}, '{"kwargs":{"x":"é"}}'.encode()),
        (send, (42,), {"to": "ada@example.com"}, b'{"args":[42],"kwargs":{"to":"ada@example.com"}}'),
        (lambda: None, (), {}, b"{}"),
    ],
)
def test_the_payload_is_compact_json_of_just_what_was_passed(
    fn: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object], payload: bytes
) -> None:
    assert Signature(fn).encode(args, kwargs) == payload
    assert Signature(fn).decode(payload) == (args, kwargs)


def test_defaults_are_not_stored_so_a_new_default_reaches_old_jobs() -> None:
    order = Order(UUID(int=1))
    payload = Signature(send_invoice).encode((order,), {})
    assert b"billing" not in payload
    assert Signature(send_invoice).decode(payload) == ((order,), {})


def test_variadic_parameters_are_read_by_their_own_hints() -> None:
    signature = Signature(spread)
    args = (1, date(2026, 1, 1), date(2026, 1, 2))
    kwargs = {"tea": Decimal("1.10"), "args": Decimal(2)}
    assert signature.decode(signature.encode(args, kwargs)) == (args, kwargs)


def test_a_keyword_may_have_the_name_of_a_positional_only_parameter() -> None:
    signature = Signature(masked)
    assert signature.decode(signature.encode((1,), {"name": "a"})) == ((1,), {"name": "a"})
    assert "name: Expected `str`, got `int`" in refusal(masked, 1, name=2)


def test_positional_only_and_keyword_only_parameters() -> None:
    signature = Signature(strict)
    for args, kwargs in (((1, 2), {"third": 3}), ((1,), {"second": 2, "third": 3, "fourth": 5})):
        assert signature.decode(signature.encode(args, kwargs)) == (args, kwargs)


def test_kwargs_may_be_any_mapping() -> None:
    class Frozen(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            return {"to": "a", "order_id": 1}[key]

        def __iter__(self):
            return iter(["to", "order_id"])

        def __len__(self) -> int:
            return 2

    assert Signature(send).encode((), Frozen()) == b'{"kwargs":{"to":"a","order_id":1}}'


def test_partials_wrapped_functions_and_callables_have_the_hints_of_their_function() -> None:
    @functools.wraps(send_invoice)
    def wrapped(*args: object, **kwargs: object) -> object:
        return send_invoice(*args, **kwargs)

    class Sender:
        def __call__(self, order: "Order") -> None: ...

        def send(self, order: "Order") -> None: ...

    order = Order(UUID(int=1))
    for fn in (wrapped, functools.partial(send_invoice, copies=3), Sender(), Sender().send):
        signature = Signature(fn)
        assert signature.decode(signature.encode((order,), {})) == ((order,), {})
        assert "order.id: Expected" in refusal(fn, {"id": 3})


# ---- calls that do not fit the signature


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "message"),
    [
        (send, (), {"to": "a"}, "send() missing a required argument: 'order_id'"),
        (send, (1, "a", 3), {}, "send() too many positional arguments"),
        (send, (1,), {"order_id": 2, "to": "a"}, "send() multiple values for argument 'order_id'"),
        (send, (1, "a"), {"cc": "b"}, "send() got an unexpected keyword argument 'cc'"),
        (strict, (1, 2), {}, "strict() missing a required "),
        (spread, (), {}, "spread() missing a required argument: 'first'"),
        (functools.partial(send, 1), (), {}, "send() missing a required argument: 'to'"),
    ],
)
def test_a_call_that_does_not_fit_is_a_type_error_with_the_name_of_the_task(
    fn: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(TypeError) as caught:
        Signature(fn).encode(args, kwargs)
    assert str(caught.value).startswith(message)


@given(
    fn=st.sampled_from([send, send_invoice, anyhow, spread, strict, masked, lambda *, a, b=1: None, lambda: None]),
    count=st.integers(0, 4),
    names=st.sets(
        st.sampled_from(["order", "order_id", "to", "copies", "x", "y", "a", "b", "first", "second", "third", "name"])
    ),
)
@settings(max_examples=300)
def test_exactly_the_calls_that_python_would_bind_are_accepted(
    fn: Callable[..., object], count: int, names: set[str]
) -> None:
    unhinted = functools.partial(fn)
    unhinted.__signature__ = inspect.Signature(
        [p.replace(annotation=p.empty) for p in inspect.signature(fn).parameters.values()]
    )
    args, kwargs = (0,) * count, dict.fromkeys(sorted(names), 0)
    try:
        inspect.signature(fn).bind(*args, **kwargs)
    except TypeError as error:
        with pytest.raises(TypeError, match=re.escape(str(error))):
            Signature(unhinted).encode(args, kwargs)
    else:
        assert Signature(unhinted).decode(Signature(unhinted).encode(args, kwargs)) == (args, kwargs)


# ---- values that are refused, each by its path


def order_with(price: object = Decimal(1), **others: Any) -> Order:
    return Order(UUID(int=1), [Line("a", Decimal(1)), Line("b", price)], **others)


CYCLE: list[object] = [1]
CYCLE.append({"again": CYCLE})
LOOP = Tree("root")
LOOP.children = [LOOP]
DEEP: list[object] = []
for _ in range(100_000):
    DEEP = [DEEP]
odd_offset = timezone(timedelta(hours=1, seconds=90))


@pytest.mark.parametrize(
    ("hint", "value", "path", "reason"),
    [
        (Order, order_with(Foo()), "a.lines[1].price", f"<object of type {__name__}.Foo> cannot be stored as JSON"),
        (Parcel, Parcel(order_with(Foo())), "a.order.lines[1].price", "cannot be stored as JSON; pass plain values"),
        (Any, {"a": [Foo()]}, "a['a'][0]", "cannot be stored as JSON"),
        (Any, {1, Foo}, "a[...]", "<object of type type> cannot be stored"),
        (Any, (number for number in [1]), "a", "<object of type generator> cannot be stored"),
        (Any, deque([1]), "a", "<object of type collections.deque> cannot be stored"),
        (Any, 1j, "a", "<object of type complex> cannot be stored"),
        # does not fit its hint
        (int, "42", "a", "Expected `int`, got `str`; the parameter is annotated int"),
        (int, True, "a", "Expected `int`, got `bool`"),
        (int, 1.0, "a", "Expected `int`, got `float`"),
        (bool, 1, "a", "Expected `bool`, got `int`"),
        (str, None, "a", "Expected `str`, got `null`"),
        (Order, order_with(["no"]), "a.lines[1].price", "Expected `decimal`, got `array`"),
        (Order, Order(7), "a.id", "Expected `uuid`, got `int`"),
        (dict[str, int], {"x": "y"}, "a[...]", "Expected `int`, got `str`"),
        (dict[int, str], {"x": "y"}, "key in a", "Expected `int`, got `str`"),
        (datetime, "yesterday", "a", "Invalid RFC3339 encoded datetime"),
        (Currency, "gbp", "a", "Invalid enum value 'gbp'"),
        (Literal["a"], "b", "a", "Invalid enum value 'b'"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "a", "Expected `int` >= 1"),
        (tuple[int, int], (1, 2, 3), "a", "Expected `array` of length 2"),
        (Line, {"sku": "a"}, "a", "Object missing required field `price`"),
        # would come back as something else
        (str, UUID(int=1), "a", "uuid.UUID would come back as str; annotate it as uuid.UUID, or pass str"),
        (str, b"ab", "a", "bytes would come back as str"),
        (str, Currency.EUR, "a", "Currency would come back as str"),
        (int, Size.LARGE, "a", "Size would come back as int"),
        (float, 2**53 + 1, "a", "9007199254740993 would come back as 9007199254740992.0; annotate it as int"),
        (Order, GiftOrder(UUID(int=1), note="hi"), "a", "GiftOrder would come back as "),
        (list[Order], [order_with(), GiftOrder(UUID(int=1))], "a[1]", "GiftOrder would come back as "),
        (dict[str, int], Left(1), "a", "Left would come back as dict"),
        (dict[str, str], {1: "a"}, "a", "the dict key 1 would come back as a str"),
        (datetime, datetime(2026, 1, 1, tzinfo=odd_offset), "a", "its UTC offset has seconds"),
        (list[time], [time(1, tzinfo=odd_offset)], "a[0]", "its UTC offset has seconds"),
        # under Any, object, a bare container or no annotation, JSON alone decides
        (inspect.Parameter.empty, date(2026, 1, 1), "a", "datetime.date would come back as str; annotate it"),
        (object, [date(2026, 1, 1)], "a[0]", "datetime.date would come back as str"),
        (Any, (1, 2), "a", "tuple would come back as list; annotate it as tuple, or pass list"),
        (Any, Place(1.0, 2.0), "a", "Place would come back as list"),
        (Any, {"a": {1, 2}}, "a['a']", "set would come back as list"),
        (Any, {"a": 1, 2: 3}, "a", "the dict key 2 would come back as a str"),
        (Any, {"1": 1, 1: 3}, "a", "the dict key 1 would come back as a str"),
        (dict[int, int], {"1": 1, 1: 3}, "a", "two of its keys are the same in JSON; use str for all"),
        (Any, Size.LARGE, "a", "Size would come back as int"),
        (Any, Line("a", Decimal(1)), "a", "Line would come back as dict"),
        (list, [[1, (2,)]], "a[0][1]", "tuple would come back as list"),
        (tuple, ((1, 2),), "a[0]", "tuple would come back as list"),
        (dict, {"a": timedelta(1)}, "a['a']", "datetime.timedelta would come back as str"),
        (set, {date(2026, 1, 1)}, "a", "its elements would come back as other types; annotate them"),
        (dict[str, Any], {"a": b"x"}, "a['a']", "bytes would come back as str"),
        (dict[str, object], {"a": b"x"}, "a['a']", "bytes would come back as str"),
        (dict[str, object], {"a": (1,)}, "a['a']", "tuple would come back as list"),
        (Order, order_with(meta={"when": [UUID(int=1)]}), "a.meta['when'][0]", "uuid.UUID would come back as str"),
        (Page[Any], Page([1, (2,)]), "a.items[1]", "tuple would come back as list"),
        # no JSON has these
        (float, float("nan"), "a", "nan is no number in JSON; pass None or a str"),
        (float | None, float("inf"), "a", "inf is no number in JSON"),
        (list[float | None], [None, float("nan")], "a[1]", "nan is no number in JSON"),
        (set[float | None], {float("nan")}, "a[...]", "nan is no number in JSON"),
        (Token, Token("a", float("-inf")), "a.score", "-inf is no number in JSON"),
        (Any, {"a": [float("nan")]}, "a['a'][0]", "nan is no number in JSON"),
        (dict[float, int], {float("nan"): 1}, "a", "the dict key nan"),
        (int, 2**64, "a", "an int of 65 bits, the limit is 64; pass a str"),
        (int, -(2**63) - 1, "a", "an int of 64 bits"),
        (Any, {"a": [10**30]}, "a['a'][0]", "an int of 100 bits"),
        (Any, [10**5000], "a[0]", "an int of 16610 bits"),
        (Any, {10**5000: 1}, "a", "the dict key <int>: an int of 16610 bits"),
        (dict[int, str], {2**64: "a"}, "a", "the dict key 18446744073709551616: an int of 65 bits"),
        (str, "a\ud800", "a", "the str holds the lone surrogate '\\ud800'"),
        (Any, {"k": ["\udc80"]}, "a['k'][0]", "the str holds the lone surrogate"),
        (Any, {"\udc80": 1}, "a", "the dict key '\\udc80': the str holds the lone surrogate"),
        (Any, {"k": {(1, 2): 3}}, "a['k']", "the dict key (1, 2) (tuple) cannot be a JSON key"),
        (dict[tuple[int, int], int], {(1, 2): 3}, "a", "the dict key (1, 2) (tuple) cannot be a JSON key"),
        (Any, {None: 3}, "a", "the dict key None (NoneType) cannot be a JSON key"),
        (Any, CYCLE, "a[1]['again']", "it contains itself"),
        (Tree, LOOP, "a.children[0]", "it contains itself"),
        (Any, DEEP, "a", "it is nested too deeply to be stored"),
        (Any, {"x": DEEP}, "a", "it is nested too deeply to be stored"),
        (list[Any], DEEP, "a", "it is nested too deeply to be stored"),
        (Any, msgspec.Raw(b"{"), "", "cannot be read"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_come_back_is_refused_by_its_path(
    hint: object, value: object, path: str, reason: str
) -> None:
    found = refusal(task_of(hint), value)
    assert reason in found
    if path:
        assert found.startswith(f"task(a=…): {path}: ")


def test_the_path_begins_with_the_name_of_the_parameter_however_it_was_passed() -> None:
    bad = order_with(Foo())
    for found in (refusal(send_invoice, bad), refusal(send_invoice, order=bad)):
        assert found == (
            f"send_invoice(order=…): order.lines[1].price: <object of type {__name__}.Foo> cannot be stored as JSON; "
            "pass plain values (str, int, float, list, dict), a dataclass or a msgspec.Struct, or a key"
        )
    assert refusal(send_invoice, order_with(), copies="2").startswith("send_invoice(copies=…): copies: Expected `int`")
    assert refusal(spread, 1, date(2026, 1, 1), 3).startswith("spread(days[1]=…): days[1]: Expected `date`")
    assert refusal(spread, 1, date(2026, 1, 1), Foo()).startswith("spread(days[1]=…): days[1]: <object of type")
    assert refusal(spread, 1, tea=[]).startswith("spread(tea=…): tea: Expected `decimal`")


def test_the_cause_is_kept_for_the_traceback() -> None:
    with pytest.raises(PayloadError) as caught:
        Signature(send).encode(("42", "a"), {})
    assert isinstance(caught.value.__cause__, msgspec.ValidationError)


def test_what_a_class_raises_when_it_is_built_again_is_a_refusal() -> None:
    @dataclasses.dataclass
    class Percent:
        value: int

        def __post_init__(self) -> None:
            if self.value > 100:
                raise LookupError(f"{self.value} is more than all")

    percent = Percent(1)
    percent.value = 101
    assert "a: LookupError: 101 is more than all" in refusal(task_of(Percent), percent)


def test_the_fields_of_attrs_classes_are_part_of_the_path() -> None:
    class Basket:
        __attrs_attrs__ = (SimpleNamespace(name="items", init=True),)  # as attrs leaves it on its classes

        def __init__(self, items: list[object]) -> None:
            self.items = items

    assert refusal(task_of(Any), Basket([1, Foo()])).startswith("task(a=…): a.items[1]: <object of type")


def test_a_field_that_was_never_set_does_not_hide_the_bad_one() -> None:
    line = Line("a", Decimal(1), count=Foo())
    del line.sku
    assert refusal(task_of(Any), line).startswith("task(a=…): a.count: <object of type")


def test_a_shared_part_is_no_cycle() -> None:
    line = {"sku": None}
    assert_same(through(Any, [line, line, {"x": line}]), [line, line, {"x": line}])
    assert refusal(task_of(Any), [line, line, float("nan")]).startswith("task(a=…): a[2]: nan")


def test_a_long_path_is_cut_but_keeps_its_two_ends() -> None:
    value: object = Foo()
    for _ in range(60):
        value = {"a rather long key": value}
    found = refusal(task_of(Any), value)
    assert found.startswith("task(a=…): a['a rather long key']")
    assert "…" in found
    assert len(found) < 500


# ---- limits


def test_a_payload_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    signature = Signature(anyhow)
    room = PAYLOAD_LIMIT - len(signature.encode(("",), {}))
    payload = signature.encode(("x" * room,), {})
    assert len(payload) == PAYLOAD_LIMIT == 1_048_576
    assert signature.decode(payload) == (("x" * room,), {})
    assert refusal(anyhow, "x" * (room + 1)) == (
        "anyhow(…): the arguments are 1,048,577 bytes of JSON, the limit is 1,048,576; "
        "pass a reference to the data (a file's path, a key) instead"
    )


def test_a_result_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    signature = Signature(anyhow)
    data = signature.encode_result("x" * (PAYLOAD_LIMIT - 2))
    assert len(data) == PAYLOAD_LIMIT
    with pytest.raises(PayloadError) as caught:
        signature.encode_result("x" * (PAYLOAD_LIMIT - 1))
    assert str(caught.value) == (
        "result of anyhow is 1,048,577 bytes of JSON, the limit is 1,048,576; "
        "return a reference to the data (a file's path, a key) instead"
    )


def test_the_limit_counts_bytes_not_characters() -> None:
    room = PAYLOAD_LIMIT - len(Signature(anyhow).encode(("",), {}))
    Signature(anyhow).encode(("é" * (room // 2),), {})
    assert "the limit is" in refusal(anyhow, "é" * (room // 2 + 1))


# ---- stored calls after a deploy


def changed(fn: Callable[..., object], payload: bytes) -> str:
    with pytest.raises(ArgumentsChanged) as caught:
        Signature(fn).decode(payload)
    return str(caught.value)


def test_a_stored_call_that_no_longer_fits_says_what_the_function_takes_now() -> None:
    payload = Signature(send).encode((42,), {"to": "ada@example.com"})

    def renamed(order_id: int, recipient: str) -> str: ...
    def grown(order_id: int, to: str, subject: str) -> str: ...
    def shrunk(order_id: int) -> str: ...
    def retyped(order_id: UUID, to: str) -> str: ...
    def emptied() -> str: ...

    begin = "the stored arguments do not fit"
    assert changed(renamed, payload) == (
        f"{begin} renamed(order_id: int, recipient: str) -> str any more: "
        "renamed() missing a required argument: 'recipient'"
    )
    assert "grown() missing a required argument: 'subject'" in changed(grown, payload)
    assert "shrunk() got an unexpected keyword argument 'to'" in changed(shrunk, payload)
    assert changed(retyped, payload).endswith("any more: order_id: Expected `uuid`, got `int`")
    assert "emptied() too many positional arguments" in changed(emptied, payload)


def test_a_stored_call_lacks_a_keyword_that_must_be_given_now() -> None:
    """Also where all that can be given by place is there."""

    def before(order_id: int) -> None: ...
    def now(order_id: int, *, to: str) -> None: ...
    def later(order_id: int, *, to: str = "ada") -> None: ...

    payload = Signature(before).encode((42,), {})
    assert "missing a required argument: 'to'" in changed(now, payload).replace("keyword-only ", "")
    assert Signature(later).decode(payload) == ((42,), {})


@pytest.mark.parametrize("payload", [b'{"args":[1]}', b'{ "args": [1]}', b'{"args":[1],"kwargs":{}}'])
def test_a_call_is_the_same_however_it_is_written(payload: bytes) -> None:
    def passed(number: float) -> None: ...

    (number,), kwargs = Signature(passed).decode(payload)
    assert (number, type(number), kwargs) == (1.0, float, {})


def test_a_stored_value_that_no_longer_fits_is_named_by_its_path_and_not_shown() -> None:
    payload = to_json({"args": [{"id": UUID(int=1), "lines": [{"sku": "secret", "price": []}]}]})
    found = changed(send_invoice, payload)
    assert found.endswith("any more: order.lines[0].price: Expected `decimal`, got `array`")
    assert "secret" not in found
    assert "days[1]: Expected" in changed(spread, b'{"args":[1,"2026-01-01",7]}')
    assert "tea: Expected" in changed(spread, b'{"args":[1],"kwargs":{"tea":[]}}')


def test_compatible_changes_keep_old_calls_running() -> None:
    payload = Signature(send).encode((42,), {"to": "ada@example.com"})

    def widened(order_id: float, to: str | None = None, subject: str = "Invoice") -> None: ...

    assert Signature(widened).decode(payload) == ((42.0,), {"to": "ada@example.com"})


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"null", b'{"args":{}}', b'{"other":1}', b'{"args":[1]} x', b"\xff", b"[" * 100_000],
)
def test_what_is_no_stored_call_is_refused(payload: bytes) -> None:
    with pytest.raises(PayloadError, match="send: the stored arguments cannot be read: "):
        Signature(send).decode(payload)


def test_a_stored_value_nested_too_deeply_fails_the_job_and_not_the_worker() -> None:
    with pytest.raises(HoldfastError):
        Signature(anyhow).decode(b'{"args":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}")


# ---- results


def test_a_result_comes_back_by_the_return_annotation() -> None:
    def total(order: Order) -> dict[Currency, Decimal]: ...

    signature = Signature(total)
    value = {Currency.EUR: Decimal("1.10")}
    assert_same(signature.decode_result(signature.encode_result(value)), value)


def test_an_unannotated_result_is_plain_json() -> None:
    signature = Signature(anyhow)
    assert signature.decode_result(signature.encode_result((1, date(2026, 1, 2), {"a": None}))) == [
        1, "2026-01-02", {"a": None},
    ]  # fmt: skip
    assert signature.encode_result(None) == b"null"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Foo(), f"result: <object of type {__name__}.Foo> cannot be stored as JSON; pass plain values"),
        (order_with(Foo()), "result.lines[1].price: <object of type"),
        (float("nan"), "result: nan is no number in JSON"),
        ([None, {"a": float("inf")}], "result[1]['a']: inf is no number in JSON"),
        (2**64, "result: an int of 65 bits"),
        (["\ud800"], "result[0]: the str holds the lone surrogate"),
        (CYCLE, "result[1]['again']: it contains itself"),
        (DEEP, "result: it is nested too deeply"),
    ],
)
def test_a_result_that_json_cannot_hold_is_refused(value: object, message: str) -> None:
    with pytest.raises(PayloadError) as caught:
        Signature(send_invoice).encode_result(value)
    assert str(caught.value).startswith(f"result of send_invoice: {message}")


def test_a_stored_result_that_does_not_fit_the_annotation_is_refused_when_it_is_read() -> None:
    def count() -> dict[str, list[int]]: ...

    with pytest.raises(PayloadError) as caught:
        Signature(count).decode_result(b'{"a":["b"]}')
    assert str(caught.value) == (
        "result of count: result[...][0]: Expected `int`, got `str`; it is annotated dict[str, list[int]]"
    )
    with pytest.raises(PayloadError, match="result of count: result: "):
        Signature(count).decode_result(b"{")


def test_a_task_that_never_returns_needs_no_storable_annotation() -> None:
    def forever() -> NoReturn:
        raise SystemExit

    assert Signature(forever).encode((), {}) == b"{}"


# ---- hints that cannot work


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Foo, f"is annotated {__name__}.Foo: {__name__}.Foo cannot be stored as JSON; use plain values"),
        (Path, "Path cannot be stored as JSON; use plain values"),
        (list[Foo | None], f"{__name__}.Foo cannot be stored as JSON"),
        (Page[Foo], f"{__name__}.Foo cannot be stored as JSON"),
        (deque[int], "collections.deque cannot be stored as JSON"),
        (Callable[[int], int], "Callable cannot be stored as JSON"),
        (Left | Right, "all Struct types must be tagged"),
        (str | datetime, "may not contain more than one str-like type"),
        (enum.Enum("Mixed", {"A": 1, "B": "b"}), "Enums must contain either all str or all int values"),
        ("Nowhere", "is annotated Nowhere, which cannot be resolved: name 'Nowhere' is not defined"),
        ("list[Nowhere]", "is annotated list[Nowhere], which cannot be resolved"),
        (list["Nowhere"], "which cannot be resolved: name 'Nowhere' is not defined"),  # noqa: F821
        ("1 +", "which cannot be resolved"),
    ],
)
def test_a_hint_that_cannot_be_stored_is_a_config_error_naming_the_parameter(hint: object, message: str) -> None:
    def task(fine: int, odd: Any) -> None: ...

    task.__annotations__["odd"] = hint
    signature = Signature(task)  # a definition alone reads no hint
    for use in (lambda: signature.encode((1, 2), {}), lambda: signature.decode(b'{"args":[1,2]}')):
        with pytest.raises(ConfigError) as caught:
            use()
        assert str(caught.value).startswith("task: parameter 'odd' ")
        assert message in str(caught.value)


def test_a_return_annotation_that_cannot_be_stored_is_known_before_the_job_runs() -> None:
    def fetch(url: str) -> Foo: ...

    with pytest.raises(ConfigError, match=r"fetch: the return value is annotated .*Foo cannot be stored as JSON"):
        Signature(fetch).encode(("a",), {})


def test_a_callable_without_a_signature_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="iter: its signature cannot be read"):
        Signature(iter).encode((), {})


def test_parameters_of_a_param_spec_are_plain() -> None:
    def outer(fn: Callable[P, None]) -> Callable[P, None]:
        def inner(*args: P.args, **kwargs: P.kwargs) -> None: ...

        return inner

    signature = Signature(outer(lambda: None))
    assert signature.decode(signature.encode((1,), {"a": [2]})) == ((1,), {"a": [2]})
    assert "args[0]: tuple would come back as list" in refusal(signature, (1,))


def paints(colour: "Colour") -> "Colour":
    return colour


PAINTS = Signature(paints)


@dataclasses.dataclass
class Colour:
    name: str


def test_a_hint_may_name_what_is_defined_further_down() -> None:
    assert PAINTS.decode(PAINTS.encode((Colour("red"),), {})) == ((Colour("red"),), {})
    assert PAINTS.decode_result(PAINTS.encode_result(Colour("red"))) == Colour("red")
    partial = Signature(functools.partial(paints))
    assert partial.decode(partial.encode((Colour("red"),), {})) == ((Colour("red"),), {})


# ---- plain JSON for the other layers


def test_to_json_and_from_json() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    token = uuid4()
    data = to_json({"id": token, "at": moment, "line": Line("a", Decimal("1.10")), "none": None})
    plain = {
        "id": str(token), "at": "2026-01-02T03:04:05.000678Z",
        "line": {"sku": "a", "price": "1.10", "count": 1}, "none": None,
    }  # fmt: skip
    assert json.loads(data) == plain
    assert from_json(data) == from_json(data.decode()) == plain
    assert b" " not in data
    with pytest.raises(TypeError):
        to_json(Foo())


@pytest.mark.parametrize("data", [b"", b"{", "nonsense", b"\xff", b"1 2", b"[" * 100_000])
def test_from_json_refuses_what_is_no_json(data: bytes | str) -> None:
    with pytest.raises(PayloadError, match="this is not JSON"):
        from_json(data)
    with pytest.raises(ValueError, match="this is not JSON"):
        from_json(data)
