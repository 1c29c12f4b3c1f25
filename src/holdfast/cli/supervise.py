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
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from threading import Event
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

    begun = Event()

    def command(handed: Handed, supervisor: UUID) -> Sequence[str]:
        declares = not begun.is_set()  # not by code that was loaded long ago: a newer version may have begun since
        text = json.dumps({**options, **handed._asdict(), "supervisor": str(supervisor), "declares": declares})
        return [*interpreter(), "-m", "holdfast.cli.child", text]

    def ready(facts: dict[str, Any]) -> None:
        begun.set()
        at = None if endpoint is None else endpoint.address
        lines = banner(facts, options, processes, time.monotonic() - started, at)
        if style == "json":
            tell(workers, INFO, "serving", **_served(facts, options, processes))
        elif takes(sys.stderr):
            sys.stderr.write("\n".join(lines) + "\n")

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


def _served(facts: dict[str, Any], options: dict[str, Any], processes: int) -> dict[str, Any]:
    """The banner, for a reader of JSON."""
    from holdfast import __version__

    return {
        "version": __version__,
        "app": options["app"],
        "store": facts["store"],
        "processes": processes,
        "slots": processes * options["concurrency"],
        "queues": ",".join(options["queues"]) if options["queues"] else None,
        "tasks": len(facts["tasks"]),
        "pid": os.getpid(),
    }


def banner(
    facts: dict[str, Any], options: dict[str, Any], processes: int, took: float, metrics: str | None = None
) -> list[str]:
    """What am I, where, which queues and tasks, where to look, how to stop."""
    from holdfast import __version__

    tasks = facts["tasks"]
    shown = "  ".join(tasks[:8]) + ("  …" if len(tasks) > 8 else "") if tasks else NO_TASKS
    slots = processes * options["concurrency"]
    return [
        (
            f"holdfast {__version__}   python {platform.python_version()}   pid {os.getpid()} on {platform.node()}"
            f"   {options['app']}"
        ),
        f"  store    {facts['store']}",
        (
            f"  work     {slots} slots in {processes} process{'es' if processes > 1 else ''}"
            f"     shutdown {options['deadline']:g} s"
        ),
        f"  queues   {_queues(options)}",
        f"  tasks    {len(tasks)}: {shown}",
        *([f"  cron     {_schedules(facts['schedules'])}"] if facts.get("schedules") else []),
        *([f"  metrics  http://{metrics}/metrics   /live   /ready"] if metrics else []),
        f"ready in {took:.2f} s. Ctrl-C drains, twice stops at once.",
    ]


def _schedules(coming: dict[str, str | None]) -> str:
    """How many, and which of them is the next: `holdfast schedules` has them all."""
    ticks = sorted((at, name) for name, at in coming.items() if at is not None)
    if not ticks:
        return str(len(coming))
    at, name = ticks[0]
    more = "  …" if len(coming) > 1 else ""
    return f"{len(coming)}: {name} next {datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S} UTC{more}"


def _queues(options: dict[str, Any]) -> str:
    if not options["queues"]:
        return "every queue in the store"
    return " ".join(options["queues"]) + (", strictly in this order" if options["strict"] else "")
