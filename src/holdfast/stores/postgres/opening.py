"""Opens a place: is the schema there, is it ours to serve; and brings it to this code's version."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from holdfast.stores.postgres.address import Place
from holdfast.stores.postgres.lanes import Lanes
from holdfast.stores.postgres.statements import functions, migrations, within


async def opened(place: Place) -> Lanes:
    lanes = Lanes(place)
    [[place.store]] = await lanes.work.read("meta")
    return lanes


async def migrate(place: Place, *, dry_run: bool = False) -> Sequence[str]:
    texts = [within(text, place.schema) for text in (*migrations().values(), *functions().values())]
    async with await psycopg.AsyncConnection.connect(place.address.conninfo) as connection:
        await connection.execute(within("CREATE SCHEMA IF NOT EXISTS {schema}", place.schema))
        for text in texts:
            await connection.execute(text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    return texts
