"""Downloads 10,000 pages with a Pool: bounded concurrency, retries, timeouts, a progress bar, and Ctrl-C.

`python -m examples.download [PAGES]` starts a small web server of its own on this machine, some of whose pages are
slow, fail once, or are not there; nothing else is reached.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast import Permanent, Pool, Retry

PAGES = 10_000
CONCURRENCY = 20
SLOW = 0.2  # seconds that a slow page takes


# --- what is of interest here


def fetch(url: str) -> int:
    """Downloads a page; returns its size. A page that is not there is not asked for again."""
    try:
        with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310  # from the server below
            return len(page.read())
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            raise Permanent(f"{url} is not there") from None
        raise


def download(urls: Iterator[str], count: int) -> None:
    """Downloads everything, and says how it went."""
    bar, size, lost = Bar(count), 0, Counter[str]()
    with Pool(CONCURRENCY, timeout=10, retry=Retry(max_attempts=5, base_delay=0.05)) as pool:
        for job in pool.each(fetch, urls):
            error = job.exception()
            if error is None:
                size += job.result()
            else:
                lost[type(error).__name__] += 1
            bar.step(retried=pool.stats().retried if bar.due else None)
        stats = pool.stats()
    bar.close()
    print(f"{stats.succeeded:,} pages, {size / 1e6:.1f} MB, {stats.retried} retries, {stats.failed} not to be had")
    print(f"from request to answer: {stats.latency_mean * 1000:.0f} ms on average, {stats.latency_max:.1f} s at most")
    for name, number in lost.most_common():
        print(f"  {number} × {name}")


# --- the progress bar


class Bar:
    """Progress: a bar on a terminal, a line for every tenth elsewhere."""

    WIDTH = 40

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = self._retried = 0
        self._terminal = sys.stdout.isatty()
        self._start = self._shown = time.monotonic()
        self._tenths = 0

    @property
    def due(self) -> bool:
        """Whether it is time to be shown again."""
        if self._terminal:
            return time.monotonic() - self._shown > 0.05
        return (self._done + 1) * 10 // self._count > self._tenths

    def step(self, *, retried: int | None) -> None:
        """One more is done. `retried` is given when it is due to be shown."""
        self._done += 1
        if retried is not None:
            self._retried = retried
            self._show()

    def close(self) -> None:
        """Shows the last state, and leaves the line."""
        if self._terminal:
            self._show()
            print()

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._tenths = self._done * 10 // self._count
        rate = self._done / max(1e-9, self._shown - self._start)
        text = f"{self._done:>6,} of {self._count:,}  {rate:>6,.0f}/s  {self._retried} retries"
        if self._terminal:
            full = self.WIDTH * self._done // self._count
            print(f"\r{'█' * full}{'░' * (self.WIDTH - full)}  {text}", end="", flush=True)
        else:
            print(text, flush=True)


# --- a web server that has bad moments


class Server:
    """Answers on a loop of its own. Of 100 pages one is slow, five fail at the first request, one is not there."""

    def __init__(self) -> None:
        self._asked = Counter[int]()
        self._dice = random.Random(1)
        self._fate = [self._dice.random() for _ in range(1000)]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request."""
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            number = int(request.split()[1].removeprefix(b"/"))
            status, body = await self._page(number)
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _page(self, number: int) -> tuple[str, bytes]:
        self._asked[number] += 1
        fate = self._fate[number % len(self._fate)]
        if fate < 0.01:
            await asyncio.sleep(SLOW)
        elif fate < 0.06 and self._asked[number] == 1:
            return "503 Service Unavailable", b"try again\n"
        elif 0.06 <= fate < 0.07:
            return "404 Not Found", b"not here\n"
        return "200 OK", b"all is well\n" * 100


@contextmanager
def serving() -> Iterator[str]:
    """The server, on a free port of this machine; gives its address."""
    ready, address, server = threading.Event(), "", None  # held: a server that nobody holds stops
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        nonlocal address, server
        server = await asyncio.start_server(Server().answer, "127.0.0.1", 0, backlog=1000)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def main() -> int:
    """Exit code 0, or 130 after Ctrl-C."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else PAGES
    try:
        with serving() as address:
            download((f"{address}/{number}" for number in range(count)), count)
    except KeyboardInterrupt:
        print("\ninterrupted: what was under way has been told to end, what waited is dropped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
