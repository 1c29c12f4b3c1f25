"""May our user call what the store calls? Looked at before anything is written.

A script that the server's ACL stops in its middle leaves half of its work done.
"""

from __future__ import annotations

from holdfast.errors import StoreError
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import Place, queue_keys
from holdfast.stores.redis.resp import Argument, Refusal
from holdfast.stores.redis.scripts import commands
from holdfast.stores.redis.trouble import unwrapped

# Arguments after the key, as few as the server takes.
_ARGUMENTS = {
    0: "DEL EXISTS GET HGETALL HKEYS HLEN LLEN SCARD SMEMBERS TYPE UNLINK ZCARD",
    1: "HDEL HEXISTS HGET HMGET HSCAN HSTRLEN LINDEX PEXPIRE RPUSH SADD SET SISMEMBER SREM ZMSCORE ZRANK ZREM ZSCORE",
    2: "HINCRBY HSET HSETNX LRANGE LREM LTRIM ZADD ZCOUNT ZRANGE ZRANGEBYSCORE ZREMRANGEBYRANK ZREVRANGE "
    "ZREVRANGEBYSCORE",
}
_AFTER_KEY = {name: count for count, names in _ARGUMENTS.items() for name in names.split()}
_WITHOUT_KEYS: dict[str, tuple[Argument, ...]] = {"TIME": ("TIME",)}
_BY_OURSELVES: tuple[tuple[Argument, ...], ...] = (("EVALSHA", "0" * 40, 0), ("SCRIPT", "LOAD", "return 1"))
_OPTIONAL = ("PUBLISH",)  # without it, workers look by themselves


async def check_permissions(lane: Lane) -> None:
    """StoreError that names what the server's ACL forbids, or what the server does not have. Writes nothing: what is
    asked in a transaction is looked at, and thrown away.
    """
    place = lane.place
    asked = _needed(place)
    replies = await lane.within_nothing(asked)
    lacks = list[str]()
    words = ""
    for parts, reply in zip([("MULTI",), *asked], replies, strict=False):
        if isinstance(reply, Refusal) and (lack := _lacks(parts, str(reply), place)) and lack not in lacks:
            lacks.append(lack)
            words = words or unwrapped(str(reply))
    if lacks:
        user = place.address.user or "default"
        raise StoreError(
            f"{place.url}: the user {user} lacks what the store needs; let who runs the server say: ACL SETUSER {user} "
            f"{' '.join(lacks)} ({words})"
        )


def _needed(place: Place) -> list[tuple[Argument, ...]]:
    key = queue_keys(place, "x")[1]
    named = [
        _WITHOUT_KEYS.get(name) or (name, key, *["1"] * _AFTER_KEY[name])
        for name in commands()
        if name not in _OPTIONAL
    ]
    waiting: list[tuple[Argument, ...]] = [("SET", key, 1), ("WAIT", 0, 0)] if place.address.wait else []
    return [*named, *_BY_OURSELVES, *waiting, ("EXISTS", f"{place.registry.base}x")]


def _lacks(parts: tuple[Argument, ...], words: str, place: Place) -> str:
    """What the user of an ACL is to be given, "" for none: other refusals are met where they count."""
    command = str(parts[0])
    if words.startswith("unknown command") and command != "MULTI":  # some proxies do without
        raise StoreError(f"{place.url}: the server has no command {command}, which the store needs ({words})")
    if not words.startswith("NOPERM"):
        return ""
    if "key" in words.partition("run the")[0]:
        return f"~{{{place.prefix}}}:* ~{{{place.prefix}:*"
    return f"+{command.lower()}" if command != "SCRIPT" else "+script|load"
