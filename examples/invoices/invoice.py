"""Renders an order as a PDF invoice; the same order always gives the same invoice."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import typst

from examples.invoices.orders import Line, Order

TEMPLATE = Path(__file__).with_suffix(".typ")
SELLER = {
    "name": "Saltmarsh & Daughters",
    "address": ("Tidemill Quay 4", "26382 Wilhelmshaven", "Germany"),
    "tax_id": "VAT DE000000000",
}


def render(order: Order) -> bytes:
    """The PDF invoice of a paid order."""
    if order.paid_on is None:
        raise ValueError(f"order {order.number} is not paid: nothing to invoice")
    texts = json.dumps(_texts(order), ensure_ascii=False)
    # The typesetter's own fonts alone: an invoice must not depend on what a machine has installed.
    return bytes(typst.compile(TEMPLATE, sys_inputs={"invoice": texts}, ignore_system_fonts=True))


def _texts(order: Order) -> dict[str, Any]:
    return {
        "number": str(order.number),
        "seller": SELLER,
        "customer": {
            "name": order.customer,
            "address": (order.street, order.city, order.country),
            "email": order.email,
        },
        "facts": {
            "Invoice number": str(order.number),
            "Invoice date": f"{order.paid_on}",
            "Ordered on": f"{order.ordered_on}",
            "Currency": order.currency,
        },
        "currency": order.currency,
        "lines": [_line(order, line) for line in order.lines],
        "net": order.money(order.net),
        "taxes": {_plain(rate): order.money(tax) for rate, tax in order.taxes.items()},
        "total": order.money(order.total),
        "paid_on": f"{order.paid_on}",
    }


def _line(order: Order, line: Line) -> dict[str, str]:
    return {
        "sku": line.sku,
        "description": line.description,
        "quantity": _plain(line.quantity),
        "price": order.money(line.price),
        "discount": f"{_plain(line.discount)} %" if line.discount else "",
        "tax": f"{_plain(line.tax)} %",
        "amount": order.money(order.amount(line)),
    }


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
