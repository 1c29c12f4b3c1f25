"""`holdfast worker`: starts the supervisor, and says once what it serves."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from holdfast.clock import SystemClock
from holdfast.observe.logging import Style, configure
from holdfast.store import Store
from holdfast.stores import open_store
from holdfast.worker.supervisor import Supervisor

NO_TASKS = "none; is the module that defines them imported, or named in modules=[...]?"


def run(
    *,
    app: str | None,
    queues: Sequence[str] | None,
    concurrency: int,
    processes: int,
    deadline: float,
    style: Style | None,
    level: str,
) -> int:
    """Supervises worker processes until a signal; returns the exit code."""
    configure(style, level)
    options = {
        "app": app,
        "queues": queues,
        "concurrency": concurrency,
        "deadline": deadline,
        "style": style,
        "level": level,
    }
    started = time.monotonic()

    def command(channel: int, supervisor: UUID) -> Sequence[str]:
        text = json.dumps({**options, "supervisor": str(supervisor)})
        return [sys.executable, "-m", "holdfast.cli.child", str(channel), text]

    def ready(facts: dict[str, Any]) -> None:
        lines = banner(facts, options, processes, time.monotonic() - started)
        sys.stderr.write("\n".join(lines) + "\n")

    return asyncio.run(_supervise(command, processes=processes, deadline=deadline, ready=ready))


async def _supervise(command: Any, *, processes: int, deadline: float, ready: Any) -> int:
    clock = SystemClock()

    def store(url: str) -> Store:
        return open_store(url, clock)

    return await Supervisor(command, store, processes=processes, deadline=deadline, clock=clock, ready=ready).run()


def banner(facts: dict[str, Any], options: dict[str, Any], processes: int, took: float) -> list[str]:
    """What am I, where, which queues and tasks, how to stop."""
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
        f"  queues   {' '.join(options['queues']) if options['queues'] else 'every queue in the store'}",
        f"  tasks    {len(tasks)}: {shown}",
        f"ready in {took:.2f} s. Ctrl-C drains, twice stops at once.",
    ]
