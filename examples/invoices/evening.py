"""The orders of the evening: unpaid ones, for a person to pay on the shop's page."""

import csv
import io

from examples.invoices.make_orders import CSV, HEADER, NEVER_DELIVERED

COUNT = 24
FIRST = 20001


def orders_of_the_evening() -> str:
    """A CSV export of orders from the customers of the day; one of them has the address that is refused for good."""
    out = io.StringIO()
    sheet = csv.DictWriter(out, HEADER)
    sheet.writeheader()
    for number, rows in enumerate(_short_orders(), start=FIRST):
        for row in rows:
            sheet.writerow(row | {"order": number, "paid_on": ""})
    return out.getvalue()


def _short_orders() -> list[list[dict[str, str]]]:
    by_number: dict[str, list[dict[str, str]]] = {}
    with CSV.open(encoding="utf-8", newline="") as export:
        for row in csv.DictReader(export):
            by_number.setdefault(row["order"], []).append(row)
    refused = by_number.pop(str(NEVER_DELIVERED))
    short = [rows for rows in by_number.values() if len(rows) <= 6 and sum(bool(row["customer"]) for row in rows) == 1]
    return [*short[: COUNT - 3], refused, *short[COUNT - 3 : COUNT - 1]]
