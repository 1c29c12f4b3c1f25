"""Holds the day against its witnesses: the CSV, the mails on disk, the mail server's log, the team's posts.

The queue's own tables are not asked: they cannot judge themselves.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import policy
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path
from typing import Any

from pypdf import PdfReader

from examples.invoices.orders import Order, read_orders

READ_CLOSELY = 12  # invoices whose text is read; all are compared with the filed PDFs


@dataclass(frozen=True)
class Mail:
    """One accepted mail, as it lies on disk."""

    file: str
    order: int
    job: str
    to: str
    subject: str
    pdf: bytes


@dataclass
class Findings:
    """The numbers of the day, and what is wrong with it, one sentence each."""

    orders: int = 0
    blocks: int = 0
    sent: int = 0
    retries: int = 0
    dead: int = 0
    rerun: int = 0
    duplicates: int = 0
    lost: int = 0
    reports: int = 0
    wrong: list[str] = field(default_factory=list)


def read_csv(path: Path) -> list[Order]:
    """Every order of the export, repetitions included."""
    with path.open(encoding="utf-8", newline="") as export:
        return list(read_orders(export))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The mail server's events up to now."""
    if not path.exists():
        return []
    # Its last line may be half written.
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_mails(folder: Path) -> Iterator[Mail]:
    """The accepted mails."""
    for path in sorted(folder.glob("*.eml")):
        mail = BytesParser(policy=policy.SMTP).parsebytes(path.read_bytes())
        [attachment] = mail.iter_attachments()
        name = attachment.get_filename() or ""
        yield Mail(
            file=path.name,
            order=int(name.removeprefix("invoice-").removesuffix(".pdf")),
            job=mail["Message-ID"].strip("<>").partition("@")[0],
            to=mail["To"].addresses[0].addr_spec,
            subject=mail["Subject"],
            pdf=attachment.get_content(),
        )


def audit(out: Path, csv: Path, refused: frozenset[str], jobs: Mapping[int, str]) -> Findings:
    """What happened, from the witnesses alone.

    `refused`: the addresses that get no mail. `jobs`: the job of each order, only to name it where its mail is lost.
    """
    blocks = read_csv(csv)
    orders = {order.number: order for order in blocks}
    mails = list(read_mails(out / "mail" / "new"))
    log = read_log(out / "mail" / "log.jsonl")
    found = Findings(orders=len(orders), blocks=len(blocks))
    _count_mails(found, mails)
    _find_lost(found, orders, refused, jobs, {mail.order for mail in mails})
    _check_invoices(found, orders, mails, out / "invoices")
    _check_posts(found, mails, out / "webhook")
    _check_reports(found, orders, out / "webhook" / "reports")
    _read_the_servers_log(found, orders, log, refused)
    return found


def _count_mails(found: Findings, mails: list[Mail]) -> None:
    per_order: defaultdict[int, list[Mail]] = defaultdict(list)
    for mail in mails:
        per_order[mail.order].append(mail)
    found.sent = len(per_order)
    for number, same in per_order.items():
        if len(same) > 1:
            found.duplicates += len(same) - 1
            listed = ", ".join(f"{mail.file} (job {mail.job})" for mail in same)
            found.wrong.append(f"duplicate: order {number} got {len(same)} mails: {listed}")


def _find_lost(
    found: Findings, orders: dict[int, Order], refused: frozenset[str], jobs: Mapping[int, str], mailed: set[int]
) -> None:
    for order in orders.values():
        if order.email not in refused and order.number not in mailed:
            found.lost += 1
            job = jobs.get(order.number, "none")
            found.wrong.append(f"lost: no mail for order {order.number} to {order.email} (job {job})")


def _check_invoices(found: Findings, orders: dict[int, Order], mails: list[Mail], invoices: Path) -> None:
    longest = max(orders.values(), key=lambda order: len(order.lines)).number
    closely = {mail.order for mail in mails[:: max(1, len(mails) // READ_CLOSELY)]} | {longest}
    for mail in mails:
        order = orders.get(mail.order)
        if order is None:
            found.wrong.append(f"mail {mail.file} is for order {mail.order}, which the CSV does not have")
            continue
        total = f"{order.money(order.total)} {order.currency}"
        if mail.to != order.email or not mail.subject.endswith(f": {total}"):
            found.wrong.append(f"mail {mail.file} for order {mail.order}: {mail.subject!r} went to {mail.to}")
        if mail.pdf != (invoices / f"invoice-{mail.order}.pdf").read_bytes():
            found.wrong.append(f"mail {mail.file}: its PDF is not the one filed for order {mail.order}")
        elif mail.order in closely:
            text = "".join(page.extract_text() for page in PdfReader(BytesIO(mail.pdf)).pages)
            missing = [part for part in (str(order.number), order.money(order.total)) if part not in text]
            found.wrong.extend(f"the invoice of order {mail.order} does not say {part}" for part in missing)


def _check_posts(found: Findings, mails: list[Mail], folder: Path) -> None:
    posts = {path.stem: json.loads(path.read_text())["order"] for path in folder.glob("*.json")}
    mailed = {mail.job: mail.order for mail in mails}
    for job in mailed.keys() - posts.keys():
        found.wrong.append(f"the team was not told of order {mailed[job]} (job {job})")
    for job in posts.keys() - mailed.keys():
        found.wrong.append(f"the team was told of order {posts[job]} (job {job}), but no mail was sent")


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """The nightly reports that the team was given, by their nights."""
    return sorted((json.loads(path.read_text()) for path in folder.glob("*.json")), key=lambda report: report["night"])


def _check_reports(found: Findings, orders: dict[int, Order], folder: Path) -> None:
    reports = read_reports(folder)
    nights = Counter(report["night"] for report in reports)
    found.reports = len(nights)
    found.wrong.extend(
        f"the night of {night} was reported {times} times" for night, times in nights.items() if times > 1
    )
    if reports and reports[-1]["orders"] != len(orders):
        found.wrong.append(f"the last report says {reports[-1]['orders']} orders, the CSV has {len(orders)}")
    if reports and reports[-1]["paid"] != len(orders):
        found.wrong.append(f"the last report says {reports[-1]['paid']} orders were paid, all {len(orders)} are")


def _read_the_servers_log(
    found: Findings, orders: dict[int, Order], log: list[dict[str, Any]], refused: frozenset[str]
) -> None:
    found.retries = sum(event["event"] == "busy" for event in log)
    tries = Counter(event["address"] for event in log if event["event"] == "refused")
    found.dead = sum(order.email in tries for order in orders.values())
    for address in refused:
        if tries[address] != 1:
            found.wrong.append(f"{address} is refused for good, and was tried {tries[address]} times")
    unanswered = {event["message_id"] for event in log if event["event"] == "reply lost"}
    asked = {event["message_id"] for event in log if event["event"] == "asked" and event["found"]}
    found.rerun = len(asked)
    for message_id in unanswered - asked:
        found.wrong.append(f"{message_id} was cut off before the server's reply, and nobody asked for it again")
