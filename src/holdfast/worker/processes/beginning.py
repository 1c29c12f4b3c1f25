"""How a process made for single attempts begins: it ends with its parent, and loads the script that is `__main__`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from contextlib import suppress

from holdfast.errors import ConfigError

LOADING = "_HOLDFAST_LOADING"  # in the environment while such a process loads its parent's __main__, by its real name
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def end_with(parent: int) -> None:
    """On Linux this process is killed with the thread that spawned it, and orphans of its group become its own."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent:
        with suppress(OSError):
            os.killpg(os.getpid(), signal.SIGKILL)


def load_main(name: str, file: str) -> None:
    """Loads what is `__main__` in the parent, under its real name; it must not start itself once more."""
    if name in sys.modules:
        return
    os.environ[LOADING] = name
    try:
        if not file:
            importlib.import_module(name)
            return
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{file} cannot be loaded as a module")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        del os.environ[LOADING]


def loading() -> str:
    """The name of the script that this process loads now; empty if it loads none."""
    return os.environ.get(LOADING, "")
