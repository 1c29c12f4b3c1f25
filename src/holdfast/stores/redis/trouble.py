"""What the server's refusals mean to our callers: StoreAway where the same call may work later, else StoreError."""

from __future__ import annotations

import re
from collections.abc import Mapping

from holdfast.errors import StoreAway, StoreError
from holdfast.stores.redis.resp import Refusal
from holdfast.stores.redis.session import Lost

READ_ONLY = "the server is a replica and takes no writes (after a failover, or by a wrong address): name the primary"
_MOVING = "the keys move to another server of the cluster; the queue goes on when they have arrived"
_ACL = (
    "the server's ACL forbids what the store needs; docs/redis.md has the list (what a script had done when it met "
    "this stays done: keep to the list)"
)

# By the first words. Most are said before anything was done.
_AWAY = {
    "OOM": "the server is out of memory (maxmemory), and nothing of this was stored: raise maxmemory, or let jobs end "
    "and be pruned; then repeat it (workers do so by themselves)",
    "LOADING": "the server is loading its data and will answer when it has",
    "READONLY": READ_ONLY,
    "MASTERDOWN": "the server is a replica that has lost its primary: name the primary",
    "MISCONF": "the server takes no writes since it cannot save to its disk; its log says why",
    "NOREPLICAS": "the server takes no writes without more replicas (min-replicas-to-write)",
    "BUSY": "the server is held up by a script that does not end (none of ours takes so long): SCRIPT KILL ends it",
    "CLUSTERDOWN": "the cluster is down: some of its slots have no server",
    "MOVED": "the keys lie on another server of the cluster than the one that the URL names",
    "ASK": _MOVING,
    "Attempted to access a non local key": _MOVING,  # as scripts meet ASK
    "TRYAGAIN": _MOVING,
    "max number of clients": "the server has no connection left: raise maxclients, or run fewer processes (each "
    "uses up to 8 connections)",
    "NOSCRIPT": "the server forgets scripts as soon as they are loaded (SCRIPT FLUSH, again and again)",
    "WRONGPASS": "the server does not let this user in any more; check the user and the password",
    "NOAUTH": "the server wants a password by now, and the URL has none",
    "NOPERM": _ACL,
    "ACL failure in script": _ACL,
    "The user executing the script": _ACL,
}
_NO_AUTH = "the server, or what stands before it, takes no password: leave it out of the URL"
# While a place is opened: what no repeat mends.
_REFUSED = {
    "WRONGPASS": "the server refuses the user or the password of the URL",
    "NOAUTH": "the server wants a password, and the URL has none: redis://user:password@host",
    "NOPERM": _ACL,
    "NOPROTO": "the server does not speak RESP3: add ?protocol=2",
    "unknown command `HELLO`": "the server does not speak RESP3: add ?protocol=2",
    "unknown command 'HELLO'": "the server does not speak RESP3: add ?protocol=2",
    "unknown command `AUTH`": _NO_AUTH,
    "unknown command 'AUTH'": _NO_AUTH,
    "SELECT is not allowed in cluster mode": "a cluster has database 0 alone: leave the number out of the URL",
    "DB index is out of range": "the server has no database of this number (see its setting `databases`; a cluster "
    "has 0 alone)",
}
_NEVER = {
    "WRONGTYPE": "a key of the store has another type than ours: another program writes under this prefix; "
    "nothing of this was done",
    "CROSSSLOT": "a script of ours reached for keys of two slots; please report it",
}
# What our scripts say themselves.
_OURS = {
    "HFLAYOUT": "keys are of layout {}, which this Holdfast does not serve: upgrade this installation",
    "HFGONE": "the key {} is gone, while the connection stood: did somebody empty the database?",
    "HFARGS": "a script of ours was called with other arguments than it takes ({}); please report it",
}
# Another connection, to whoever has the name by now, may be better off; and what was emptied is begun anew with it.
_ENDS_SESSION = ("READONLY", "MASTERDOWN", "NOAUTH", "HFGONE")
_DONE_IN_PART = ("NOPERM", "ACL", "The user", "Attempted")  # perhaps


def ends_session(refusal: Refusal) -> bool:
    """Whether the connection is of no use any more, and the call may be asked again on another."""
    return refusal.code in _ENDS_SESSION


def lost(error: Lost, url: str, *, certain: bool) -> StoreAway:
    """The error that callers get where there is no connection, or none any more."""
    away = StoreAway(f"{url}: the server cannot be reached, or the connection to it was lost ({error})")
    away.certain = certain
    return away


def stated(refusal: Refusal, url: str) -> StoreError:
    """The error that callers get: the place, what it means and what to do, then the server's own words."""
    words = unwrapped(str(refusal))
    if words.startswith("HF"):
        code, _, said = words.partition(" ")
        return StoreError(f"{url}: {_OURS.get(code, '{}').format(said)}")
    if meaning := _meaning(_AWAY, words):
        away = StoreAway(f"{url}: {meaning} ({words})")
        away.full = words.startswith("OOM")
        away.certain = not words.startswith(_DONE_IN_PART)
        return away
    meaning = _meaning(_NEVER, words) or "the server refused a command"
    return StoreError(f"{url}: {meaning} ({words})")


def refused(refusal: Refusal, url: str) -> StoreError:
    """The same while a place is opened: what only someone can mend is a StoreError."""
    words = unwrapped(str(refusal))
    meaning = _meaning(_REFUSED, words)
    return StoreError(f"{url}: {meaning} ({words})") if meaning else stated(refusal, url)


def _meaning(meanings: Mapping[str, str], words: str) -> str | None:
    return next((meaning for start, meaning in meanings.items() if words.startswith(start)), None)


# What a command inside of a script met is wrapped by the server, each version in its own way.
_BEFORE = re.compile(r"^(?:ERR )?Error running script \(call to [^)]*\): @\w+:\s*\d+:\s*-?")
_BEHIND = re.compile(r",? ?script: ?(?:[0-9a-f]{40},)? ?on @user_script:\d+\.?$")


def unwrapped(words: str) -> str:
    """The server's words as it would have said them outside of a script, on one line."""
    return " ".join(_BEFORE.sub("", _BEHIND.sub("", words.strip())).split())
