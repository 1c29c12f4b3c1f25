"""What an attempt in a slot process ended as, when its code could not say so itself."""

from __future__ import annotations

import logging

from holdfast.job import Cancelled, Failed, Loss, Lost, Released, Verdict
from holdfast.observe.logging import jobs, tell, workers
from holdfast.policy import failure
from holdfast.worker.processes.spawned import Death
from holdfast.worker.runner import Run, overran


def no_process(run: Run, reason: str) -> Verdict:
    """No process or no thread could be had: that passes."""
    text = f"no process could be had for it: {reason}"
    tell(
        jobs,
        logging.ERROR,
        "not-started",
        task=run.claim.task,
        job=run.claim.id,
        fence=run.claim.fence,
        message=f"{text}; given back for later",
    )
    return Released(text, unknown=True)


def never_begun(run: Run) -> Verdict | None:
    """It was asked to stop before it was handed over."""
    match run.asked:
        case "lost":
            return None
        case "cancelled":
            return Cancelled("cancelled before it began")
        case "deadline":
            return overran(run, "")
        case _:
            return Released("interrupted by shutdown before it began")


def botched(run: Run, error: Exception) -> Verdict | None:
    """An error of the worker's own ended it, together with its process."""
    what = "a bug in running job %s in a process of its own, which was ended; please report it"
    workers.error(what, run.claim.id, exc_info=error)
    return None if run.asked == "lost" else Failed(failure(error))


def lost(number: int, death: Death) -> Verdict:
    """The process died unasked, with its attempt of this number and nobody else in it."""
    return Lost(Loss(death.cause, begun=death.begun == number, culprit=True, stack=death.stack))


def stopped(run: Run, death: Death, said: Verdict | None) -> Verdict | None:
    """It was asked to stop, and its process was ended. What the runner said in time stands."""
    match run.asked:
        case "lost":
            return None
        case _ if said is not None:
            return said
        case "timeout" | "deadline":
            return overran(run, death.stack)
        case "cancelled":
            return Cancelled("cancelled while running")
        case _:
            return Released("interrupted, and its process ended, as its worker was leaving", killed=True)
