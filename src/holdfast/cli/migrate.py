"""`holdfast migrate`: brings the store's schema to this version, or prints how."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from holdfast.app import parts_of
from holdfast.cli import show
from holdfast.cli.options import operated, url_option
from holdfast.store import Store


@click.command(short_help="Bring the store's schema up to date.")
@click.option("--sql", is_flag=True, help="Print the statements that would run, and run none.")
@url_option
def migrate(sql: bool, url: str | None) -> None:
    """Bring the store's schema to this version. Doing it twice is harmless."""
    place = parts_of(operated(url)).link.store
    statements = asyncio.run(_migrated(place, dry_run=sql))
    if sql:
        for statement in statements:
            show.out(f"{statement.rstrip().rstrip(';')};")
    elif statements:
        show.out(f"migrated {place.url}: {len(statements)} statement{'' if len(statements) == 1 else 's'}")
    if not statements:
        show.note(f"nothing to do: {place.url} is up to date")


async def _migrated(place: Store, *, dry_run: bool) -> Sequence[str]:
    try:
        return await place.migrate(dry_run=dry_run)
    finally:
        await place.close()
