"""What a pool and its processes say to each other: pickles, each after its length; `__main__` has its real name."""

from __future__ import annotations

import io
import pickle
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from uuid import UUID

from holdfast.errors import PayloadError

BEGUN = b"begun"  # instead of an answer, before it: the process is there, and the call's time begins
_LENGTH = struct.Struct("!Q")


class About(NamedTuple):
    """Which call it is, for `current_job()`. `seconds`: its timeout."""

    name: str
    id: UUID
    attempt: int
    runs: int
    seconds: float | None


class Answer(NamedTuple):
    """What came of a call: its value, its error, or the error's type and message where it cannot be pickled."""

    kind: Literal["value", "error", "said"]
    what: Any
    traceback: str = ""


def pickled(what: str, value: object) -> bytes:
    """PayloadError, saying what cannot be pickled."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise PayloadError(f"{what} cannot be pickled, as run_in='process' needs: {_said(error)}") from error


def pickled_call(name: str, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """A function and its arguments; PayloadError naming the one that cannot be pickled."""
    call = (fn, args, kwargs)
    try:
        return pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001  # whatever a user's own __reduce__ raises; the parts will say which
        pickled(f"fn={name}", fn)
        for place, value in enumerate(args):
            pickled(f"argument {place} of {name} (a {type(value).__name__})", value)
        for key, value in kwargs.items():
            pickled(f"argument {key}= of {name} (a {type(value).__name__})", value)
        return pickled(f"the call of {name}", call)


def unpickled(data: bytes, main: str) -> Any:
    """The value again. What is of the script `main` is of `__main__`, where that is the script, and the reverse."""
    return _Reader(io.BytesIO(data), main).load()


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, main: str) -> None:
        super().__init__(file)
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__" and self._main in sys.modules:
            module = self._main
        elif module == self._main and module not in sys.modules:
            module = "__main__"
        return super().find_class(module, name)


def send(end: socket.socket, data: bytes) -> None:
    """Sends one. OSError if the other end is gone."""
    end.sendall(_LENGTH.pack(len(data)) + data)


def receive(end: socket.socket, goes_on: Callable[[], bool] = lambda: True) -> bytes | None:
    """The next one; None when the other end is gone, or when `goes_on`, asked now and then, says no."""
    try:
        length = _exactly(end, _LENGTH.size, goes_on)
        return None if length is None else _exactly(end, _LENGTH.unpack(length)[0], goes_on)
    except OSError:
        return None


def _exactly(end: socket.socket, length: int, goes_on: Callable[[], bool]) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        last = not goes_on()  # before the look: what it has sent until then is there
        try:
            part = end.recv(min(length - len(data), 2**20))
        except TimeoutError:
            if last:
                return None
            continue
        if not part:
            return None
        data += part
    return bytes(data)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
