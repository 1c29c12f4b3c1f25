"""What a worker starts for `run_in="process"`: loads the app as the worker has it, and runs attempts in this process.

Called with the descriptors of the channel, the board and the worker's black box, and the worker's pid.
"""

from __future__ import annotations

import importlib
import os
import resource
import socket
import sys
import time
from typing import Any

from holdfast.app import Holdfast, parts_of
from holdfast.cli.load import load_app
from holdfast.errors import ConfigError
from holdfast.observe.logging import adopt_root, configure, told_by_parent
from holdfast.store import Store
from holdfast.task import Task
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.processes.beginning import end_with, load_main
from holdfast.worker.processes.board import Board
from holdfast.worker.processes.slot import Slot


def main(end: int, board: int, box: int, worker: int) -> int:
    """Serves until the worker lets it go or is gone; the exit code says nothing."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told_by_parent.add("durability")
    end_with(worker)
    for descriptor in (end, board, box):
        os.set_inheritable(descriptor, False)  # the handlers' own subprocesses must not keep the channel open
    black = BlackBox(box)
    slot = Slot(socket.socket(fileno=end), Board(board), lambda: time.monotonic() < black.held_until)
    launch = slot.first()
    try:
        app = _loaded(launch)
    except BaseException as error:  # noqa: BLE001  # whatever the app's own module does
        slot.failed(error, launch["app"])
        return 1
    parts = parts_of(app)
    link = parts.link

    async def astore() -> Store:
        return (await link.arun(link.opened)).store

    slot.serve(
        lambda name, module: _task(app, name, module, launch),
        peak,
        parts.resources,
        parts.around,
        (lambda: link.run(link.opened).store, astore),
    )
    return 0


def _loaded(launch: dict[str, Any]) -> Holdfast:
    sys.argv[:] = launch["argv"]
    if launch["level"] is not None:
        configure(launch["style"], launch["level"])
    module, _, attribute = launch["app"].partition(":")
    if launch["main"] and module == launch["main"]:
        load_main(launch["main"], launch["file"])
        app = getattr(sys.modules[module], attribute)
        if not isinstance(app, Holdfast):
            raise ConfigError(f"{launch['app']} is a {type(app).__name__} here, not a Holdfast")
    else:
        app = load_app(launch["app"])
    if launch["level"] is not None:
        adopt_root(launch["level"])
    parts_of(app).registry.load()
    parts_of(app).link.enter_slot(launch["url"])
    return app


def _task(app: Holdfast, name: str, module: str, launch: dict[str, Any]) -> Task[..., Any] | None:
    if name not in parts_of(app).registry.names and module and module not in sys.modules:
        if module == launch["main"]:
            load_main(module, launch["file"])
        else:
            importlib.import_module(module)
    return parts_of(app).registry.names.get(name)
