"""The channel between a supervisor and its child: what was sent before an end by force has left."""

import asyncio
import socket

from holdfast.worker.channel import Channel
from tests.worker.rig import soon


async def test_drained_means_that_every_byte_has_left() -> None:
    ours, theirs = socket.socketpair()
    channel = await Channel.over(ours)
    while not channel.unread:
        channel.send("forced", jobs=["x" * 1000])
    assert channel.unread < 60_000, "asyncio's own drain waits from 64 KiB on"

    async def left_behind() -> int:
        await channel.drain()
        return channel.unread

    draining = asyncio.create_task(left_behind())
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    while not draining.done():
        await soon(loop.sock_recv(theirs, 2048), "nothing comes")
        await asyncio.sleep(0)
    assert draining.result() == 0, "a process that leaves now would take these bytes along"
    channel.close()
    theirs.close()
