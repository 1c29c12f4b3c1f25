"""What the tests of the store on Redis share: places, servers that say what they are told to, lines of the log."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis

from holdfast.errors import StoreError
from holdfast.job import Draft, Note, Outcome, QueueTerms, State, Terms, new_id
from holdfast.observe.told import Told
from holdfast.store import Store, Where
from holdfast.stores import open_store
from holdfast.stores.redis.address import address_of
from holdfast.stores.redis.lane import Lane
from holdfast.stores.redis.place import Keys, Place, queue_keys
from tests.flows.proxy import let_nobody_in
from tests.flows.resp import frame, words
from tools.servers import Valkey

TERMS = Terms(max_attempts=3, base_delay=1000, max_delay=60_000, jitter=0.1, max_crashes=3, keep=60_000)


def draft() -> Draft:
    return Draft(id=new_id(), task="t", queue="q", payload=b"{}", terms=TERMS)


def place(url: str) -> Place:
    return Place(address_of(urlsplit(url)))


@asynccontextmanager
async def lane(url: str, name: str = "work") -> AsyncIterator[Lane]:
    lane = Lane(name, place(url))
    try:
        yield lane
    finally:
        await lane.close()


def keys_of(lane: Lane) -> Keys:
    return queue_keys(lane.place, "q")


async def live(store: Store) -> None:
    """A job's whole life, and some of what is done beside it."""
    worker = uuid4()
    await store.configure({"q": QueueTerms(max_size=10)}, "worker")
    await store.register(worker, None, {"pid": 1})
    [receipt] = await store.enqueue([draft()])
    assert (receipt.answer, receipt.created) == ("accepted", True)
    [claim] = (await store.claim(worker, 1, None, 10)).jobs
    await store.note([Note(claim.id, claim.fence, worker, progress=0.5, lines=((1, "on its way"),))])
    assert len((await store.beat([worker])).gone) == 0
    done = Outcome(claim.id, claim.fence, worker, "succeeded", State.SUCCEEDED, 1, 0, 0, 0, alone=False, keep=60_000)
    [settled] = await store.finish([done])
    assert settled.state is State.SUCCEEDED
    [record] = await store.find(Where(ids=[claim.id]))
    assert record.state is State.SUCCEEDED
    await store.promote(10)
    await store.reclaim(worker, 10)
    assert await store.prune(10) == 0
    assert await store.delete([claim.id]) == ["deleted"]
    await store.retire(worker)
    assert [queue.name for queue in (await store.stats()).queues] == ["q"]


@asynccontextmanager
async def opened(url: str, *, create: bool = True) -> AsyncIterator[Store]:
    store = open_store(url)
    await store.open(create=create)
    try:
        yield store
    finally:
        await store.close()


async def refusal(url: str, kind: type[StoreError] = StoreError, *, create: bool = True) -> str:
    """What open() says; it must be just this kind, and say where."""
    with pytest.raises(StoreError) as refused:
        async with opened(url, create=create):
            pass
    assert type(refused.value) is kind, refused.value
    message = str(refused.value)
    assert message.startswith(url.partition("://")[0]), message
    return message


@contextmanager
def operator(server: str) -> Iterator[redis.Redis]:
    """A connection of another library, to look and to meddle."""
    with redis.Redis.from_url(server.partition("?")[0], decode_responses=True) as connection:
        yield connection


def said(server: Valkey, *words: object) -> str:
    """The server's answer, which must be no error."""
    answer = server.say(*words)
    assert not answer.startswith("-"), answer
    return answer


@asynccontextmanager
async def saying(answer: bytes, to: tuple[bytes, ...] = ()) -> AsyncIterator[str]:
    """The URL of something that greets like a Redis and answers all else, or all that is named, with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                name = next(words(await frame(reader))).upper()
                refused = name in to if to else name not in (b"HELLO", b"CLIENT")
                writer.write(answer if refused else b"%0\r\n" if name == b"HELLO" else b"+OK\r\n")
        except (OSError, EOFError):
            writer.close()

    async with listening(serve) as url:
        yield url


@asynccontextmanager
async def listening(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> AsyncIterator[str]:
    writers = list[asyncio.StreamWriter]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> object:
        writers.append(writer)
        return serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)  # type: ignore[arg-type]
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await let_nobody_in(server)
        for writer in writers:
            writer.close()


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[tuple[int, dict[str, object]]]:
    """Level and fields of each line of the log that tells of `event`."""
    return [
        (record.levelno, dict(record.msg.fields))
        for record in caplog.records
        if isinstance(record.msg, Told) and record.msg.event == event
    ]


async def run(program: str, *arguments: str) -> None:
    """A program of its own, which must end well and warn of nothing."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    assert "Warning" not in errors.decode(), errors.decode()
