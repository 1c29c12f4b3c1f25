"""What the supervisor starts: `python -m holdfast.cli.child FD OPTIONS` imports the app and runs one worker."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import traceback
from urllib.parse import quote, urlsplit
from uuid import UUID

from holdfast.app import Holdfast
from holdfast.cli.load import load_app
from holdfast.errors import ConfigError, HoldfastError, StoreError
from holdfast.observe.logging import adopt_root, configure
from holdfast.worker.supervised import serve
from holdfast.worker.supervisor import SPAWN_FAILED, STORE_FAILED


def main() -> int:
    """Runs one worker; the exit code says how it left, or why it could not start."""
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)  # the handlers' own subprocesses must not keep the channel open
    options = json.loads(sys.argv[2])
    configure(options["style"], options["level"])
    try:
        app = load_app(options["app"])
        adopt_root(options["level"])
        return asyncio.run(_serve(app, end, options))
    except StoreError as error:
        return _failed(error, STORE_FAILED)
    except HoldfastError as error:
        return _failed(error, SPAWN_FAILED)
    except Exception:  # noqa: BLE001  # the app's own module raised
        traceback.print_exc()
        return SPAWN_FAILED


async def _serve(app: Holdfast, end: socket.socket, options: dict[str, object]) -> int:
    place = app.place
    if not place.shared:
        raise ConfigError(
            f"{place.url} lives in one process: `holdfast worker` would see none of its jobs; "
            "use jobs.worker() in the process that enqueues, or a store such as sqlite:///jobs.db"
        )
    app.load()
    worker = app.supervised_worker(options, UUID(str(options["supervisor"])))
    facts: dict[str, object] = {"tasks": sorted(app.tasks), "pid": os.getpid(), "store": place.url}
    return await serve(worker, end, _resolved(app), facts)


def _resolved(app: Holdfast) -> str:
    """The store's URL as another process must write it, whose working directory may be another."""
    url = urlsplit(app.url)
    if url.netloc:
        return app.url
    scheme, _, path = app.place.url.partition("://")
    return f"{scheme}://{quote(path)}" + (f"?{url.query}" if url.query else "")


def _failed(error: Exception, code: int) -> int:
    sys.stderr.write(f"holdfast: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
