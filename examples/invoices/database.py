"""The shop's tables, orders and their lines: in SQLite, or in PostgreSQL, where the same statements work."""

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from examples.invoices.orders import Line, Order
from examples.invoices.settings import DATABASE

TABLES = (
    """
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
)""",
    """
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
)""",
    """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY REFERENCES orders
)""",
)
Row = Any  # a mapping of columns, in either database


class UnknownOrder(Exception):
    """No order has this number."""


class Database:
    """An open connection, for reading or for one `transaction`. `connection` is the driver's own."""

    def __init__(self, connection: Any, mark: str, begin: str) -> None:
        self.connection = connection
        self._mark = mark  # what stands for a value in a statement
        self._begin = begin

    def execute(self, statement: str, values: Iterable[object] = ()) -> Any:
        """A cursor, at its rows."""
        return self.connection.execute(statement.replace("?", self._mark), tuple(values))

    def write_all(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """The same statement for every row."""
        self.connection.cursor().executemany(statement.replace("?", self._mark), list(rows))

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All that is written inside is kept together, or not at all if an exception leaves the block."""
        self.execute(self._begin)
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")


@contextmanager
def connected(url: str | None = None) -> Generator[Database]:
    """The shop's database, or the one that is named, open."""
    url = url or DATABASE
    if not url.startswith("sqlite:///"):
        yield from _postgres(url)
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield Database(connection, "?", "BEGIN IMMEDIATE")


def _postgres(url: str) -> Iterator[Database]:
    import psycopg
    from psycopg.rows import dict_row

    with closing(psycopg.connect(url, autocommit=True, row_factory=dict_row)) as connection:
        yield Database(connection, "%s", "BEGIN")


@contextmanager
def transaction() -> Generator[Database]:
    """A connection with one transaction around the block."""
    with connected() as db, db.transaction():
        yield db


def create() -> None:
    """Make the tables where they are missing."""
    if DATABASE.startswith("sqlite:///"):
        Path(DATABASE.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    with connected() as db:
        if DATABASE.startswith("sqlite:///"):
            db.execute("PRAGMA journal_mode = WAL")
        for table in TABLES:
            db.execute(table)


def add(db: Database, order: Order) -> bool:
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
        db.write_all("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _lines(order))
    return bool(added)


def mark_paid(db: Database, number: int, day: date) -> bool:
    """True if this call made the order paid; False if it is unknown or was paid before."""
    changed = db.execute(
        "UPDATE orders SET paid_on = ? WHERE number = ? AND paid_on IS NULL", (day.isoformat(), number)
    )
    return bool(changed.rowcount)


def note_jobs(db: Database, jobs: Iterable[tuple[int, str]]) -> None:
    """Remember which job sends the invoice of which order: pairs of order number and job id."""
    db.write_all("UPDATE orders SET invoice_job = ? WHERE number = ?", ((job, number) for number, job in jobs))


def invoice_job(db: Database, number: int) -> str | None:
    """The id of the job that sends this order's invoice. Raises UnknownOrder."""
    job: str | None = _row(db, number)["invoice_job"]
    return job


def sender(number: int, job: str) -> str:
    """The job that sends this order's invoice: the one that is noted; `job` is, if none was. Raises UnknownOrder."""
    with connected() as db:
        return invoice_job(db, number) or note_sender(db, number, job)


def note_sender(db: Database, number: int, job: str) -> str:
    """As `sender`, where probably none is noted, or within a transaction."""
    db.execute("UPDATE orders SET invoice_job = ? WHERE number = ? AND invoice_job IS NULL", (job, number))
    noted: str = _row(db, number)["invoice_job"]
    return noted


def invoice_jobs(db: Database) -> dict[int, str]:
    """The ids of all jobs that send invoices, by the orders' numbers."""
    rows = db.execute("SELECT number, invoice_job FROM orders WHERE invoice_job IS NOT NULL").fetchall()
    return {row["number"]: row["invoice_job"] for row in rows}


def load(number: int) -> Order:
    """One order with its lines. Raises UnknownOrder."""
    with connected() as db:
        return _load(db, number)


def _load(db: Database, number: int) -> Order:
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
    conditions = ["number < ?"]
    if unpaid:
        conditions.append("paid_on IS NULL")
    if jobs is not None:
        conditions.append(f"invoice_job IN ({', '.join('?' * len(jobs)) or 'NULL'})")
    wanted = f"SELECT number, invoice_job FROM orders WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"  # noqa: S608
    with connected() as db:
        rows = db.execute(wanted, (below or 2**62, *(jobs or ()), limit)).fetchall()
        return [(_load(db, row["number"]), row["invoice_job"]) for row in rows]


def counts() -> tuple[int, int, int]:
    """How many orders there are, how many of them are paid, and how many are in the outbox."""
    with connected() as db:
        row = db.execute("SELECT count(*) AS orders, count(paid_on) AS paid FROM orders").fetchone()
        waiting = db.execute("SELECT count(*) AS waiting FROM outbox").fetchone()["waiting"]
        return row["orders"], row["paid"], waiting


def takings() -> dict[str, object]:
    """How many orders there are, how many are paid, and for how much, by currency."""
    with connected() as db:
        numbers = [
            row["number"] for row in db.execute("SELECT number FROM orders WHERE paid_on IS NOT NULL").fetchall()
        ]
        paid = [_load(db, number) for number in numbers]
        orders = db.execute("SELECT count(*) AS orders FROM orders").fetchone()["orders"]
    totals: dict[str, Decimal] = {}
    for order in paid:
        totals[order.currency] = totals.get(order.currency, Decimal(0)) + order.total
    return {"orders": orders, "paid": len(paid), "totals": {name: str(total) for name, total in sorted(totals.items())}}


def _row(db: Database, number: int) -> Row:
    row = db.execute("SELECT * FROM orders WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise UnknownOrder(f"no order has the number {number}")
    return row


def _lines(order: Order) -> Iterator[tuple[object, ...]]:
    for position, line in enumerate(order.lines, start=1):
        figures = (line.quantity, line.price, line.discount, line.tax)
        yield order.number, position, line.sku, line.description, *map(str, figures)


def _line(row: Row) -> Line:
    figures = {name: Decimal(row[name]) for name in ("quantity", "price", "discount", "tax")}
    return Line(sku=row["sku"], description=row["description"], **figures)
