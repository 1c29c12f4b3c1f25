"""Pays orders without end, each with its job in one transaction of SQLAlchemy's, some of them given up at the end.

Run as a program: the file, then a number that is its luck. tests/stores/test_sqlite_connections.py kills it.
"""

from __future__ import annotations

import asyncio
import random
import sys

from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from holdfast import Holdfast, QueueFull

BOUND = 80
PAID = text("INSERT INTO orders (name) VALUES (:job)")


def app_of(file: str) -> Holdfast:
    app = Holdfast(f"sqlite:///{file}")
    app.queue("mail", max_size=BOUND)
    return app


def main(file: str, chance: random.Random) -> None:
    app, engine = app_of(file), create_engine(f"sqlite:///{file}")

    @app.task(name="send", queue="mail")
    def send() -> None: ...

    while True:
        with Session(engine) as session:
            try:
                job = send.using(connection=session).enqueue()
            except QueueFull:
                return
            session.execute(PAID, {"job": str(job.id)})
            if chance.random() < 0.7:
                session.commit()


async def amain(file: str, chance: random.Random) -> None:
    app, engine = app_of(file), create_async_engine(f"sqlite+aiosqlite:///{file}")

    @app.task(name="send", queue="mail")
    async def send() -> None: ...

    while True:
        async with async_sessionmaker(engine)() as session:
            try:
                job = await send.using(connection=session).aenqueue()
            except QueueFull:
                return
            await session.execute(PAID, {"job": str(job.id)})
            if chance.random() < 0.7:
                await session.commit()


if __name__ == "__main__":
    file, luck = sys.argv[1], int(sys.argv[2])
    if luck % 2:
        main(file, random.Random(luck))
    else:
        asyncio.run(amain(file, random.Random(luck)))
