"""Every key of a server, as it was before a script was called: what the script does to it, and what it leaves alone.

with recorded(bench) as (port, calls): ...  # a store at the port is used, and each of its scripts is taken down
bench.play(text, call, broken=...)  # and is played again, with one thing broken
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import redis

from tests.flows.proxy import Proxy
from tests.flows.resp import tapped
from tools.servers import Valkey

Snapshot = Mapping[bytes, tuple[bytes, int]]  # by key: what is in it, and whether it expires
# With these, what has the same content is the same byte for byte: a table of the server's has no fixed order.
FLAT = {f"{kind}-max-listpack-{what}": 1_000_000 for kind in ("hash", "set", "zset") for what in ("entries", "value")}
_KEY = re.compile(r"\{[^{}\"]+\}:")
_READ = """
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    all[#all + 1] = key
    all[#all + 1] = redis.call('DUMP', key)
    all[#all + 1] = redis.call('PTTL', key) > 0 and 1 or 0
end
return all
"""
_WRITE = """
redis.call('FLUSHDB')
for i = 1, #ARGV, 2 do
    redis.call('RESTORE', ARGV[i], 0, ARGV[i + 1])
end
"""


@dataclass(frozen=True)
class Call:
    """One script as the store called it."""

    sha: str
    keys: tuple[bytes, ...]
    args: tuple[bytes, ...]
    before: Snapshot


class Played(NamedTuple):
    """What became of one call: the error, if there was one, and the keys that are not as they were."""

    error: str
    changed: Mapping[bytes, str]  # created, changed, deleted

    @property
    def kinds(self) -> frozenset[tuple[str, str]]:
        return frozenset((kind(key), what) for key, what in self.changed.items())


def kind(key: bytes) -> str:
    """What a key is for, without the queue and the id."""
    return key.rpartition(b"}:")[2].partition(b":")[0].decode()


class Bench:
    """A server of the test's own, on which calls are played."""

    def __init__(self, server: Valkey) -> None:
        self.server = server
        self.redis = redis.Redis(port=server.port, protocol=2, socket_timeout=30)
        for name, value in FLAT.items():
            self.redis.config_set(name, value)
        self._intact: tuple[Snapshot, Snapshot] | None = (
            None  # what was written last, and how it reads, if it is so still
        )

    def close(self) -> None:
        self.redis.close()

    def read(self) -> Snapshot:
        said = self.redis.eval(_READ, 0)
        return {key: (value, expires) for key, value, expires in zip(said[::3], said[1::3], said[2::3], strict=True)}

    def write(self, snapshot: Snapshot) -> None:
        self.redis.eval(_WRITE, 0, *(word for key, (value, _) in snapshot.items() for word in (key, value)))

    def trace(self, text: bytes, call: Call) -> list[tuple[str, list[bytes]]]:
        """The commands that the script gives, in order: each with the keys that it names."""
        self.write(call.before)
        self._intact = None
        given = []
        with self.redis.monitor() as monitor:
            self.redis.eval(text, len(call.keys), *call.keys, *call.args)
            self.redis.echo("over")
            while (said := monitor.next_command())["command"] != "ECHO over":
                if said["client_type"] == "lua":
                    command, *words = said["command"].split(" ")
                    given.append((command.upper(), [word.encode() for word in words if _KEY.match(word)]))
        return given

    def play(
        self,
        text: bytes,
        call: Call,
        *,
        broken: Callable[[Bench], contextlib.AbstractContextManager[None]] | None = None,
        keys: Sequence[bytes] | None = None,
        args: Sequence[bytes] | None = None,
    ) -> Played:
        """Runs the script in the keyspace that it met, once it is `broken`; with other keys or arguments."""
        keys, args = call.keys if keys is None else keys, call.args if args is None else args
        before = self._written(call.before)
        with broken(self) if broken else contextlib.nullcontext():
            if broken:
                self._intact, before = None, self.read()
            error = ""
            try:
                self.redis.eval(text, len(keys), *keys, *args)
            except redis.ResponseError as refusal:
                error = str(refusal) or "an error"
        changed = difference(before, self.read())
        if changed:
            self._intact = None
        return Played(error, changed)

    def _written(self, snapshot: Snapshot) -> Snapshot:
        """As it reads, once it is written anew; which takes no time where nothing has changed."""
        if self._intact is None or self._intact[0] is not snapshot:
            self.write(snapshot)
            self._intact = snapshot, self.read()
        return self._intact[1]


def difference(before: Snapshot, after: Snapshot) -> Mapping[bytes, str]:
    changed = dict.fromkeys(after.keys() - before.keys(), "created")
    changed |= dict.fromkeys(before.keys() - after.keys(), "deleted")
    return changed | {key: "changed" for key in before.keys() & after.keys() if before[key] != after[key]}


@contextlib.contextmanager
def recorded(bench: Bench) -> Iterator[tuple[int, list[Call]]]:
    """A port at which the server is reached, and the calls of scripts that are made there, each taken down once."""
    calls: list[Call] = []

    def tap(words: list[bytes]) -> None:
        if words[0].upper() != b"EVALSHA":
            return
        number = int(words[2])
        keys, args = tuple(words[3 : 3 + number]), tuple(words[3 + number :])
        call = Call(words[1].decode(), keys, args, bench.read())
        if not calls or calls[-1] != call:
            calls.append(call)

    with Proxy("127.0.0.1", bench.server.port, tapped(tap)) as proxy:
        yield proxy.port, calls
