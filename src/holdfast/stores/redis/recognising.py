"""A connection that was made anew: does it lead to the store that was opened? A name may lead elsewhere by now."""

from __future__ import annotations

import logging

from holdfast.errors import StoreAway
from holdfast.observe.logging import stores, tell
from holdfast.stores.redis.place import LAYOUT, OLDEST_CODE, Place
from holdfast.stores.redis.resp import Refusal, Reply, command
from holdfast.stores.redis.session import Session


async def recognise(session: Session, place: Place) -> None:
    """StoreAway for another store, or a layout that this code cannot serve; Refusal; Lost.

    Where the server came back empty, the store goes on, without what it had: whoever asks finds no jobs, and workers
    register anew.
    """
    if place.store is None:
        return
    [found] = await session.ask(command("HMGET", place.registry[1], "layout", "oldest_code", "store"), 1)
    if isinstance(found, Refusal):
        raise found
    layout, oldest_code, store = found
    if store is None and layout is None:
        await _begin_anew(session, place)
        return
    if store != str(place.store).encode():
        why = "there is another store than the one that was opened; if that is meant, start this process anew"
    elif int(oldest_code or 0) > LAYOUT:
        why = (
            f"its keys are of layout {layout.decode()} now and need a newer Holdfast (this one serves up to layout "
            f"{LAYOUT}): upgrade this installation"
        )
    else:
        return
    raise StoreAway(f"{place.url}: {why}; nothing is done")


async def _begin_anew(session: Session, place: Place) -> None:
    script = place.script("open")
    keys = place.registry.names
    parts = (place.shift, "1", LAYOUT, OLDEST_CODE, place.lease, str(place.store))
    loading = command("SCRIPT", "LOAD", script.text)
    replies = await session.ask(loading + command("EVALSHA", script.sha, len(keys), *keys, *parts), 2)
    for reply in replies:
        if isinstance(reply, Refusal):
            raise reply
    place.forget()
    if _made(replies[1]):
        text = "the server came back empty: all jobs that it had are lost; the store goes on without them"
        tell(stores, logging.ERROR, "store-lost", store=place.url, message=text)


def _made(reply: Reply) -> bool:
    return bool(reply[4])
