"""`holdfast worker`: starts the supervisor, and says once what it serves."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any
from uuid import UUID

from holdfast.clock import SystemClock
from holdfast.observe.endpoint import Server
from holdfast.observe.lines import takes
from holdfast.observe.logging import INFO, Style, configure, tell, workers
from holdfast.stores import open_store
from holdfast.worker.child import Handed
from holdfast.worker.processes.launch import interpreter
from holdfast.worker.supervisor import STALL_LIMIT, Supervisor

NO_TASKS = "none; is the module that defines them imported, or named in modules=[...]?"


def run(
    *,
    app: str | None,
    queues: Sequence[str] | None,
    strict: bool = False,
    concurrency: int,
    processes: int,
    deadline: float,
    style: Style | None,
    level: str,
    max_jobs: int | None = None,
    max_memory: int | None = None,
    arguments: bool = False,
    stall_limit: float | None = STALL_LIMIT,
    metrics: str | None = None,
) -> int:
    """Supervises worker processes until a signal; returns the exit code. ConfigError if `metrics` cannot be had."""
    endpoint = Server.bound(metrics) if metrics is not None else None
    configure(style, level, waits=False)  # a full pipe must not keep it from its children
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some start it, nobody would know how a child ended
    options = {
        "app": app,
        "queues": queues,
        "strict": strict,
        "concurrency": concurrency,
        "deadline": deadline,
        "style": style,
        "level": level,
        "max_jobs": max_jobs,
        "max_memory": max_memory,
        "arguments": arguments,
    }
    started = time.monotonic()
    if endpoint is not None and find_spec("prometheus_client") is None:
        text = "/metrics needs prometheus-client: pip install 'holdfast[metrics]'; /live and /ready are answered"
        tell(workers, logging.WARNING, "no-metrics", message=text)

    def command(handed: Handed, supervisor: UUID, declares: bool = True) -> Sequence[str]:
        text = json.dumps({**options, **handed._asdict(), "supervisor": str(supervisor), "declares": declares})
        return [*interpreter(), "-m", "holdfast.cli.child", text]

    def ready(facts: dict[str, Any]) -> None:
        at = None if endpoint is None else endpoint.address
        said = served(facts, options, processes, time.monotonic() - started, at)
        if style == "json":
            tell(workers, INFO, "serving", **said | _short(said))
        elif takes(sys.stderr):
            sys.stderr.write("\n".join(banner(said)) + "\n")

    clock = SystemClock()

    async def supervise() -> int:
        return await Supervisor(
            command,
            lambda url: open_store(url, clock),
            processes=processes,
            concurrency=concurrency,
            deadline=deadline,
            stall_limit=stall_limit,
            clock=clock,
            ready=ready,
            endpoint=endpoint,
        ).run()

    return asyncio.run(supervise())


def served(
    facts: dict[str, Any], options: dict[str, Any], processes: int, took: float, metrics: str | None
) -> dict[str, Any]:
    """What is served, by whom, where: for the banner, or for a reader of JSON."""
    from holdfast import __version__

    return {
        "version": __version__,
        "python": platform.python_version(),
        "app": options["app"],
        "pid": os.getpid(),
        "host": platform.node(),
        "store": facts["store"],
        "processes": processes,
        "slots": processes * options["concurrency"],
        "deadline": float(options["deadline"]),
        "queues": options["queues"] or None,
        "strict": options["strict"] or None,
        "tasks": facts["tasks"],
        "schedules": len(facts.get("schedules") or ()) or None,
        "next_tick": _next(facts.get("schedules") or {}),
        "metrics": metrics and f"http://{metrics}/metrics",
        "took": took,
    }


def _short(served: Mapping[str, Any]) -> dict[str, Any]:
    return {"queues": ",".join(served["queues"]) if served["queues"] else None, "tasks": len(served["tasks"])}


def banner(served: Mapping[str, Any]) -> list[str]:
    """What am I, where, which queues and tasks, where to look, how to stop."""
    tasks, processes, metrics = served["tasks"], served["processes"], served["metrics"]
    shown = "  ".join(tasks[:8]) + ("  …" if len(tasks) > 8 else "") if tasks else NO_TASKS
    cron = served["schedules"] and ": ".join(filter(None, (str(served["schedules"]), served["next_tick"])))
    return [
        (
            f"holdfast {served['version']}   python {served['python']}   pid {served['pid']} on {served['host']}"
            f"   {served['app']}"
        ),
        f"  store    {served['store']}",
        (
            f"  work     {served['slots']} slots in {processes} process{'es' if processes > 1 else ''}"
            f"     shutdown {served['deadline']:g} s"
        ),
        f"  queues   {_queues(served)}",
        f"  tasks    {len(tasks)}: {shown}",
        *([f"  cron     {cron}"] if cron else []),
        *([f"  metrics  {metrics}   /live   /ready"] if metrics else []),
        f"ready in {served['took']:.2f} s. Ctrl-C drains, twice stops at once.",
    ]


def _next(coming: Mapping[str, str | None]) -> str | None:
    """Which of the app's schedules is the next to tick: `holdfast schedules` has them all."""
    ticks = sorted((at, name) for name, at in coming.items() if at is not None)
    if not ticks:
        return None
    at, name = datetime.fromisoformat(ticks[0][0]), ticks[0][1]
    more = "  …" if len(coming) > 1 else ""
    return f"{name} {'due now' if at <= datetime.now(UTC) else f'next {at:%Y-%m-%d %H:%M:%S} UTC'}{more}"


def _queues(served: Mapping[str, Any]) -> str:
    if not served["queues"]:
        return "every queue in the store"
    return " ".join(served["queues"]) + (", strictly in this order" if served["strict"] else "")
