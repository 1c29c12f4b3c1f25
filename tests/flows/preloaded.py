"""A WSGI application that is loaded, and enqueues, before its server forks; each request enqueues one job."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from holdfast import Holdfast

jobs = Holdfast()


@jobs.task(name="order")
def order(number: int) -> int:
    return number


def keep(job: object) -> None:
    """One acknowledged job a line, on record."""
    told = os.open(os.environ["ACKNOWLEDGED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(told, f"{job}\n".encode())
    finally:
        os.close(told)


def _before_the_forks() -> None:
    """Enqueues in the server's own process for good, so that forks meet it in the middle of a call."""
    while True:
        keep(order.enqueue(-1).id)
        time.sleep(0.002)


keep(order.enqueue(-1).id)
threading.Thread(target=_before_the_forks, daemon=True).start()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with the job's id and the process that enqueued it."""
    body = f"{order.enqueue(int(environ['QUERY_STRING'])).id} {os.getpid()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
