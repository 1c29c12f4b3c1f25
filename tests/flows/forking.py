"""An app whose handlers fork, and enqueue in both processes."""

from __future__ import annotations

import os

from holdfast import Holdfast
from tests.flows.shop import note

jobs = Holdfast()


@jobs.task(name="leaf")
def leaf(number: int) -> None:
    note("effect")


def _in_both(number: int) -> list[str]:
    """The ids of what this process and its child have enqueued."""
    before = str(leaf.enqueue(0).id)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, " ".join(str(leaf.enqueue(n).id) for n in range(number)).encode())
        os._exit(0)
    os.close(write)
    mine = [str(leaf.enqueue(n).id) for n in range(1, number)]
    with os.fdopen(read) as theirs:
        told = theirs.read().split()
    os.waitpid(child, 0)
    return [before, *mine, *told]


@jobs.task
def forks_in_thread(number: int) -> list[str]:
    return _in_both(number)


@jobs.task
async def forks_on_loop(number: int) -> list[str]:
    before = str((await leaf.aenqueue(0)).id)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, " ".join(str(leaf.enqueue(n).id) for n in range(number)).encode())
        os._exit(0)
    os.close(write)
    mine = [str((await leaf.aenqueue(n)).id) for n in range(1, number)]
    with os.fdopen(read) as theirs:
        told = theirs.read().split()
    os.waitpid(child, 0)  # noqa: ASYNC222  # it has ended: its pipe is closed
    return [before, *mine, *told]
