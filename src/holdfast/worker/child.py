"""A worker process as its supervisor sees it: spawned, ended whole, and what its death means for the jobs it held."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from uuid import UUID

from holdfast.job import TRACEBACK_LIMIT, Loss, cut
from holdfast.worker.blackbox import Begun, BlackBox
from holdfast.worker.channel import Channel
from holdfast.worker.culprit import crashed, stack_of
from holdfast.worker.deaths import ending, kill_group
from holdfast.worker.loop import Signal
from holdfast.worker.stacks import Stacks
from holdfast.worker.watch import Watch

AT_DEADLINE = Loss("ended by its supervisor at the shutdown deadline", on_purpose=True)
REPLACED = Loss("ended by its supervisor when it was replaced, past its deadline", on_purpose=True)

Then = Literal["retry", "final"]  # what a TimeoutError means to a task


class Handed(NamedTuple):
    """The descriptors that a child inherits."""

    channel: int
    box: int
    stacks: int


class Child:
    """One worker process, from its spawning to its burial."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel, box: BlackBox, stacks: Stacks) -> None:
        self.process = process
        self.channel = channel
        self.box = box
        self.stacks = stacks
        self.watch = Watch()
        self.number = 0  # of its place, among those that are there
        self.news = 0  # the number of the last news of what it counted
        self.worker: UUID | None = None
        self.trouble: str | None = None  # why it could not start
        self.tasks: Mapping[int, tuple[str, Then]] = {}  # by the number of a handler's code
        self.forced: list[dict[str, Any]] = []
        self.leaving = False  # it said that it goes by itself, with outcomes that the store did not take
        self.reaped = False
        self.condemned = False  # it is being ended, or was
        self.sentence: Loss | None = None  # why its supervisor ended it
        self.culprit: tuple[UUID, int] | None = None  # the run that made its supervisor end it
        self.overdue: dict[tuple[UUID, int], tuple[Then, str]] = {}  # runs that only its end can end, and their stacks
        self.blamed = False  # it is dead, and it is known by whose doing
        self.relieved = Signal()  # it was asked to leave, and may be replaced
        self.told_frozen = 0.0  # seconds that it had stood still when that was last told
        self.seen_into = 0.0  # seconds that it had stood still when its stacks were last read

    @classmethod
    async def spawned(cls, command: Callable[[Handed], Sequence[str]], concurrency: int) -> Child:
        """Starts a process of its own group, with a channel, a black box and a file for its stacks. Raises OSError."""
        box, stacks = BlackBox.made(concurrency), Stacks()
        ours, theirs = socket.socketpair()
        with theirs:
            handed = Handed(theirs.fileno(), box.descriptor, stacks.descriptor)
            try:
                process = subprocess.Popen(  # noqa: ASYNC220  # exec takes a millisecond; this thread lives as long
                    command(handed), stdin=subprocess.DEVNULL, pass_fds=handed, start_new_session=True
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, await Channel.over(ours), box, stacks)

    @property
    def pid(self) -> int:
        return self.process.pid

    def condemn(self, why: Loss, culprit: Begun | None = None) -> None:
        """It is ended now, for a reason that its jobs will tell."""
        self.condemned = True
        if self.sentence is None:
            self.sentence, self.culprit = why, culprit.key if culprit else None

    def end(self, why: Loss) -> None:
        """Kills the child, for a reason that its jobs will tell."""
        self.condemn(why)
        self.kill()

    def signal(self, number: int) -> None:
        """Sends the process itself a signal, while its number is its own."""
        if not self.reaped:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the child and everything it started, its slots included; works after its own death, until it is reaped:
        then the numbers may be others'.
        """
        if not self.reaped:
            for group in self.groups():
                kill_group(group)

    def groups(self) -> list[int]:
        """The process groups that its code runs in: its own, and its slots'."""
        return [self.pid, *{run.group for run in self.box.begun() if run.group}]

    def losses(self, code: int | None, peak: int) -> tuple[Loss, dict[tuple[UUID, int], Loss]]:
        """What shall be written on the jobs that it held: on those never begun, and on each that was.

        `code`: how it ended; `peak`: the most memory it held, in bytes.
        """
        common = self._loss(code, peak)  # with the culprit's stack if it was seen in time
        begun, stacks = self.box.begun(), self.stacks.read()
        who = self.culprit
        if self.sentence is None and code is not None and code < 0:
            run = crashed(stacks, begun, self.box.loop_thread[0])
            who = run.key if run else None
        culprit = next((run for run in begun if run.key == who), None)
        alone = sum(not run.over for run in begun) == 1
        written = {run.key: self._loss_of(run, common, culprit, stacks, alone=alone) for run in begun}
        return common._replace(begun=False, stack=""), written

    def _loss_of(self, run: Begun, common: Loss, culprit: Begun | None, stacks: str, *, alone: bool) -> Loss:
        if run.over:
            return common._replace(cause=f"{common.cause}; its code had ended already", on_purpose=True, stack="")
        if run.key in self.overdue:
            then, seen = self.overdue[run.key]
            return common._replace(overdue=then, stack=self._stack(run, seen, stacks))
        if run == culprit:
            return common._replace(on_purpose=False, culprit=True, stack=self._stack(run, common.stack, stacks))
        if culprit is not None:
            task, _ = self.tasks.get(culprit.code, ("of an unknown task", ""))
            cause = f"{common.cause}; it was the doing of job {culprit.id}, {task}"
            return common._replace(cause=cause, on_purpose=True, stack="")
        return common._replace(stack="", company=not alone or bool(run.group))  # what ran in a slot had not died itself

    def _stack(self, run: Begun, seen: str, stacks: str) -> str:
        """What was seen in time, else what was left at the crash."""
        return cut(seen or stack_of(stacks, run.thread or self.box.loop_thread[0]), TRACEBACK_LIMIT)

    def _loss(self, code: int | None, peak: int) -> Loss:
        if self.sentence is not None:
            return self.sentence
        if self.forced:
            return REPLACED if self.relieved else AT_DEADLINE
        if self.leaving:
            return Loss("left with outcomes not recorded", on_purpose=True)
        return Loss(f"its process (pid {self.pid}) ended: {ending(code)}; it held up to {peak // 2**20} MiB of memory")

    def overran(self, now: float, grace: float) -> list[Begun]:
        """The runs that are past their deadline by more than `grace` seconds."""
        return [run for run in self.box.begun() if run.deadline and run.deadline + grace < now and not run.over]

    def named(self, run: Begun) -> dict[str, Any]:
        """A run, for a line of the log."""
        task, _ = self.tasks.get(run.code, (None, ""))
        return {"task": task, "job": run.id, "fence": run.fence}

    def then(self, run: Begun) -> Then:
        """What a TimeoutError means to the run's task."""
        return self.tasks.get(run.code, ("", "retry"))[1]

    def close(self) -> None:
        """Lets the channel go."""
        with suppress(OSError):
            self.channel.close()
