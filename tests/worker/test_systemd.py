"""systemd: what is said at its socket, and that nothing is said where nobody listens."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.worker.systemd import QUIET, Notice


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def said(systemd: socket.socket) -> list[str]:
    return systemd.recv(4096).decode().split("\n")


def test_it_says_that_it_is_ready_how_it_is_and_that_it_stops(systemd: socket.socket) -> None:
    notice = Notice({"NOTIFY_SOCKET": systemd.getsockname()})
    assert notice.heard
    notice.ready("ready")
    assert said(systemd) == ["READY=1", "STATUS=ready"]
    notice.status("ready")
    notice.status("not ready; store:\nconnection refused")
    assert said(systemd) == ["STATUS=not ready; store: connection refused"], "a status is said once, on one line"
    notice.stopping()
    assert said(systemd)[0] == "STOPPING=1"


def test_the_watchdog_hears_twice_within_its_time(systemd: socket.socket) -> None:
    notice = Notice(
        {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    )
    assert notice.goes_on() == 1.5
    assert said(systemd) == ["WATCHDOG=1"]


@pytest.mark.parametrize("changes", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_PID": "1"}])
def test_a_watchdog_that_is_none_or_anothers_hears_nothing(systemd: socket.socket, changes: dict[str, str]) -> None:
    base = {"WATCHDOG_USEC": "3000000"} if "WATCHDOG_PID" in changes else {}
    notice = Notice({"NOTIFY_SOCKET": systemd.getsockname(), **base, **changes})
    assert notice.goes_on() == QUIET
    notice.stopping()
    assert said(systemd)[0] == "STOPPING=1"


def test_an_abstract_socket_is_found() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0holdfast-test-{os.getpid()}")
        listening.settimeout(30)
        Notice({"NOTIFY_SOCKET": f"@holdfast-test-{os.getpid()}"}).ready("ready")
        assert said(listening)[0] == "READY=1"


def test_a_socket_that_is_gone_or_nobodys_is_no_trouble(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}, {"NOTIFY_SOCKET": "a\0b"}):
        notice = Notice(environment)
        notice.ready("ready")
        notice.stopping()
        assert notice.goes_on() == QUIET
