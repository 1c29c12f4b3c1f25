"""What makes two errors the same to people: what counts, what does not, and that no message takes long."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigError
from holdfast.fingerprint import DIGITS, as_fingerprint, fingerprint, shape
from holdfast.job import Failed, Failure, Loss, Lost, State, Succeeded, Verdict
from holdfast.policy import decide, failure, unrecordable
from tests.test_policy import claim

SHOP = """
import json

def look_up(orders, number):
    return orders[number]

def send(number):
    return look_up({}, number)

def parse(text):
    return json.loads(text)

def price(text):
    return json.loads(text)
"""


def raised(call: Any, *args: object) -> Failure:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever it is
        call(*args)
    return failure(caught.value)


def shop(path: Path, above: str = "") -> dict[str, Any]:
    """The shop's functions, as they are when its file lies at `path`, with `above` before them."""
    names: dict[str, Any] = {}
    exec(compile(above + SHOP, path, "exec"), names)
    return names


FIRST = shop(Path("/srv/releases/41/shop/orders.py"))


def mark(error: Failure | None, task: str = "shop.orders.send") -> str:
    return fingerprint(task, error)


def test_it_is_short_and_the_same_in_every_process() -> None:
    code = "from holdfast.fingerprint import *; print(fingerprint('a.b', None, 'order 7 is gone'))"
    made = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout for _ in "ab"
    }
    assert made == {fingerprint("a.b", None, "order 8 is gone").encode() + b"\n"}
    assert len(fingerprint("a.b", None, "")) == DIGITS


def test_numbers_lines_and_folders_do_not_count() -> None:
    later = shop(Path("/srv/releases/42/shop/orders.py"), above="# a comment\n\n")
    assert mark(raised(FIRST["send"], 7)) == mark(raised(later["send"], 123456))


def test_the_task_the_type_the_message_and_the_own_function_count() -> None:
    marks = {
        mark(raised(FIRST["send"], 7)),
        mark(raised(FIRST["send"], 7), task="shop.orders.other"),
        mark(raised(FIRST["send"], "seven")),  # KeyError: 'seven', a quotation
        mark(raised(FIRST["look_up"], [], 7)),  # IndexError
        mark(raised(FIRST["parse"], "{")),
        mark(raised(FIRST["price"], "{")),  # the library's frames are the same
        mark(raised(shop(Path("/srv/shop/prices.py"))["send"], 7)),
    }
    assert len(marks) == 7


def test_where_a_library_raises_counts_only_which_own_function_called_it() -> None:
    assert "json/decoder.py" in raised(FIRST["parse"], "{").traceback
    assert mark(raised(FIRST["parse"], "{")) == mark(raised(lambda: FIRST["parse"](" {")))


def test_an_installed_package_is_own_code_where_the_task_is_of_it() -> None:
    at = Path("/venv/lib/python3.12/site-packages/shop/orders.py")
    installed = shop(at)
    assert mark(raised(installed["send"], 7)) == mark(raised(FIRST["send"], 7))
    others = mark(raised(installed["send"], 7), task="till.send")
    assert others == mark(raised(installed["look_up"], {}, 7), task="till.send"), "a library's functions do not count"


def test_what_a_message_says_of_files_does_not_count() -> None:
    text = 'remote said:\n  File "/a/b.py", line 3, in there\n    there()\n'

    def fail(more: str) -> None:
        raise RuntimeError(text + more)

    assert mark(raised(fail, "")) == mark(raised(fail, '  File "/c/d.py", line 9, in elsewhere\n'))


def test_where_a_crash_or_a_timeout_strikes_does_not_count() -> None:
    here, there = 'File "/srv/shop/orders.py", line 1, in send\n', 'File "/srv/shop/orders.py", line 9, in parse\n'
    text = "ran longer than its timeout of 30 s"
    assert mark(Failure("TimeoutError", text, here)) == mark(
        Failure("TimeoutError", f"{text}; its process was ended", there)
    )
    killed = "its process (pid {}) ended: killed by signal 9 (SIGKILL); it held up to {} MiB of memory"
    assert mark(Failure("Lost", killed.format(7, 80), here)) == mark(Failure("Lost", killed.format(8, 81), there))
    crashed = "its process (pid 9) ended: killed by signal 11 (SIGSEGV); it held up to 80 MiB of memory"
    assert mark(Failure("Lost", killed, here)) != mark(Failure("Lost", crashed, here))


def test_a_group_of_errors_is_known_by_the_place_of_its_members() -> None:
    def both(call: Any, *args: object) -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001  # any
            raise ExceptionGroup("2 failed", [error]) from None

    assert mark(raised(both, FIRST["send"], 7)) == mark(raised(both, FIRST["send"], 8))


@pytest.mark.parametrize(
    ("verdict", "dead"),
    [
        (Failed(Failure("KeyError", "7", ""), final=True), True),
        (Failed(Failure("KeyError", "7", "")), False),
        (Lost(Loss("killed", culprit=True)), True),
        (Succeeded(b"1"), False),
    ],
)
def test_a_death_is_marked_and_nothing_else(verdict: Verdict, dead: bool) -> None:
    outcome = decide(claim(crashes=2), verdict)
    assert (outcome.state is State.DEAD) is dead
    assert bool(outcome.fingerprint) is dead
    assert outcome.if_cancelled is None or not outcome.if_cancelled.fingerprint


def test_what_cannot_be_recorded_is_marked_for_all_tasks_alike() -> None:
    marks = {unrecordable(decide(claim(task=task), Succeeded(b"")), ValueError("no room")).fingerprint for task in "ab"}
    assert len(marks) == 1
    assert marks != {""}


def test_what_users_give_as_one() -> None:
    assert as_fingerprint(" f:7C1E90ab12cd ") == as_fingerprint("7c1e90ab12cd") == "7c1e90ab12cd"


@pytest.mark.parametrize("text", ["", "7c1e90", "7c1e90ab12cz", "7c1e90ab12cd0", "٧c1e90ab12cd", 7, None])
def test_what_is_none_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match=r"fingerprint=.*12 hexadecimal digits"):
        as_fingerprint(text)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("smtp.example.com:587 did not answer in 30 s", "<host> did not answer in <n> s"),
        ("connection to 10.0.0.7 refused, errno 111", "connection to <host> refused, errno <n>"),
        ("no user 01a20391-922e-7b4c-a1d0-5f6e8c2b7c3e", "no user <id>"),
        ("order 42: no address", "order <n>: no address"),
        ("GET https://api.example.com/v1/orders/7?x=y: 503", "GET <url> <n>"),
        ("cannot open /var/lib/shop/orders/42.json", "cannot open <path>"),
        ("'sku' is missing in \"order 7\"", "<text> is missing in <text>"),
        ("it's not the customer's fault", "it's not the customer's fault"),
        ("commit deadbeef01 is gone, pointer 0x7f00", "commit <hex> is gone, pointer <hex>"),
        ("ann@example.com bounced 2.5 times", "<mail> bounced <n> times"),
        ("no route to mail.shop.example nor fe80::1ff:23", "no route to <host> nor <host>"),
        ("std::vector is full", "std::vector is full"),
        ("first line\nsecond 1", "first line"),
        ("", ""),
    ],
)
def test_shapes(message: str, expected: str) -> None:
    assert shape(message) == expected


@pytest.mark.parametrize(
    "message", ["1" * 100_000, "'" * 100_000, "a." * 50_000, "/a" * 50_000, "a@" * 50_000, "f1" * 50_000]
)
def test_no_message_takes_long(message: str) -> None:
    assert len(shape(message)) <= 900
