"""What the server can lose, said plainly; and waiting for its replicas, where the URL asks for it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.errors import StoreAway, StoreError
from holdfast.observe.logging import stores, tell, told_by_parent
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import Place
from holdfast.stores.redis.resp import Refusal, Reply
from holdfast.stores.redis.trouble import READ_ONLY

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
_SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy")


@dataclass(frozen=True, slots=True)
class Server:
    """What it says of itself; None for what it would not say."""

    info: Mapping[str, str]
    settings: Mapping[str, str]

    @property
    def name(self) -> str | None:
        """Such as "valkey 9.1.2"."""
        for kind in ("valkey", "redis"):
            if version := self.info.get(f"{kind}_version"):
                return f"{kind} {version}"
        return None

    @property
    def policy(self) -> str | None:
        return self.settings.get("maxmemory-policy") or self.info.get("maxmemory_policy")

    @property
    def maxmemory(self) -> int | None:
        said = self.settings.get("maxmemory") or self.info.get("maxmemory")
        return int(said) if said is not None and said.isdecimal() else None

    @property
    def loses(self) -> str | None:
        """By a crash of the server; None where it cannot be told."""
        appends, syncs = self.settings.get("appendonly"), self.settings.get("appendfsync")
        if appends is None and (said := self.info.get("aof_enabled")):
            appends = "yes" if said == "1" else "no"
        match appends, syncs, self.settings.get("save"):
            case "yes", "always", _:
                return "nothing"
            case "yes", "everysec", _:
                return "the last second or two"
            case "yes", "no", _:
                return "what its system had not written yet, half a minute or so"
            case "yes", _, _:
                return "the last seconds, or more: appendfsync is unknown"
            case "no", _, "":
                return EVERYTHING
            case "no", _, str(points):
                return f"all since its last snapshot (save {points})"
            case "no", _, None:
                return "all since its last snapshot, if it makes any"
            case _:
                return None

    @property
    def failing(self) -> str | None:
        """What it could not write lately."""
        kinds = {"aof_last_write_status": "the append-only file", "rdb_last_bgsave_status": "its snapshot"}
        failed = [what for field, what in kinds.items() if self.info.get(field, "ok") != "ok"]
        return " and ".join(failed) or None


EVERYTHING = "everything"


async def look(lane: Lane) -> Server:
    """Asks it; what the user may not ask is missing."""
    info, *settings = await lane.replies([("INFO",), *(("CONFIG", "GET", setting) for setting in _SETTINGS)])
    said = (
        {}
        if isinstance(info, Refusal)
        else dict(re.findall(r"^(\w+):(.*?)\r?$", info.decode("utf-8", "replace"), re.MULTILINE))
    )
    return Server(said, {name: value for reply in settings for name, value in _pairs(reply)})


def _pairs(reply: Reply) -> list[tuple[str, str]]:
    """RESP3 has a map, RESP2 a list."""
    match reply:
        case {**pairs}:
            said: list[Any] = [word for pair in pairs.items() for word in pair]
        case [*words]:
            said = list(words)
        case _:
            return []
    texts = [word.decode("utf-8", "replace") for word in said]
    return list(zip(texts[::2], texts[1::2], strict=False))


def refuse_unfit(server: Server, place: Place) -> None:
    """StoreError for a server that is too old, or evicts; StoreAway for a replica, as in the middle of a failover."""
    if server.name:
        kind, _, version = server.name.partition(" ")
        oldest = OLDEST[kind]
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < oldest:
            raise StoreError(
                f"{place.url}: the server is {kind} {version}, and Holdfast needs {oldest[0]}.{oldest[1]} or newer"
            )
    if server.info.get("role") == "slave":
        raise StoreAway(f"{place.url}: {READ_ONLY}")
    policy, allowed = server.policy, place.address.allow_eviction
    if policy and policy != "noeviction" and server.maxmemory and policy != allowed:
        raise StoreError(
            f"{place.url}: the server evicts keys when its memory is full (maxmemory-policy {policy}): jobs would "
            "vanish without a word. Set maxmemory-policy noeviction, or accept it with ?allow_eviction="
            f"{policy}{f' (the URL allows {allowed})' if allowed else ''}"
        )


def tell_durability(server: Server, place: Place) -> None:
    """One line of the log, once for a place, and of a service's processes by the first alone: a warning where
    everything can be lost, or nothing can be written.
    """
    if place.told_durability or "durability" in told_by_parent:
        return
    place.told_durability = True
    loses, failing = server.loses, server.failing
    wait = place.address.wait
    tell(
        stores,
        logging.WARNING if loses == EVERYTHING or failing else logging.INFO,
        "durability",
        store=place.url,
        server=server.name or "unknown",
        appendonly=server.settings.get("appendonly", server.info.get("aof_enabled", "unknown")),
        appendfsync=server.settings.get("appendfsync", "unknown"),
        policy=server.policy or "unknown",
        replicas=server.info.get("connected_slaves", "unknown"),
        wait=wait or None,
        cannot_write=failing,
        message=f"a crash of the server loses {loses or 'what cannot be told: INFO and CONFIG GET are forbidden'}; "
        + ("a failover, what no replica had confirmed" if wait else "a failover, what was not replicated yet"),
    )


# --- replicas


async def confirm_enqueued(lane: Lane) -> None:
    """StoreAway where fewer replicas than the URL asks for have what was enqueued."""
    if (reached := await _missed(lane)) is not None:
        wanted = lane.place.address.wait
        raise StoreAway(
            f"{lane.place.url}: the jobs are stored on the primary, but only {reached} of {wanted} replicas confirmed "
            f"them within {lane.place.address.wait_timeout} ms (?wait={wanted}): a failover may lose them. To enqueue "
            "the same bound jobs again (task.bind(), then enqueue_many) is harmless, and asks again; another "
            "task.enqueue() makes another job"
        )


async def confirm_finished(lane: Lane) -> None:
    """Says once that outcomes may be lost by a failover, until replicas confirm them again: a job then runs again."""
    place = lane.place
    reached = await _missed(lane)
    if reached is not None and not place.unreplicated:
        text = "outcomes stand, but a failover may lose them: these jobs would run again"
        tell(
            stores,
            logging.WARNING,
            "unreplicated",
            store=place.url,
            replicas=reached,
            wait=place.address.wait,
            message=text,
        )
    elif reached is None and place.unreplicated:
        tell(stores, logging.INFO, "replicated", store=place.url, wait=place.address.wait)
    place.unreplicated = reached is not None


async def _missed(lane: Lane) -> int | None:
    """How many replicas have all that was written up to now, where that is too few; None: enough have.

    Calls that come while one is waited for share the next: else each would wait behind all that came before it.
    """
    confirming = lane.confirming
    if confirming.next is None or not _is_here(confirming.next):
        before = confirming.under_way if confirming.under_way and _is_here(confirming.under_way) else None
        confirming.next = asyncio.ensure_future(_next(lane, before))
        confirming.next.add_done_callback(lambda done: done.cancelled() or done.exception())  # all may have left
    return await asyncio.shield(confirming.next)


def _is_here(future: asyncio.Future[int | None]) -> bool:
    """Not so in a forked child, where nobody goes on with it."""
    return future.get_loop() is asyncio.get_running_loop()


async def _next(lane: Lane, before: asyncio.Future[int | None] | None) -> int | None:
    if before is not None:
        await asyncio.wait([before])
    confirming = lane.confirming
    confirming.under_way, confirming.next = confirming.next, None
    return await _asked(lane)


async def _asked(lane: Lane) -> int | None:
    address = lane.place.address
    written, reached = await lane.each(
        [
            # WAIT looks no further than to the last write of its own connection, which may be a new one.
            lane.command("SET", f"{lane.place.registry.base}waited", 1),
            lane.command("WAIT", address.wait, address.wait_timeout),
        ]
    )
    if isinstance(written, StoreError) or isinstance(reached, StoreError):
        return 0  # nobody knows
    return None if reached >= address.wait else int(reached)
