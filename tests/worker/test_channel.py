"""The channel between a supervisor and its child: what was sent before an end by force has left."""

import asyncio
import socket

from holdfast.worker.channel import Channel
from tests.worker.rig import soon


async def test_drained_means_that_every_byte_has_left() -> None:
    ours, theirs = socket.socketpair()
    channel = await Channel.over(ours)
    channel.send("forced", jobs=["x" * 40] * 20_000)  # far beyond any socket's own buffer
    draining = asyncio.create_task(channel.drain())
    theirs.setblocking(False)
    loop, read = asyncio.get_running_loop(), 0
    while not draining.done():
        read += len(await soon(loop.sock_recv(theirs, 65536), "nothing comes"))
        await asyncio.sleep(0)
    rest = socket.socket.recv(theirs, 1 << 24) if channel.unread == 0 else b""
    assert channel.unread == 0
    assert read + len(rest) > 800_000
    channel.close()
    theirs.close()
