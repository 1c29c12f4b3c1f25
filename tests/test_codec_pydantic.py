"""Pydantic's models in calls and results: what comes back is equal to what was passed, or the call was refused."""

import dataclasses
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID, uuid4

import msgspec
import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PrivateAttr, RootModel, SecretStr, computed_field

from holdfast import Holdfast
from holdfast.codec import Signature
from holdfast.errors import ArgumentsChanged, ConfigError, PayloadError

T = TypeVar("T")


class Item(BaseModel):
    sku: str = Field(alias="articleNumber")
    price: Decimal = Field(gt=0)
    note: str = Field(default="", serialization_alias="remark", validation_alias="hint")


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: UUID = Field(default_factory=uuid4)
    paid_at: datetime | None = None
    items: list[Item] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def count(self) -> int:
        return len(self.items)


class Patch(BaseModel):
    name: str | None = None
    email: str = "none"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Puppy(Dog):
    weeks: int = 3


class Page(BaseModel, Generic[T]):
    items: list[T]


class Tags(RootModel[list[str]]):
    pass


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    held: Any = None


class Stripped(BaseModel):
    name: Annotated[str, pydantic.StringConstraints(strip_whitespace=True)]


class Counter(BaseModel):
    _seen: int = PrivateAttr(default=0)


class Hidden(BaseModel):
    pin: int = Field(default=0, exclude=True)


class Node(BaseModel):
    children: "list[Node]" = []


class Money(BaseModel):
    amount: float


@pydantic.dataclasses.dataclass
class Point:
    x: int = Field(gt=0)
    tags: list[str] = Field(default_factory=list)


@dataclasses.dataclass
class Parcel:
    order: Order
    by_name: dict[str, Item | None]


class Crate(msgspec.Struct):
    parcels: list[Parcel]
    tags: Tags | None = None


ITEM = Item.model_validate({"articleNumber": "a1", "price": "9.90", "hint": "fragile"})
ORDER = Order(items=[ITEM], paid_at=datetime(2026, 11, 22, 14, 0, tzinfo=UTC))


def taking(hint: object) -> Signature:
    def send(it: Any) -> None: ...

    send.__annotations__ = {"it": hint, "return": hint}
    return Signature(send)


def there_and_back(hint: object, value: object) -> Any:
    signature = taking(hint)
    (back,), _ = signature.decode(signature.encode((value,), {}))
    return back


