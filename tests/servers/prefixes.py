"""Places for jobs in a Redis or Valkey server: prefixes of ours, a fresh one for each use, emptied behind it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote

import redis

OURS = "Tests of.holdfast"  # whoever forgets to quote a prefix fails everywhere


class Prefix(NamedTuple):
    """One place: the keys that begin with `name`."""

    name: str
    server: str

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"{self.server}?prefix={quote(self.name)}"


class Prefixes:
    """What a server's places are lent by; `server`: its URL, without options. At the end no key of ours is left."""

    def __init__(self, server: str) -> None:
        if "?" in server:
            raise ValueError("TEST_REDIS_URL: give a URL without options, such as redis://127.0.0.1:6379/0")
        self.server = server
        self._ours = f"{OURS}-{os.getpid()}-{secrets.token_hex(4)}"
        self._lent = 0
        self._client = redis.Redis.from_url(server)

    @contextmanager
    def bare(self) -> Iterator[Prefix]:
        """A prefix that nobody has used."""
        self._lent += 1
        prefix = Prefix(f"{self._ours}-{self._lent}", self.server)
        try:
            yield prefix
        finally:
            self._empty(f"{{{prefix.name}[:}}]*")

    def _empty(self, pattern: str) -> None:
        """Takes all keys out whose names are like `pattern`: `{prefix}:…` and `{prefix:queue}:…`."""
        cursor = None
        while cursor != 0:
            cursor, keys = self._client.scan(cursor or 0, pattern, count=1000)
            with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:  # one at a time: they are of several slots
                    pipeline.unlink(key)
                pipeline.execute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._empty(f"{{{self._ours}-*")
        self._client.close()
