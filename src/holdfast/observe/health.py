"""Health: what is seen of a service now, and whether it lives and is ready, check by check.

Live: its process and its loop answer. Ready: it claims jobs, and what it does will be on record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

BLOCKED = 2.0  # seconds that a loop may not answer; pulses come twice a second
CLAIM_LATE = 10.0  # seconds that a fetcher may take for a step, which waits for a second at most
STILL_MOST = 60.0  # seconds without a pulse of the loop after which a worker in one's own process is not live


class Vitals(NamedTuple):
    """Of one worker process. Times in seconds, of memory in bytes."""

    number: int
    slots: int
    running: int
    memory: int
    lag: float  # how long its loop took to answer last
    still: float  # since its loop last answered
    claimed: float | None  # since its fetcher last went on; None: it never did
    held: bool  # whether its lease is beyond doubt
    unheard: bool  # whether it has to look for jobs, since nothing hints at them


class Seen(NamedTuple):
    """A service: its processes, and what its store says. `away`: why it does not answer; `stopping`: it drains."""

    processes: Sequence[Vitals]
    answers: bool
    away: str = ""
    held: bool = True  # whether the supervisor's own lease is
    stopping: bool = False
    deaths: int = 0
    supervised: bool = True
    memory: int = 0  # of the supervisor; of the process that embeds the workers, where theirs is 0
    works: bool = True  # False: a process without workers, as a web server's is


class Check(NamedTuple):
    """`degraded`: it is well enough, and less than it should be. `why`: empty where all is as it should be."""

    check: str
    ok: bool
    why: str = ""
    degraded: bool = False

    def shown(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"check": self.check, "ok": self.ok, "degraded": self.degraded, "why": self.why}


def live(seen: Seen) -> list[Check]:
    """What shows that it lives. Who asks it has had an answer; a supervisor ends what is stuck by itself."""
    checks = [Check("process", ok=True)]
    if not seen.supervised:
        stuck = [one for one in seen.processes if one.still > STILL_MOST]
        checks.append(Check("loop", not stuck, f"no answer for {stuck[0].still:.0f} s" if stuck else ""))
    return checks


def ready(seen: Seen) -> list[Check]:
    """What shows that it is ready for work."""
    if seen.stopping:
        return [Check("running", ok=False, why="it is stopping: it claims nothing more")]
    if not seen.works:
        return [_store(seen)]
    if not seen.processes:
        none = Check("running", ok=False, why=_none(seen))
        return [_store(seen), none] if seen.away else [none]
    return [
        _store(seen),
        _of_all("lease", seen, (_unheld(one) for one in seen.processes), held=seen.held),
        _of_all("loop", seen, (_blocked(one) for one in seen.processes)),
        _of_all("claiming", seen, (_idle(one) for one in seen.processes)),
        _notifier(seen),
    ]


def _none(seen: Seen) -> str:
    if seen.deaths:
        return f"no worker process is up: they die ({seen.deaths} so far), and the log says how"
    return "no worker process has started yet"


def _store(seen: Seen) -> Check:
    return Check("store", seen.answers, "" if seen.answers else seen.away or "it has not answered lately")


def _of_all(name: str, seen: Seen, reasons: Iterable[str], *, held: bool = True) -> Check:
    """Red where it holds of no process; less than it should be where it holds of some."""
    if not held:
        return Check(name, ok=False, why="the supervisor's own lease is in doubt: no beat was accepted in time")
    wrong = [why for why in reasons if why]
    if not wrong:
        return Check(name, ok=True)
    of = f"{len(wrong)} of {len(seen.processes)} processes: " if len(seen.processes) > 1 else ""
    some = len(wrong) < len(seen.processes)
    return Check(name, some, f"{of}{wrong[0]}", degraded=some)


def _unheld(one: Vitals) -> str:
    return "" if one.held else "its lease is in doubt: no beat was accepted in time"


def _blocked(one: Vitals) -> str:
    return "" if one.still <= BLOCKED else f"its event loop has not answered for {one.still:.1f} s"


def _idle(one: Vitals) -> str:
    if one.claimed is None:
        return "it has not claimed yet"
    return "" if one.claimed <= CLAIM_LATE else f"it has claimed nothing and found no answer for {one.claimed:.0f} s"


def _notifier(seen: Seen) -> Check:
    polls = any(one.unheard for one in seen.processes)
    why = "hints of new jobs do not arrive (the log says why): workers look for jobs at least every second"
    return Check("notifier", ok=True, why=why if polls else "", degraded=polls)


def well(checks: Iterable[Check]) -> bool:
    """Whether none is red."""
    return all(check.ok for check in checks)
