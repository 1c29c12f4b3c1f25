"""The attempts of a worker: which executor runs a claim, when its time is over, what is told of its start and end."""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.around import Around
from holdfast.clock import SECOND, Clock
from holdfast.context import finished
from holdfast.errors import FinishRolledBack, TransactionLeftOpen
from holdfast.job import Claim, Failed, Lost, Outcome, Released, State, Succeeded, Verdict
from holdfast.observe.logging import jobs, tell, tell_usual
from holdfast.observe.places import place
from holdfast.policy import decide, verdict_of
from holdfast.store import Answer, Settled
from holdfast.task import Task
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.confirms import OPEN_MOST, Question
from holdfast.worker.executors import InThreads, OnLoop
from holdfast.worker.finisher import Finisher
from holdfast.worker.identity import Identity
from holdfast.worker.notes import Notes
from holdfast.worker.processes.launch import Launch
from holdfast.worker.pulse import STACK_MOST, stack_of_thread
from holdfast.worker.report import tell_after_finish, tell_failed, tell_lost, tell_of, tell_started
from holdfast.worker.runner import GRACE, Run, begun, timed_out, waited
from holdfast.worker.within import Within

if TYPE_CHECKING:
    from holdfast.worker.processes.executor import InProcesses

LOOK_EVERY = 0.5


class Attempts:
    """Begins attempts for `Slots`, and settles what has ended."""

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        finisher: Finisher,
        box: BlackBox,
        clock: Clock,
        concurrency: int,
        identity: Callable[[], Identity],
        freed: Callable[[Run], None],
        *,
        notes: Notes,
        around: Around | None,
        within: Within,
    ) -> None:
        self.finished = 0
        self.overdue: Callable[[Run, str], object] | None = None  # told of a thread that goes on, and of its stack
        self.in_threads = InThreads(self._ended, concurrency)
        self._on_loop = OnLoop(self._ended)
        self._in_processes: InProcesses | None = None
        self._tasks = tasks
        self._finisher = finisher
        self._box = box
        self._clock = clock
        self._identity = identity
        self._freed = freed
        self._notes = notes
        self._around = around
        self._within = within
        self._pid = os.getpid()

    def begin(self, claim: Claim, since: float) -> Run | None:
        """Starts an attempt; None if that cannot be, which is an end in itself. `since`: when it was claimed, in
        monotonic seconds.
        """
        task = self._tasks.get(claim.task)
        if task is None:
            hint = "given back for later; is its module imported by the app, or named in Holdfast(modules=[...])?"
            tell(
                jobs,
                logging.WARNING,
                "unknown-task",
                task=claim.task,
                job=claim.id,
                queue=claim.queue,
                message=hint,
            )
            self._finisher.add(decide(claim, Released(f"no task {claim.task!r} in this worker", unknown=True)), claim)
            return None
        around = self._around if self._around is not None and self._around.used else None
        held = self._identity().held
        ends = None if claim.deadline_at is None else since + (claim.left or 0) / SECOND
        now = self._clock.monotonic()
        run = begun(claim, task, held, now, self._box, self._notes, around, self._within.of, ends=ends, pid=self._pid)
        if jobs.isEnabledFor(logging.INFO):
            tell_started(claim, waited=waited(claim))
        try:
            self._executor(run).start(run)
        except RuntimeError as error:
            tell_of(run.claim, logging.ERROR, "not-started", message=f"{error}; given back for later")
            self._finisher.add(decide(claim, Released(f"could not be started: {error}", unknown=True)), claim)
            return None
        if run.deadline is not None:
            run.timer = asyncio.get_running_loop().call_later(run.deadline - now, timed_out, run)
        return run

    def may_spawn(self, launch: Launch, *, max_jobs: int | None, max_memory: int | None) -> None:
        """Says how processes for single attempts find the app; a process that reaches a limit is replaced."""
        from holdfast.worker.processes.executor import InProcesses  # with the codec, which costs what all the rest does

        self._in_processes = InProcesses(
            self._ended, launch, self._box, self._notes, max_jobs=max_jobs, max_memory=max_memory
        )

    async def end_processes(self) -> None:
        """Ends all processes, busy or not, and settles what ran in them."""
        if self._in_processes is not None:
            await self._in_processes.close()

    def _executor(self, run: Run) -> OnLoop | InThreads | InProcesses:
        if self._in_processes is not None and (run.task.in_process or run.claim.alone):
            return self._in_processes
        if run.task.in_process:  # defined after the worker's start
            raise RuntimeError("run_in='process', but another process cannot find the app")
        return self._on_loop if run.task.is_async else self.in_threads

    def _ended(self, run: Run, verdict: Verdict | None) -> None:
        """An attempt's code has ended: settle it, and free its slot."""
        run.settled()
        ran = self._ran(run)
        self._notes.ended(run.claim)
        within, outcome = finished(run.job), None if verdict is None else decide(run.claim, verdict)
        if within:
            self._finisher.confirms.add(self._question(run, verdict, ran))
        elif outcome is None:
            self._box.end(run.key)
        else:
            self._finisher.add(outcome, run.claim, ran if run.entered else None)
        self.finished += 1
        self._freed(run)  # before anything is told: no line of the log shall keep a slot
        if not within and not _unheard(run, verdict):
            self._tell_end(run, verdict, outcome, ran)

    def _question(self, run: Run, verdict: Verdict | None, ran: float) -> Question:
        """What to ask the store with: what is right if the transaction that the attempt finished in was rolled back."""
        return Question(run.claim, *_if_undone(run, verdict), partial(self._confirmed, run, verdict, ran), ran)

    def _confirmed(self, run: Run, verdict: Verdict | None, ran: float, question: Question, settled: Settled) -> None:
        """The store has said what became of the transaction: tells how the attempt ended."""
        if settled.state is State.SUCCEEDED:
            if not isinstance(verdict, Succeeded):
                tell_after_finish(run.claim, verdict, ran=ran)
            self._tell_end(run, Succeeded(b""), question.outcome, ran)
        elif settled.answer in {Answer.ACCEPTED, Answer.REPLAYED}:
            self._tell_end(run, question.verdict, question.outcome, ran)
        elif verdict is None:
            self._tell_end(run, None, None, ran)

    def look(self, runs: Iterable[Run]) -> float:
        """Looks for those that take too long; returns the seconds until the next look."""
        now = self._clock.monotonic()
        for run in runs:
            if now - run.started >= run.slow_at:
                run.slow_at *= 2
                hint = None if run.claim.terms.timeout else "it has no timeout"
                tell_of(run.claim, logging.WARNING, "slow", ran=now - run.started, message="still running", hint=hint)
            if self._stays(run, now):
                run.overdue = True
                stack = stack_of_thread(run.thread) if run.handle is None else _stack_of(run.handle)
                message = f"it goes on past its {run.limit}; only the end of its process can end it"
                tell_of(run.claim, logging.WARNING, "overdue", ran=now - run.started, at=place(stack), message=message)
                if self.overdue is not None:
                    self.overdue(run, stack)
        return LOOK_EVERY

    def _stays(self, run: Run, now: float) -> bool:
        """Whether a handler goes on although its time and a grace are over, and only its process's end can end it."""
        if run.overdue or run.apart or run.deadline is None:
            return False
        return run.asked == run.limit and now > run.deadline + GRACE

    def _ran(self, run: Run) -> float:
        return self._clock.monotonic() - run.started

    def _tell_end(self, run: Run, verdict: Verdict | None, outcome: Outcome | None, ran: float) -> None:
        if verdict is None or outcome is None:
            tell_of(run.claim, logging.WARNING, "lost", message="the claim was lost while it ran; nothing is written")
            return
        match verdict:
            case Succeeded() if run.asked == run.limit:
                tell_of(run.claim, logging.WARNING, "succeeded", ran=ran, message=f"after its {run.limit}")
            case Succeeded():
                tell_usual("succeeded", run.claim, "ran", ran)
            case Failed(_, final):
                tell_failed(run.claim, outcome, ran=ran, final=final)
            case Lost(loss):
                tell_lost(run.claim, outcome, "crashed", cause=loss.cause, ran=ran)
            case _:
                tell_of(run.claim, logging.INFO, outcome.ended, ran=ran, reason=outcome.reason)


