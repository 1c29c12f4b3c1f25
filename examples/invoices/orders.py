"""An order: its lines, its money in the currency's own units, and how it is read from the CSV export."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

# ISO 4217: digits after the point, where they are not two.
MINOR_DIGITS = {"JPY": 0, "VND": 0, "ISK": 0, "KRW": 0, "KWD": 3, "BHD": 3, "TND": 3}
HUNDRED = Decimal(100)


@dataclass(frozen=True)
class Line:
    """One article of an order. `discount` and `tax` are per cent."""

    sku: str
    description: str
    quantity: Decimal
    price: Decimal
    discount: Decimal
    tax: Decimal


@dataclass(frozen=True)
class Order:
    """What a customer ordered. `paid_on` is None until the money has come."""

    number: int
    ordered_on: date
    paid_on: date | None
    customer: str
    email: str
    street: str
    city: str
    country: str
    currency: str
    lines: tuple[Line, ...]

    def amount(self, line: Line) -> Decimal:
        """What a line costs after its discount, before tax, rounded to the currency's smallest unit."""
        return self._rounded(line.quantity * line.price * (HUNDRED - line.discount) / HUNDRED)

    @property
    def net(self) -> Decimal:
        """The sum of all lines, before tax."""
        return sum((self.amount(line) for line in self.lines), Decimal(0))

    @property
    def taxes(self) -> dict[Decimal, Decimal]:
        """The tax due per rate, rounded once for each rate, lowest rate first."""
        rates = sorted({line.tax for line in self.lines})
        return {rate: self._tax(rate) for rate in rates}

    @property
    def total(self) -> Decimal:
        """What the customer has paid."""
        return self.net + sum(self.taxes.values(), Decimal(0))

    def money(self, amount: Decimal) -> str:
        """An amount with the digits of its currency: '1,234.50', '1,235' (JPY), '1,234.500' (KWD)."""
        return f"{amount:,.{MINOR_DIGITS.get(self.currency, 2)}f}"

    def _tax(self, rate: Decimal) -> Decimal:
        taxed = sum((self.amount(line) for line in self.lines if line.tax == rate), Decimal(0))
        return self._rounded(taxed * rate / HUNDRED)

    def _rounded(self, amount: Decimal) -> Decimal:
        unit = Decimal(1).scaleb(-MINOR_DIGITS.get(self.currency, 2))
        return amount.quantize(unit, rounding=ROUND_HALF_UP)


def read_orders(export: Iterable[str]) -> Iterator[Order]:
    """The orders of a CSV export (its lines of text), in its order, repetitions included.

    One row is one line of an order; only the first row of an order names the customer.
    Raises ValueError naming the order that cannot be read.
    """
    for rows in _blocks(csv.DictReader(export)):
        try:
            yield _order(rows)
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"order {rows[0].get('order')!r} cannot be read: {error!r}") from error


def _blocks(rows: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    block: list[dict[str, str]] = []
    for row in rows:
        if block and row.get("customer"):
            yield block
            block = []
        block.append(row)
    if block:
        yield block


def _order(rows: list[dict[str, str]]) -> Order:
    first = rows[0]
    if {row["order"] for row in rows} != {first["order"]}:
        raise ValueError("a line of another order follows without its customer")
    return Order(
        number=int(first["order"]),
        ordered_on=date.fromisoformat(first["ordered_on"]),
        paid_on=date.fromisoformat(first["paid_on"]) if first["paid_on"] else None,
        customer=first["customer"],
        email=first["email"],
        street=first["street"],
        city=first["city"],
        country=first["country"],
        currency=first["currency"],
        lines=tuple(_line(row) for row in rows),
    )


def _line(row: dict[str, str]) -> Line:
    return Line(
        sku=row["sku"],
        description=row["description"],
        quantity=Decimal(row["quantity"]),
        price=Decimal(row["price"]),
        discount=Decimal(row["discount"]),
        tax=Decimal(row["tax"]),
    )
