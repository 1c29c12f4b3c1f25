"""A worker as a supervisor's child: obeys the channel, leaves by os._exit if it must, drains when left alone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

from holdfast.errors import HoldfastError, Stop
from holdfast.observe.logging import tell, workers
from holdfast.store import Line
from holdfast.worker.channel import Channel
from holdfast.worker.crew import Crew, Departure, Heard
from holdfast.worker.loop import Signal
from holdfast.worker.runner import then


async def serve(
    worker: Crew, end: socket.socket, url: str, facts: dict[str, object], serving: Callable[[], object]
) -> int:
    """Runs `worker` until it is told to drain, by the channel or a signal; returns the exit code. Raises as its start.

    `url` is for the supervisor, which opens the same store; `serving` is called once it claims. If code still runs
    after deadline and grace, this does not return: the process reports what it held and leaves, and the supervisor
    gives those jobs back.
    """
    channel = await Channel.over(end)
    leaving = Signal()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _asked, leaving, worker)
    obeying = asyncio.create_task(_obey(channel, worker, leaving))
    worker.hand_on = lambda news: channel.send("counts", **news._asdict())
    try:
        await worker.astart()
    except Stop:
        return 0
    except HoldfastError as error:
        channel.send("unstarted", error=str(error))
        await channel.drain()
        raise
    worker.renamed = lambda id: channel.send("renamed", worker=id)  # noqa: A006
    worker.worn = lambda why: channel.send("worn", why=why)
    worker.overdue = lambda run, stack: channel.send(
        "overdue", job=run.claim.id, fence=run.claim.fence, then=then(run.task), stack=stack
    )
    names, ticks = worker.queue_names, worker.schedules
    channel.send("ready", worker=worker.identity.id, url=url, queues=names, schedules=ticks, **facts)
    serving()
    await leaving.wait(None)
    departure = await worker.astop()
    orphaned = obeying.done()
    if departure.exit_code or orphaned:
        await _leave(channel, departure, orphaned=orphaned)
    obeying.cancel()
    channel.close()
    return departure.exit_code


def _asked(leaving: Signal, worker: Crew) -> None:
    if leaving and not worker.patient:
        worker.hurry()
    worker.insist()
    _leave_now(worker, leaving)


def _leave_now(worker: Crew, leaving: Signal) -> None:
    if not worker.started:
        worker.give_up()
    leaving.set()


async def _obey(channel: Channel, worker: Crew, leaving: Signal) -> None:
    while (message := await channel.receive()) is not None:
        try:
            _do(worker, message, leaving)
        except Exception as error:  # noqa: BLE001  # a child that no longer hears would be deaf to cancels
            workers.error("a bug in obeying %r; please report it", message, exc_info=error)
    if worker.started:
        tell(workers, logging.ERROR, "supervisor-gone", message="keeps its own lease, drains and leaves")
        worker.keep()
        worker.insist()
    _leave_now(worker, leaving)


def _do(worker: Crew, message: dict[str, Any], leaving: Signal) -> None:
    heard = Heard(worker, worker.identity)
    match message["word"]:
        case "beaten" if message["worker"] == str(heard.identity.id):
            heard.beaten(message["sent"], message["lease"])
        case "gone" if message["worker"] == str(heard.identity.id):
            heard.gone()
        case "line":
            heard.line(Line(UUID(message["worker"]), message["kind"], UUID(message["job"]), message["fence"]))
        case "relieve":
            worker.patient = True
            _leave_now(worker, leaving)
        case "drain":
            worker.insist()
            _leave_now(worker, leaving)
        case "hurry":
            worker.hurry()
            _leave_now(worker, leaving)
        case _:
            pass


async def _leave(channel: Channel, departure: Departure, *, orphaned: bool) -> None:
    """Running code cannot be ended from inside: the process goes, and says what it held.

    Without a supervisor nobody else ends what its handlers have started in its group.
    """
    if departure.forced:
        channel.send("forced", jobs=[{"job": run.claim.id, "fence": run.claim.fence} for run in departure.forced])
    channel.send("leaving", code=departure.exit_code)
    await channel.drain()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if orphaned and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(departure.exit_code)
