"""Opens a place: is it a server that we can use, are the keys under its prefix ours to serve?"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

from holdfast.errors import StoreError
from holdfast.store import LEASE
from holdfast.stores.redis.durability import look, refuse_unfit, tell_durability
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.lanes import Lanes
from holdfast.stores.redis.permissions import check_permissions
from holdfast.stores.redis.place import LAYOUT, OLDEST_CODE, Place
from holdfast.stores.redis.recognising import Registry, registry_of
from holdfast.stores.redis.resp import Refusal
from holdfast.stores.redis.session import Foreign
from holdfast.stores.redis.trouble import refused

_FIRST = 1  # layout from which there is a way


async def opened(place: Place, *, create: bool) -> Lanes:
    """Lanes of a place whose keys this code can serve. StoreError, StoreAway."""
    async with _opening(place) as lane:
        server = await look(lane)
        refuse_unfit(server, place)
        await check_permissions(lane)
        found = await _found(lane, create=create)
    if found is None:
        raise StoreError(
            f"{place.url}: there are no jobs under the prefix {place.prefix!r}; are it and the number of the database "
            "right? A producer, a worker or `holdfast migrate` makes the place"
        )
    if found.layout < LAYOUT:
        raise StoreError(
            f"{place.url}: its keys are of layout {found.layout}, this code needs {LAYOUT}: run `holdfast migrate`"
        )
    place.lease, place.store, place.known_at = found.lease, found.store, found.moment
    if create:  # those who only look need not hear of it
        tell_durability(server, place)
    return Lanes(place)


async def migrate(place: Place, *, dry_run: bool) -> list[str]:
    """What was done, or would be, in words: here is no statement to be shown."""
    async with _opening(place) as lane:
        refuse_unfit(await look(lane), place)
        await check_permissions(lane)
        found = await _found(lane, create=not dry_run)
        if found is not None and found.layout < LAYOUT:
            return await _upgrade(lane, found.layout, dry_run=dry_run)
    return [f"layout {LAYOUT} under prefix {place.prefix}"] if found is None or found.created else []


async def _upgrade(lane: Lane, layout: int, *, dry_run: bool) -> list[str]:
    """Later layouts only add keys: what older code does goes on."""
    place = lane.place
    if layout < _FIRST:
        raise StoreError(f"{place.url}: this code knows no way from layout {layout} of its keys to {LAYOUT}")
    if not dry_run and not await lane.script("upgrade", place.registry, layout, LAYOUT, OLDEST_CODE):
        return []  # somebody else has done it
    return [f"layout {layout} to {LAYOUT} under prefix {place.prefix}"]


@asynccontextmanager
async def _opening(place: Place) -> AsyncGenerator[Lane]:
    """A lane for the first look; what no repeat mends is a StoreError here."""
    lane = Lane("open", place)
    try:
        yield lane
    except StoreError as error:
        if isinstance(error.__cause__, Refusal):
            raise refused(error.__cause__, place.url) from error.__cause__
        if isinstance(error.__cause__, Foreign):
            raise StoreError(f"{place.url}: there is no Redis or Valkey that can be used: {error.__cause__}") from error
        raise
    finally:
        await lane.close()


async def _found(lane: Lane, *, create: bool) -> Registry | None:
    """What there is, or is made. StoreError where it is none of ours, or newer than this code can serve."""
    place = lane.place
    reply = await lane.script(
        "open", place.registry, "1" if create else "0", LAYOUT, OLDEST_CODE, LEASE, str(place.store or uuid4())
    )
    if reply is None:
        return None
    try:
        found = registry_of(reply)
    except ValueError as error:
        raise StoreError(
            f"{place.url}: the key {place.registry[1]} is not as Holdfast writes it: another program's, or damaged; "
            "choose another ?prefix="
        ) from error
    if found.oldest_code > LAYOUT:
        raise StoreError(
            f"{place.url}: its keys are of layout {found.layout} and need a newer Holdfast (this one serves up to "
            f"layout {LAYOUT}): upgrade this installation"
        )
    return found
