"""Arrays as parameters in binary form, packed at once: psycopg would look at each element, which costs more than the
statement.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from uuid import UUID

from psycopg import adapters
from psycopg.adapt import Dumper
from psycopg.pq import Format

_UUID, _BIGINT, _INTEGER, _BOOLEAN, _BYTEA = 2950, 20, 23, 16, 17  # pg_type.oid of the elements


class Packed(bytes):
    """An array as it stands in a message."""


class Uuids(Packed): ...


class Bigints(Packed): ...


class Integers(Packed): ...


class Booleans(Packed): ...


class Byteas(Packed): ...


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> bytes:
        return obj


class _UuidsDumper(_Dumper):
    oid = 2951


class _BigintsDumper(_Dumper):
    oid = 1016


class _IntegersDumper(_Dumper):
    oid = 1007


class _BooleansDumper(_Dumper):
    oid = 1000


class _ByteasDumper(_Dumper):
    oid = 1001


for _packed, _dumper in (
    (Uuids, _UuidsDumper),
    (Bigints, _BigintsDumper),
    (Integers, _IntegersDumper),
    (Booleans, _BooleansDumper),
    (Byteas, _ByteasDumper),
):
    adapters.register_dumper(_packed, _dumper)


def uuids(ids: Sequence[UUID]) -> Uuids:
    return Uuids(_head(len(ids), _UUID) + b"".join([b"\0\0\0\x10" + one.bytes for one in ids]))


def bigints(numbers: Sequence[int | None]) -> Bigints:
    if None in numbers:
        values = [None if one is None else one.to_bytes(8, signed=True) for one in numbers]
        return Bigints(_with_nulls(_BIGINT, values))
    return Bigints(_head(len(numbers), _BIGINT) + _fixed("q", 8, numbers))


def integers(numbers: Sequence[int]) -> Integers:
    return Integers(_head(len(numbers), _INTEGER) + _fixed("i", 4, numbers))


def booleans(flags: Sequence[bool]) -> Booleans:
    return Booleans(_head(len(flags), _BOOLEAN) + _fixed("?", 1, flags))


def byteas(values: Sequence[bytes | None]) -> Byteas:
    return Byteas(_with_nulls(_BYTEA, values))


@lru_cache(maxsize=1024)
def _head(length: int, oid: int, nulls: int = 0) -> bytes:
    """https://github.com/postgres/postgres/blob/REL_18_0/src/backend/utils/adt/arrayfuncs.c array_recv"""
    if not length:
        return struct.pack(">iiI", 0, 0, oid)
    return struct.pack(">iiIii", 1, nulls, oid, length, 1)


@lru_cache(maxsize=1024)
def _layout(code: str, length: int) -> struct.Struct:
    return struct.Struct(">" + f"i{code}" * length)


def _fixed(code: str, size: int, values: Sequence[int | None]) -> bytes:
    both: list[int | None] = [size] * (2 * len(values))
    both[1::2] = values
    return _layout(code, len(values)).pack(*both)


def _with_nulls(oid: int, values: Iterable[bytes | None]) -> bytes:
    parts = [b"\xff\xff\xff\xff" if one is None else len(one).to_bytes(4) + one for one in values]
    return _head(len(parts), oid, 1) + b"".join(parts)
