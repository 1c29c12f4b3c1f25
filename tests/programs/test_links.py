"""A script on a Pool: pages fetched with retries, as they come, and left with Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import until

SCRIPT = Path(__file__).with_name("links.py")
CONCURRENCY, MOST = 8, 50  # pages at a time, and at hand


class Pages(ThreadingHTTPServer):
    """/page/7 is 7 bytes long; /flaky is there at the third request, /gone never, /slow when it is let go."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked = Counter[str]()
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.together = threading.Barrier(2)
        self.let_go = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, *_: Any) -> None:
        """A client that has left is nobody's fault."""


class _Answer(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        pages = self.server
        with pages.lock:
            pages.asked[self.path] += 1
            pages.now += 1
            pages.most = max(pages.most, pages.now)
        try:
            self._answer(pages)
        finally:
            with pages.lock:
                pages.now -= 1

    def _answer(self, pages: Pages) -> None:
        kind, _, number = self.path[1:].partition("/")
        if kind == "slow":
            pages.let_go.wait(60)
        if kind == "pair":  # one of two that are only answered together
            pages.together.wait(60)
        status = {"gone": 404, "flaky": 200 if pages.asked[self.path] > 2 else 503}.get(kind, 200)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"x" * (int(number) if status == 200 else 0))

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def pages() -> Iterator[Pages]:
    with Pages() as pages:
        thread = threading.Thread(target=pages.serve_forever, daemon=True)
        thread.start()
        yield pages
        pages.let_go.set()
        pages.shutdown()
        thread.join(30)


class Script:
    """The script in a process of its own, on a list of these paths."""

    def __init__(self, folder: Path, pages: Pages, paths: list[str]) -> None:
        listed = folder / "list"
        listed.write_text("\n".join(map(pages.url, paths)))
        self._out, self._log = folder / "out", folder / "log"
        with self._out.open("wb") as out, self._log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, SCRIPT, listed], stdout=out, stderr=log)

    def said(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()


@pytest.mark.timeout(120)
def test_every_page_is_told_of_and_what_was_away_for_a_moment_asked_again(pages: Pages, tmp_path: Path) -> None:
    there = [f"/page/{size}" for size in range(100)] + ["/pair/1", "/pair/2"]
    flaky = [f"/flaky/{size}" for size in range(200, 220)]
    gone = [f"/gone/{number}" for number in range(5)]
    script = Script(tmp_path, pages, [*there, *gone, *flaky])
    assert script.end() == 0, script.log
    *lines, summary = script.said()
    told = dict(line.split(" ", 1) for line in lines)
    assert told == {
        **{pages.url(path): path.rpartition("/")[2] for path in (*there, *flaky)},
        **{pages.url(path): "Permanent: 404 Not Found" for path in gone},
    }
    assert len(lines) == len(told), "a page was told of twice"
    assert summary == f"{len(there) + len(flaky)} are there, {len(gone)} are not; asked again {2 * len(flaky)} times"
    assert pages.asked == Counter({**dict.fromkeys((*there, *gone), 1), **dict.fromkeys(flaky, 3)})
    assert pages.most <= CONCURRENCY


@pytest.mark.timeout(120)
def test_ctrl_c_leaves_at_once_what_has_not_begun(pages: Pages, tmp_path: Path) -> None:
    slow = [f"/slow/{number}" for number in range(300)]
    script = Script(tmp_path, pages, ["/page/1", "/page/2", *slow])
    until(lambda: len(script.said()) == 2 and pages.now == CONCURRENCY, "two pages, and slow ones in every slot")
    script.process.send_signal(signal.SIGINT)
    until(lambda: len(script.said()) == 3, "its last word")
    pages.let_go.set()
    assert script.end() == -signal.SIGINT, script.log
    assert "KeyboardInterrupt" in script.log
    assert "event=stuck" not in script.log
    assert sum(pages.asked.values()) == 2 + CONCURRENCY, "pages were asked for after Ctrl-C"
    *told, left = script.said()
    assert sorted(told) == [f"{pages.url('/page/1')} 1", f"{pages.url('/page/2')} 2"]
    assert 0 <= MOST - CONCURRENCY - int(left.split()[1]) <= 2, f"{left}, and two of their places may be empty yet"
