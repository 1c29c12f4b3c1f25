"""Replies out of the bytes that come, RESP2 and RESP3: by hiredis where it is installed, else in Python."""

from __future__ import annotations

from typing import Any, Final, Protocol

from holdfast.stores.redis.resp import Refusal, Reply

UNFINISHED: Final = object()  # what `gets` returns when the rest of a reply has not come yet
_LONGEST_LINE = 1 << 16
_END = b"\r\n"


class Garbled(Exception):
    """What came is not this protocol."""


class Push(list[Reply]):
    """A message that nobody asked for."""


class Reader(Protocol):
    """Bytes in, replies out; raises Garbled."""

    def feed(self, data: bytes, /) -> object: ...

    def gets(self) -> Reply: ...


def reader() -> Reader:
    """Refusals stand where replies would."""
    try:
        import hiredis
    except ImportError:
        return PlainReader()
    made: Reader = hiredis.Reader(protocolError=Garbled, replyError=Refusal, notEnoughData=UNFINISHED)
    return made


def pushes() -> tuple[type, ...]:
    """The types of messages that nobody asked for."""
    try:
        from hiredis import PushNotification
    except ImportError:
        return (Push,)
    return (Push, PushNotification)


class _Open:
    """A list, set or map whose elements still come."""

    __slots__ = ("items", "kind", "left")

    def __init__(self, kind: int, left: int) -> None:
        self.kind = kind
        self.left = left
        self.items: list[Any] = []

    def closed(self) -> Reply:
        if self.kind in b"%|":
            return dict(zip(self.items[::2], self.items[1::2], strict=True))
        return Push(self.items) if self.kind == 0x3E else self.items


class PlainReader:
    """Goes on where it stopped: a long list is not begun anew with every piece of it."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._at = 0
        self._open = list[_Open]()

    def feed(self, data: bytes) -> None:
        """More bytes."""
        if self._at:
            del self._bytes[: self._at]
            self._at = 0
        self._bytes += data

    def gets(self) -> Reply:
        """The next whole reply, or UNFINISHED."""
        try:
            return self._next()
        except (ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise Garbled(f"{type(error).__name__}: {error}") from None

    def _next(self) -> Reply:
        while True:
            value = self._element()
            if value is UNFINISHED:
                return value
            while True:
                if isinstance(value, _Open):
                    if value.left:
                        self._open.append(value)
                        break
                    if value.kind == 0x7C:  # attributes of the value behind them: thrown away
                        break
                    value = value.closed()
                if not self._open:
                    return value
                top = self._open[-1]
                top.items.append(value)
                top.left -= 1
                if top.left:
                    break
                value = self._open.pop()

    def _element(self) -> Any:
        """One value, an aggregate that opens, or UNFINISHED with nothing taken."""
        end = self._bytes.find(_END, self._at)
        if end < 0:
            if len(self._bytes) - self._at > _LONGEST_LINE:
                raise ValueError("a line without an end")
            return UNFINISHED
        kind, line = self._bytes[self._at], bytes(self._bytes[self._at + 1 : end])
        match kind:
            case 0x24 | 0x3D | 0x21:  # $ = !: so many bytes
                return self._bulk(kind, int(line), end + 2)
            case 0x2A | 0x7E | 0x3E | 0x25 | 0x7C:  # * ~ > % |: so many values
                count = int(line)
                self._at = end + 2
                if count < 0:
                    return None
                return _Open(kind, count * 2 if kind in b"%|" else count)
            case _:
                value = _simple(kind, line)
                self._at = end + 2
                return value

    def _bulk(self, kind: int, size: int, start: int) -> Any:
        if size < 0:
            self._at = start
            return None
        if len(self._bytes) < start + size + 2:
            return UNFINISHED
        self._at = start + size + 2
        value = bytes(self._bytes[start : start + size])
        if kind == 0x21:
            return Refusal(value.decode("utf-8", "replace"))
        return value[4:] if kind == 0x3D else value  # verbatim: without `txt:`


def _simple(kind: int, line: bytes) -> Any:
    match kind:
        case 0x3A | 0x28:  # : (
            return int(line)
        case 0x2B:  # +
            return line
        case 0x2D:  # -
            return Refusal(line.decode("utf-8", "replace"))
        case 0x5F:  # _
            return None
        case 0x23:  # #
            return line == b"t"
        case 0x2C:  # ,
            return float(line)
        case _:
            raise ValueError(f"a reply that begins with {chr(kind)!r}")
