"""What the supervisor starts: `python -m holdfast.cli.child OPTIONS` imports the app and runs one worker."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

from holdfast.app import Holdfast, parts_of
from holdfast.cli.load import load_app
from holdfast.errors import ConfigError, HoldfastError, StoreError
from holdfast.observe.logging import adopt_root, configure, shown, tell, told_by_parent, workers
from holdfast.worker.blackbox import BlackBox, code_of
from holdfast.worker.runner import then
from holdfast.worker.stacks import write_stacks
from holdfast.worker.supervised import serve
from holdfast.worker.supervisor import SPAWN_FAILED, STORE_FAILED

LEFT_BEHIND = 2.0  # seconds
LOOP_ENDED = 70  # exit code of a process whose loop a handler has ended


def main() -> int:
    """Runs one worker; the exit code says how it left, or why it could not start."""
    options = json.loads(sys.argv[1])
    end = socket.socket(fileno=options["channel"])
    for descriptor in (options["channel"], options["box"], options["stacks"]):
        os.set_inheritable(descriptor, False)  # the handlers' own subprocesses must not keep them
    write_stacks(options["stacks"])
    told_by_parent.add("durability")
    configure(options["style"], options["level"], together=True)
    if options["arguments"]:
        shown.add("arguments")
    serving = threading.Event()
    threading.Thread(target=_end_if_orphaned, args=(os.getppid(), serving), name="holdfast-start", daemon=True).start()
    try:
        app = load_app(options["app"])
        adopt_root(options["level"])
        return asyncio.run(_serve(app, end, options, serving))
    except StoreError as error:
        return _failed(error, STORE_FAILED)
    except HoldfastError as error:
        return _failed(error, SPAWN_FAILED)
    except Exception as error:  # noqa: BLE001  # the app's own module raised, or a handler ended the loop
        if serving.is_set():
            tell(workers, logging.ERROR, "loop-ended", error=repr(error), message="it leaves; its jobs are given back")
            return _left(LOOP_ENDED, "its jobs are given back")
        traceback.print_exc()
        return SPAWN_FAILED


def _end_if_orphaned(supervisor: int, serving: threading.Event) -> None:
    """Until it listens to its supervisor: an app that takes for ever to import must not outlive it."""
    while not serving.wait(1.0):
        if os.getppid() != supervisor:
            os._exit(SPAWN_FAILED)


async def _serve(app: Holdfast, end: socket.socket, options: dict[str, Any], serving: threading.Event) -> int:
    place = parts_of(app).link.store
    if not place.shared:
        raise ConfigError(
            f"{place.url} lives in one process: `holdfast worker` would see none of its jobs; "
            "use jobs.worker() in the process that enqueues, or a store such as sqlite:///jobs.db"
        )
    parts_of(app).registry.load()
    worker = parts_of(app).staffing.supervised(options, UUID(options["supervisor"]), BlackBox(options["box"]))
    facts: dict[str, object] = {
        "tasks": sorted(parts_of(app).registry.names),
        "codes": {code_of(task.fn): (name, then(task)) for name, task in parts_of(app).registry.names.items()},
        "pid": os.getpid(),
        "store": place.url,
    }
    return _left(await serve(worker, end, _resolved(app), facts, serving.set))


def _left(code: int, jobs: str = "all jobs are settled") -> int:
    """Threads and exit hooks of the application may hold up Python's own end; they get a moment, and no more."""

    def end() -> None:
        time.sleep(LEFT_BEHIND)
        names = ", ".join(one.name for one in threading.enumerate() if one not in own)
        tell(workers, logging.WARNING, "left-behind", threads=names, message=f"{jobs}; it leaves anyway")
        os._exit(code)

    closer = threading.Thread(target=end, name="holdfast-leave", daemon=True)
    own = {closer, threading.main_thread()}
    closer.start()
    return code


def _resolved(app: Holdfast) -> str:
    """The store's URL as another process must write it, whose working directory may be another."""
    url = urlsplit(parts_of(app).link.url)
    if url.netloc:
        return parts_of(app).link.url
    scheme, _, path = parts_of(app).link.store.url.partition("://")
    return f"{scheme}://{quote(path)}" + (f"?{url.query}" if url.query else "")


def _failed(error: Exception, code: int) -> int:
    sys.stderr.write(f"holdfast: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