def _unheard(run: Run, verdict: Verdict | None) -> bool:
    """Whether this end is told to nobody, as most are where the log leaves successes out."""
    return isinstance(verdict, Succeeded) and run.asked is None and not jobs.isEnabledFor(logging.INFO)


def _if_undone(run: Run, verdict: Verdict | None) -> tuple[Verdict, Verdict]:
    """What an attempt that was finished within ended as: if its transaction was rolled back, and if it stays open."""
    if verdict is None:
        released = Released("its claim was lost while it ran")
        return released, released
    if not isinstance(verdict, Succeeded):
        return verdict, verdict
    back = FinishRolledBack(
        "the handler called finish(connection) and returned, but the transaction was rolled back, or never committed; "
        "commit before you return"
    )
    left = TransactionLeftOpen(
        f"the handler called finish(connection) and returned; {OPEN_MOST:g} s later the transaction was still open, or "
        "the database locked; commit before you return"
    )
    return verdict_of(back, run.task.retry), verdict_of(left, run.task.retry)


def _stack_of(handle: asyncio.Task[None]) -> str:
    """Where an async handler waits, as a traceback shows it."""
    frames = [line for frame in handle.get_stack(limit=STACK_MOST) for line in traceback.format_stack(frame, 1)]
    return "Stack (most recent call last):\n" + "".join(frames) if frames else ""