def _shown(value: object) -> str:
    """The same in every process of a test run: no random ids, no addresses."""
    plain = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+", "", str(value))
    return re.sub(r"\W+", "-", plain)[:40]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Order, ORDER),
        (Order, Order()),
        (list[Order], [ORDER, Order()]),
        (dict[str, list[Order | None]], {"a": [ORDER, None]}),
        (tuple[Item, int], (ITEM, 3)),
        (Order | None, None),
        (Order | None, ORDER),
        (Parcel, Parcel(ORDER, {"x": ITEM, "y": None})),
        (Crate, Crate([Parcel(Order(), {})], Tags(["b"]))),
        (Tags, Tags(["b", "a"])),
        (Page[Item], Page[Item](items=[ITEM])),
        (Cat | Dog, Dog()),
        (list[Cat | Dog], [Dog(), Cat(), Dog()]),
        (list[Annotated[Cat | Dog, Field(discriminator="kind")]], [Dog(), Cat()]),
        (Cat | int | None, 7),
        (Cat | bytes, b"\xff\x00\xfb"),
        (Open, Open.model_validate({"held": [1], "more": {"a": None}})),
        (Node, Node(children=[Node(), Node(children=[Node()])])),
        (Point, Point(x=1, tags=["a"])),
        (list[Point], [Point(x=2)]),
        (HttpUrl, HttpUrl("https://shop.example/a?b=c")),
        (pydantic.PositiveInt, 5),
        (Annotated[bytes, Field(max_length=9)], b"\xff\x00"),
        (pydantic.PastDate, date(2020, 1, 1)),
    ],
    ids=_shown,
)
def test_what_comes_back_is_equal_and_of_the_same_type(hint: object, value: object) -> None:
    back = there_and_back(hint, value)
    assert back == value
    assert type(back) is type(value)
    signature = taking(hint)
    assert signature.decode_result(signature.encode_result(value)) == value


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (Item, {"articleNumber": "a", "price": -1}, "it.price: Input should be greater than 0"),
        (list[Item], [ITEM, {"sku": "a", "price": 0}], "it[1].price: Input should be greater than 0"),
        (Order, {"items": [{"sku": "a", "price": "x"}]}, "it.items[0].price: Input should be a valid decimal"),
        (Parcel, {"order": {"nope": 1}, "by_name": {}}, "it.order.nope: Extra inputs are not permitted"),
        (Order, "no order", "it: Input should be an object"),
        (Item, Item.model_construct(sku="a", price=Decimal(-1)), "it.price: Input should be greater than 0"),
        (Item, Item.model_construct(sku=1, price=Decimal(1)), "it: pydantic cannot write it as JSON"),
        (Dog, Puppy(), "it: test_codec_pydantic.Puppy would come back as test_codec_pydantic.Dog"),
        (Any, ORDER, "it: test_codec_pydantic.Order would come back as dict; annotate it"),
        (Open, Open(held=(1, 2)), "it.held: (1, 2) would come back as [1, 2]"),
        (Open, Open(held=date(2026, 1, 1)), "it.held: datetime.date would come back as str"),
        (Open, Open(held={1: 2}), "it.held: the dict key 1 would come back as a str"),
        (Open, Open(held=object()), "it: pydantic cannot write it as JSON: Unable to serialize unknown type"),
        (Money, Money(amount=float("nan")), "it.amount: Input should be a valid number"),
        (list[Hidden], [Hidden(), Hidden(pin=1234)], "it[1].pin: 1234 would come back as 0"),
        (Stripped, Stripped.model_construct(name=" a "), "it.name: ' a ' would come back as 'a'"),
        (SecretStr, SecretStr("x"), "it: SecretStr('**********') would not come back equal"),
        (Point, {"x": 0}, "it.x: Input should be greater than 0"),
        (pydantic.PositiveInt, -5, "it: Input should be greater than 0"),
    ],
    ids=_shown,
)
def test_what_does_not_fit_or_would_come_back_changed_is_refused_by_its_path(
    hint: object, value: object, words: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        taking(hint).encode((value,), {})
    said = str(caught.value).replace(f"{__name__}.", "test_codec_pydantic.")
    assert said.startswith(f"send(it=…): {words}"), said


def test_a_private_attribute_that_would_be_lost_is_refused() -> None:
    counter = Counter()
    assert there_and_back(Counter, counter) == counter
    counter._seen = 1  # noqa: SLF001  # as the model's own methods would
    with pytest.raises(PayloadError, match=r"it\[0\]: it would not come back equal; .* without private attributes"):
        taking(list[Counter]).encode(([counter],), {})


def test_the_json_form_of_a_model_is_taken_by_alias_and_by_name() -> None:
    for form in ({"articleNumber": "a", "price": "1"}, {"sku": "a", "price": "1"}):
        assert there_and_back(Item, form) == Item.model_validate({"articleNumber": "a", "price": "1"})


def test_what_a_default_factory_made_is_kept() -> None:
    order = Order()
    assert there_and_back(Order, order).id == order.id


def test_a_patch_says_in_the_handler_what_was_set() -> None:
    assert there_and_back(Patch, Patch(name=None)).model_dump(exclude_unset=True) == {"name": None}
    assert there_and_back(list[Patch], [Patch(), Patch(email="a")])[0].model_fields_set == set()
    beside_a_factory = there_and_back(tuple[Order, Patch], (Order(), Patch(name=None)))
    assert beside_a_factory[1].model_fields_set == {"name"}


def test_a_result_without_an_annotation_has_every_field() -> None:
    def made() -> Any: ...

    signature = Signature(made)
    assert signature.decode_result(signature.encode_result(Patch(name="a"))) == {"name": "a", "email": "none"}


def test_a_model_that_changed_since_is_an_argument_that_does_not_fit_any_more() -> None:
    payload = taking(Item).encode((ITEM,), {})
    with pytest.raises(ArgumentsChanged, match=r"it\.id: Field required") as caught:
        taking(create_needing_id()).decode(payload)
    assert "the stored arguments do not fit send" in str(caught.value)


def create_needing_id() -> type[BaseModel]:
    return pydantic.create_model("Item", id=(int, ...))


class Bag:
    pass


@pytest.mark.parametrize("hint", [Cat | Bag, Annotated[Bag, Field(title="a")], list[Cat | Crate]])
def test_a_hint_that_pydantic_cannot_read_is_a_config_error_naming_the_parameter(hint: object) -> None:
    with pytest.raises(ConfigError, match=r"send: parameter 'it' is annotated .* pydantic cannot read it"):
        taking(hint).encode((None,), {})


def test_an_older_pydantic_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class New(BaseModel):
        pass

    monkeypatch.setattr(pydantic, "VERSION", "2.10.6")
    with pytest.raises(ConfigError, match=r"needs pydantic 2\.11 or newer, this is 2\.10\.6"):
        taking(New).encode((New(),), {})


async def test_a_handler_gets_the_model_and_its_result_is_one() -> None:
    jobs = Holdfast("memory://")

    @jobs.task
    async def ship(order: Order, patches: list[Patch]) -> Order:
        assert isinstance(patches[0], Patch)
        return order.model_copy(update={"items": [*order.items, ITEM]})

    async with jobs.worker():
        job = await ship.aenqueue(ORDER, [Patch()])
        assert await job.aresult(timeout=20) == Order(id=ORDER.id, paid_at=ORDER.paid_at, items=[ITEM, ITEM])


def test_pydantic_is_not_imported_for_other_types() -> None:
    program = (
        "import sys, dataclasses\n"
        "from holdfast.codec import Signature\n"
        "@dataclasses.dataclass\n"
        "class Line:\n    sku: str\n"
        "def send(lines: list[Line | None], it: object, n: 'int | None' = None) -> Line: ...\n"
        "s = Signature(send)\n"
        "print(s.decode(s.encode(([Line('a')], 1), {})), s.encode_result(Line('b')))\n"
        "print([name for name in sys.modules if name.startswith('pydantic')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
