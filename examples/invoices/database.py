"""The shop's tables in SQLite: orders and their lines."""

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from decimal import Decimal

from examples.invoices.orders import Line, Order
from examples.invoices.settings import DATABASE

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY,
    ordered_on TEXT NOT NULL,
    paid_on TEXT,
    customer TEXT NOT NULL,
    email TEXT NOT NULL,
    street TEXT NOT NULL,
    city TEXT NOT NULL,
    country TEXT NOT NULL,
    currency TEXT NOT NULL,
    invoice_job TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS lines (
    number INTEGER NOT NULL REFERENCES orders,
    position INTEGER NOT NULL,
    sku TEXT NOT NULL,
    description TEXT NOT NULL,
    quantity TEXT NOT NULL,
    price TEXT NOT NULL,
    discount TEXT NOT NULL,
    tax TEXT NOT NULL,
    PRIMARY KEY (number, position)
) STRICT, WITHOUT ROWID;
"""


class UnknownOrder(Exception):
    """No order has this number."""


@contextmanager
def connected() -> Generator[sqlite3.Connection]:
    """A connection for reading, or for one `transaction`."""
    with closing(sqlite3.connect(DATABASE, timeout=30, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        yield db


@contextmanager
def transaction() -> Generator[sqlite3.Connection]:
    """All that is written inside is kept together, or not at all if an exception leaves the block."""
    with connected() as db:
        db.execute("BEGIN IMMEDIATE")
        with db:
            yield db


def create() -> None:
    """Make the tables where they are missing."""
    DATABASE.parent.mkdir(parents=True, exist_ok=True)
    with connected() as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(SCHEMA)


def add(db: sqlite3.Connection, order: Order) -> bool:
    """Store an order; False if its number is known already (then nothing changes)."""
    added = db.execute(
        "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
        (
            order.number,
            order.ordered_on.isoformat(),
            order.paid_on and order.paid_on.isoformat(),
            order.customer,
            order.email,
            order.street,
            order.city,
            order.country,
            order.currency,
        ),
    ).rowcount
    if added:
        db.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _lines(order))
    return bool(added)


def mark_paid(db: sqlite3.Connection, number: int, day: date) -> bool:
    """True if this call made the order paid; False if it is unknown or was paid before."""
    changed = db.execute(
        "UPDATE orders SET paid_on = ? WHERE number = ? AND paid_on IS NULL", (day.isoformat(), number)
    )
    return bool(changed.rowcount)


def note_jobs(db: sqlite3.Connection, jobs: Iterable[tuple[int, str]]) -> None:
    """Remember which job sends the invoice of which order: pairs of order number and job id."""
    db.executemany("UPDATE orders SET invoice_job = ? WHERE number = ?", ((job, number) for number, job in jobs))


def invoice_job(db: sqlite3.Connection, number: int) -> str | None:
    """The id of the job that sends this order's invoice. Raises UnknownOrder."""
    job: str | None = _row(db, number)["invoice_job"]
    return job


def load(number: int) -> Order:
    """One order with its lines. Raises UnknownOrder."""
    with connected() as db:
        row = _row(db, number)
        lines = db.execute("SELECT * FROM lines WHERE number = ? ORDER BY position", (number,))
        return Order(
            number=number,
            ordered_on=date.fromisoformat(row["ordered_on"]),
            paid_on=date.fromisoformat(row["paid_on"]) if row["paid_on"] else None,
            **{name: row[name] for name in ("customer", "email", "street", "city", "country", "currency")},
            lines=tuple(_line(line) for line in lines),
        )


def listed(
    below: int | None, limit: int, *, unpaid: bool, jobs: list[str] | None = None
) -> list[tuple[Order, str | None]]:
    """The newest orders with a number under `below` (None: all), each with the id of its invoice's job.

    `jobs`: only those whose invoice's job is one of these.
    """
    with connected() as db:
        rows = db.execute(
            "SELECT number, invoice_job FROM orders WHERE number < ? AND (paid_on IS NULL OR NOT ?)"
            " AND (? IS NULL OR invoice_job IN (SELECT value FROM json_each(?))) ORDER BY number DESC LIMIT ?",
            (below or 2**62, unpaid, None if jobs is None else 1, json.dumps(jobs or []), limit),
        ).fetchall()
    return [(load(row["number"]), row["invoice_job"]) for row in rows]


def counts() -> tuple[int, int]:
    """How many orders there are, and how many of them are paid."""
    with connected() as db:
        orders, paid = db.execute("SELECT count(*), count(paid_on) FROM orders").fetchone()
        return orders, paid


def _row(db: sqlite3.Connection, number: int) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM orders WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise UnknownOrder(f"no order has the number {number}")
    return row


def _lines(order: Order) -> Iterator[tuple[object, ...]]:
    for position, line in enumerate(order.lines, start=1):
        figures = (line.quantity, line.price, line.discount, line.tax)
        yield order.number, position, line.sku, line.description, *map(str, figures)


def _line(row: sqlite3.Row) -> Line:
    figures = {name: Decimal(row[name]) for name in ("quantity", "price", "discount", "tax")}
    return Line(sku=row["sku"], description=row["description"], **figures)
