"""A place: an address, with what all twins of a store share, and the names of its keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias
from uuid import UUID

from holdfast.clock import Span
from holdfast.job import QueueTerms
from holdfast.store import LEASE, Authority
from holdfast.stores.redis.address import Address
from holdfast.stores.redis.known import Whereabouts
from holdfast.stores.redis.resp import packed
from holdfast.stores.redis.scripts import CLOCK, Script, script
from holdfast.stores.unreadable import Told
from holdfast.stores.waiters import Waiters

LAYOUT = 2  # of the keys, as this code writes them
OLDEST_CODE = 1  # the oldest layout's code that can serve them

OF_A_QUEUE = (
    "meta",
    "jobs",
    "ready",
    "due",
    "dead",
    "cancelled",
    "final",
    "workers",
    "losses",
    "tickets",
    "holders",
    "unique",
    "idle",
)
OF_THE_REGISTRY = ("meta", "queues", "workers", "facts")


Declared: TypeAlias = tuple[QueueTerms, Authority]


class Keys:
    """The keys that a script declares. `base`: what stands before the name of each, as `{holdfast:mail}:`."""

    __slots__ = ("base", "count", "names", "packed")

    def __init__(self, base: str, names: Sequence[str]) -> None:
        self.base = base
        self.names = tuple(base + name for name in names)
        self.count = len(names)
        self.packed = packed((self.count, *self.names))

    def __getitem__(self, index: int) -> str:
        """As KEYS in Lua: from 1."""
        return self.names[index - 1]


@dataclass(slots=True)
class Place:
    """What is known of it grows while it is used; it is written on the event loops of all twins, in single steps."""

    address: Address
    shift: Span = 0
    clock: str = CLOCK  # the Lua text of now(shift); tests let it stand still
    shebang: bool = False  # tests: a server of a cluster then refuses keys of another slot
    lease: Span = LEASE  # of the registry, once it was opened
    store: UUID | None = None  # of the registry, once it was opened
    known_at: Span = 0  # by the server's clock: the registry that we know was made by then
    queues: set[str] = field(default_factory=set[str])  # names of which this process knows that the registry has them
    bounded: set[str] = field(default_factory=set[str])  # queues that had a bound when this process last enqueued there
    tickets: dict[UUID, int] = field(default_factory=dict[UUID, int])  # the last one that each worker used
    unclear: dict[UUID, dict[str, int]] = field(default_factory=dict[UUID, dict[str, int]])  # claims: queue, ticket
    served: dict[str, int] = field(default_factory=dict[str, int])  # in which turn a claim last took jobs of a queue
    turn: int = 0
    filled: set[str] = field(default_factory=set[str])  # queues that had queued jobs when a claim last looked
    whereabouts: Whereabouts = field(default_factory=Whereabouts)
    joined: set[str] = field(default_factory=set[str])  # queues that a worker of this process has joined
    said: dict[str, float] = field(default_factory=dict[str, float])  # when a queue's name was, by monotonic()
    told_same_id: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])  # queues of which the log was told
    told: Told = field(default_factory=Told)
    declared: dict[str, Declared] = field(default_factory=dict[str, "Declared"])  # by this process
    undeclared: bool = False  # whether the server has lost that, and was not told again through a lane
    waiters: Waiters = field(default_factory=Waiters)  # for jobs of queues
    watchers: Waiters = field(default_factory=Waiters)  # for the ends of jobs, by their ids
    told_durability: bool = False  # whether the log was told what the server can lose
    unreplicated: bool = False  # whether the log was told that replicas do not confirm
    registry: Keys = field(init=False)

    def __post_init__(self) -> None:
        self.registry = Keys(f"{{{self.address.prefix}}}:", OF_THE_REGISTRY)

    @property
    def prefix(self) -> str:
        return self.address.prefix

    @property
    def url(self) -> str:
        return self.address.url

    def begin_anew(self, store: UUID, lease: Span, made: int) -> None:
        """The server lost what it had, and has a registry that was made by then."""
        self.store, self.lease, self.known_at = store, lease, made
        self.queues.clear()
        self.said.clear()
        self.tickets.clear()
        self.undeclared = bool(self.declared)

    @property
    def channel(self) -> str:
        """On which the names of queues are published that have jobs now; ring() in prelude.lua knows it, too."""
        return f"{self.registry.base}wake"

    @property
    def ended(self) -> str:
        """On which the ids of jobs are published that were watched and have ended, by tell_end() in jobs.lua."""
        return f"{self.registry.base}ended"

    def script(self, name: str) -> Script:
        """The script of `scripts/<name>.lua`, with this place's clock."""
        return script(name, self.clock, shebang=self.shebang)


@lru_cache(maxsize=4096)
def _keys(prefix: str, queue: str) -> Keys:
    return Keys(f"{{{prefix}:{queue}}}:", OF_A_QUEUE)


def queue_keys(place: Place, queue: str) -> Keys:
    """The fixed keys of a queue."""
    return _keys(place.address.prefix, queue)


def job_key(place: Place, queue: str, id: UUID) -> str:
    """The key of a job in a queue."""
    return f"{queue_keys(place, queue).base}job:{id}"


def names_of(replies: Iterable[bytes]) -> set[str]:
    """Names of queues, as the registry has them; without what is no name, as another program may have put there."""
    try:
        return {name.decode() for name in replies}
    except UnicodeDecodeError:
        return {name.decode() for name in replies if name.isascii()}
