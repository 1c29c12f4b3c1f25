"""The shop's page, as HTML without JavaScript: orders to pay, where each invoice is, and what can go wrong."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from examples.invoices.incidents import Mood, Provider
from examples.invoices.invoice import SELLER
from examples.invoices.orders import Order
from holdfast import JobStatus

REFRESH = 2  # seconds, while something is unfinished
STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
MOODS: dict[Mood, str] = {
    "well": "is well",
    "busy": "says “try again later”",
    "silent": "takes mails and does not answer",
}
BUTTONS: dict[Mood, str] = {"well": "is back", "busy": "is busy", "silent": "falls silent"}


@dataclass(frozen=True)
class Invoice:
    """Where the invoice of one order is: its job as it is now (None: no longer kept), and whether there is a PDF."""

    status: JobStatus[Any] | None
    filed: bool

    @property
    def unfinished(self) -> bool:
        return self.status is not None and not self.status.finished


@dataclass(frozen=True)
class View:
    """What the reader wants to see. `dead`: the orders whose invoice was given up."""

    unpaid: bool = False
    dead: bool = False
    below: int | None = None
    still: bool = False
    note: str = ""

    def link(self, **changes: object) -> str:
        wanted = {"unpaid": self.unpaid, "dead": self.dead, "below": self.below, "still": self.still} | changes
        query = "&amp;".join(
            f"{name}={int(value)}" for name, value in wanted.items() if isinstance(value, int) and value
        )
        return f"/?{query}" if query else "/"


def home(
    view: View,
    counts: Mapping[str, int],
    provider: Provider | None,
    rows: Iterable[tuple[Order, Invoice | None]],
    *,
    older: int | None,
    killable: bool,
) -> str:
    """The whole page. `older`: the number below which the next page begins; None on the last one."""
    listed = list(rows)
    live = counts["waiting"] > 0 and not view.still
    return document(
        "Orders",
        f"{f'<p class=note>{escape(view.note)}</p>' if view.note else ''}"
        f"{_counts(counts, provider)}{_incidents(provider, killable=killable)}"
        f"<section><h2>Orders</h2>{_filters(view, counts)}{_table(listed)}{_pages(view, older)}</section>",
        refresh=view.link() if live else None,
    )


def document(title: str, body: str, *, refresh: str | None = None) -> str:
    """A page of the shop; with `refresh` it loads that address by itself."""
    again = f'<meta http-equiv=refresh content="{REFRESH};url={refresh}">' if refresh else ""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8>{again}"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)} · {escape(str(SELLER['name']))}</title><style>{STYLE}</style></head>"
        f"<body><header><h1><a href=/>{escape(str(SELLER['name']))}</a></h1></header><main>{body}</main></body></html>"
    )


def full(seconds: str) -> str:
    """What a customer reads when no more mail is taken."""
    return document(
        "Later, please",
        "<h2>Later, please</h2><p>More invoices are waiting to be sent than we take on. Nothing was changed: your"
        f" order is as it was. Please try again in {escape(seconds)} s.</p><p><a href=/>Back to the orders</a></p>",
    )


def _counts(counts: Mapping[str, int], provider: Provider | None) -> str:
    names = {"orders": "orders", "paid": "paid", "waiting": "invoices under way", "dead": "need a look"}
    numbers = {label: str(counts[name]) for name, label in names.items()}
    numbers["mails in the provider’s mailbox"] = str(provider.accepted) if provider else "?"
    tiles = "".join(f"<div><dt>{name}</dt><dd>{count}</dd></div>" for name, count in numbers.items())
    return f"<dl class=counts>{tiles}</dl>"


def _incidents(provider: Provider | None, *, killable: bool) -> str:
    told = f"The mail server {MOODS[provider.mood]}." if provider else "The mail server does not answer."
    moods = "".join(
        _button(f"/incidents/mail-server/{mood}", f"Mail server {text}")
        for mood, text in BUTTONS.items()
        if not provider or mood != provider.mood
    )
    kill = _button("/incidents/kill", "Kill a worker", "danger") if killable else ""
    return f"<section><h2>What can go wrong</h2><p>{told}</p><div class=buttons>{moods}{kill}</div></section>"


def _filters(view: View, counts: Mapping[str, int]) -> str:
    def tab(name: str, *, unpaid: bool = False, dead: bool = False) -> str:
        current = " aria-current=page" if (view.unpaid, view.dead) == (unpaid, dead) else ""
        return f'<a href="{view.link(unpaid=unpaid, dead=dead, below=None)}"{current}>{name}</a>'

    still = ""
    if counts["waiting"]:
        word = "Refresh by itself again" if view.still else "Stop refreshing"
        still = f'<a class=still href="{view.link(still=not view.still)}">{word}</a>'
    unpaid = counts["orders"] - counts["paid"]
    dead = tab(f"Need a look ({counts['dead']})", dead=True) if counts["dead"] or view.dead else ""
    return f"<nav>{tab('All')}{tab(f'Unpaid ({unpaid})', unpaid=True)}{dead}{still}</nav>"


def _table(rows: list[tuple[Order, Invoice | None]]) -> str:
    if not rows:
        return "<p>None.</p>"
    body = "".join(_row(order, invoice) for order, invoice in rows)
    return (
        "<table><thead><tr><th scope=col>Order<th scope=col>Customer<th scope=col class=money>Total"
        f"<th scope=col>Payment<th scope=col>Invoice</thead><tbody>{body}</tbody></table>"
    )


def _row(order: Order, invoice: Invoice | None) -> str:
    payment = f"paid <time>{order.paid_on}</time>" if order.paid_on else _button(f"/orders/{order.number}/pay", "Pay")
    none = "in the outbox" if order.paid_on else "–"
    return (
        f"<tr id=order-{order.number}><th scope=row>{order.number}"
        f"<td data-label=Customer><div><bdi>{escape(order.customer)}</bdi></div>"
        f"<td data-label=Total class=money><div>{order.money(order.total)} {escape(order.currency)}</div>"
        f"<td data-label=Payment class=payment><div>{payment}</div>"
        f"<td data-label=Invoice><div>{' '.join(_invoice(order.number, invoice)) if invoice else none}</div>"
    )


def _invoice(number: int, invoice: Invoice) -> Iterator[str]:
    status = invoice.status
    if status:
        yield f"<span class='state {status.state}'>{_state(status)}</span>"
        if status.state == "running" and status.progress is not None:
            yield f"<br><progress max=1 value={status.progress:.2f}></progress> {escape(status.text or '')}"
        if status.errors and status.state != "succeeded":
            yield f"<span class=error>{escape(status.errors[-1].message)}</span>"
        if status.state in ("dead", "cancelled"):
            yield _button(f"/orders/{number}/retry", "Try again")
    if invoice.filed:
        yield f"<a href=/orders/{number}/invoice.pdf>PDF</a>"


def _state(status: JobStatus[Any]) -> str:
    attempts = f"attempt {status.attempt}"
    match status.state:
        case "queued":
            return f"waiting, {attempts} done" if status.attempt else "waiting"
        case "scheduled":
            when = f" at {status.due_at:%H:%M:%S} UTC" if status.due_at else ""
            return f"{attempts} failed, again{when}"
        case "running":
            return f"on its way, {attempts}"
        case "succeeded":
            died = ", after its worker had died" if any(error.type == "Lost" for error in status.errors) else ""
            return f"sent{f', {attempts}' if status.attempt > 1 else ''}{died}"
        case "dead":
            return f"given up after {attempts}"
        case _:
            return f"{status.state} {escape(status.reason)}"


def _pages(view: View, older: int | None) -> str:
    newest = f'<a href="{view.link(below=None)}">Newest</a>' if view.below else ""
    following = f'<a href="{view.link(below=older)}">Older</a>' if older else ""
    return f"<nav>{newest}{following}</nav>"


def _button(action: str, text: str, kind: str = "") -> str:
    return f'<form method=post action="{action}"><button class="{kind}">{text}</button></form>'
