"""A connection that was made anew: does it lead to the store that was opened? A name may lead elsewhere by now."""

from __future__ import annotations

import logging
from typing import NamedTuple
from uuid import UUID

from holdfast.clock import Span
from holdfast.errors import StoreAway
from holdfast.observe.logging import stores, tell
from holdfast.stores.columns import text_of_queue_terms
from holdfast.stores.redis.place import LAYOUT, OLDEST_CODE, Place, queue_keys
from holdfast.stores.redis.resp import Refusal, Reply, command
from holdfast.stores.redis.session import Session


class Registry(NamedTuple):
    """The registry's first key: times are the server's."""

    layout: int
    oldest_code: int
    lease: Span
    store: UUID
    made: int
    created: bool  # by the call that tells of it
    moment: int  # of that call


def registry_of(reply: Reply) -> Registry:
    """What open.lua says. ValueError where the key is not as it writes it."""
    layout, oldest_code, lease, store, made, created, moment = reply
    if int(lease) < 1:
        raise ValueError(f"a lease of {int(lease)} ms")
    return Registry(
        int(layout), int(oldest_code), int(lease), UUID(store.decode("ascii")), int(made), bool(created), moment
    )


async def recognise(session: Session, place: Place) -> None:
    """StoreAway for another store, or a layout that this code cannot serve; Refusal; Lost.

    Where the server came back empty, the store goes on, without what it had: whoever asks finds no jobs, and workers
    register anew. The first process to come back makes the registry anew, or one that never saw the old one: so what
    was made after we knew ours stands where ours was; an older one is another store's.
    """
    if place.store is None:
        return
    try:
        found = registry_of(await _asked(session, place))
    except ValueError:
        raise _away(place, f"the key {place.registry[1]} is another program's, or damaged") from None
    was_emptied = found.made > place.known_at or (found.created and found.made != place.known_at)
    if found.store != place.store and not was_emptied:
        raise _away(
            place, "there is another store than the one that was opened; if that is meant, start this process anew"
        )
    if found.oldest_code > LAYOUT:
        raise _away(
            place,
            f"its keys are of layout {found.layout} now and need a newer Holdfast (this one serves up to layout "
            f"{LAYOUT}): upgrade this installation",
        )
    if was_emptied:
        place.begin_anew(found.store, found.lease, found.made)
        text = "the server came back empty: all jobs that it had are lost; the store goes on without them"
        tell(stores, logging.ERROR, "store-lost", store=place.url, message=text)
        await _declare(session, place)


async def _asked(session: Session, place: Place) -> Reply:
    script = place.script("open")
    keys = place.registry.names
    parts = (place.shift, "1", LAYOUT, OLDEST_CODE, place.lease, str(place.store))
    asked = command("EVALSHA", script.sha, len(keys), *keys, *parts)
    [reply] = await session.ask(asked, 1)
    if isinstance(reply, Refusal) and reply.code == "NOSCRIPT":
        loaded, reply = await session.ask(command("SCRIPT", "LOAD", script.text) + asked, 2)
        if isinstance(loaded, Refusal):
            raise loaded
    if isinstance(reply, Refusal):
        raise reply
    return reply


async def _declare(session: Session, place: Place) -> None:
    """What this process declared, before anything is asked on this connection. What is refused is said again later."""
    script = place.script("configure")
    said = [command("SCRIPT", "LOAD", script.text)]
    for queue, (terms, by) in place.declared.items():
        keys = queue_keys(place, queue).names
        said.append(command("EVALSHA", script.sha, len(keys), *keys, place.shift, by, text_of_queue_terms(terms) or ""))
    if place.declared:
        await session.ask(b"".join(said), len(said))


def _away(place: Place, why: str) -> StoreAway:
    return StoreAway(f"{place.url}: {why}; nothing is done")
