"""Mail: writes the message, hands it to the mail server, asks the mail service what it has taken."""

import smtplib
from email.headerregistry import Address
from email.message import EmailMessage
from urllib.parse import quote

import httpx

from examples.invoices.invoice import SELLER
from examples.invoices.orders import Order
from examples.invoices.settings import MAIL_API, SMTP_HOST, SMTP_PORT

TIMEOUT = 30  # seconds without a sign from the mail server


class Refused(Exception):
    """The mail server will never take this message (SMTP 5xx)."""


class TryLater(OSError):
    """The mail server does not take this message now (SMTP 4xx)."""


def message(order: Order, pdf: bytes, message_id: str) -> EmailMessage:
    """The mail that brings an invoice to its customer."""
    mail = EmailMessage()
    mail["Message-ID"] = message_id
    mail["From"] = Address(str(SELLER["name"]), addr_spec="invoices@shop.example")
    mail["To"] = Address(order.customer, addr_spec=order.email)
    mail["Subject"] = f"Invoice {order.number}: {order.money(order.total)} {order.currency}"
    mail.set_content(
        f"Dear {order.customer},\n\n"
        f"thank you for your payment of {order.money(order.total)} {order.currency}."
        f" The invoice for your order {order.number} is attached.\n\n{SELLER['name']}\n"
    )
    name = f"invoice-{order.number}.pdf"
    mail.add_attachment(pdf, maintype="application", subtype="pdf", filename=name)
    return mail


def send(mail: EmailMessage) -> None:
    """Hand a message to the mail server.

    Raises Refused where trying again is useless, and OSError (as smtplib's errors are) where it is not: the server is
    away, or says "try again later" (TryLater).
    """
    try:
        with smtplib.SMTP(SMTP_HOST, SMTP_PORT, "shop.example", TIMEOUT) as smtp:
            smtp.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        for address, (code, text) in error.recipients.items():
            said = f"{address}: {code} {text.decode(errors='replace')}"
            raise (Refused if code >= 500 else TryLater)(said) from error
    except smtplib.SMTPResponseException as error:
        if error.smtp_code >= 500:
            raise Refused(f"{mail['To']}: {_said(error)}") from error
        raise TryLater(f"the mail server said {_said(error)}") from error


def _said(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error
    return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"


def accepted(message_id: str) -> bool:
    """Whether the mail service has taken a message with this Message-ID."""
    answer = http.get(f"{MAIL_API}/messages/{quote(message_id, safe='')}")
    if answer.status_code == 404:
        return False
    answer.raise_for_status()
    return True


http = httpx.Client(timeout=10)
