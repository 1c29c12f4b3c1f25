"""How a slot process finds the app: `module:attribute`, or the script that is `__main__` here under its real name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from holdfast.task import Task


def interpreter() -> list[str]:
    """How to start this Python once more, with the flags that it was started with, such as -O, -W and -X dev."""
    flags: list[str] = []
    with suppress(ValueError):  # the program has changed sys.warnoptions
        flags = getattr(subprocess, "_args_from_interpreter_flags", list)()  # what multiprocessing uses
    return [sys.executable, *flags]


@dataclass(frozen=True)
class Launch:
    """What a slot process has to load, and how it is to be like the worker's own."""

    app: str  # module:attribute
    url: str | None = None  # of the app's store, secrets included: never on a command line
    style: str | None = None  # of log lines; None: logging is the app's own affair
    level: str | None = None
    main: str = ""  # the real name of the module that is __main__ here
    file: str = ""  # the script it comes from; empty: it is imported by its name
    path: Sequence[str] = field(default_factory=lambda: [str(part) or os.getcwd() for part in sys.path])  # noqa: PTH109
    cwd: str = field(default_factory=os.getcwd)
    argv: Sequence[str] = field(default_factory=lambda: list(sys.argv))
    python: Sequence[str] = field(default_factory=interpreter)

    def module_of(self, task: Task[..., Any]) -> str:
        """The module that defines the task, as the slot must import it."""
        module = str(getattr(task.fn, "__module__", None) or "")
        return self.main if module == "__main__" else module


def launch_of(app: object, tasks: Iterable[Task[..., Any]], url: str | None) -> Launch | None:
    """How to find an app that this process made, by looking for it in the modules of its tasks, then in all others.

    None if no other process could: it was made inside a function, in an interactive session, or in code from stdin.
    """
    main, file = main_module()
    theirs = [sys.modules.get(str(getattr(task.fn, "__module__", None))) for task in tasks]
    script = sys.modules.get("__main__")
    for module in sorted([*theirs, *sys.modules.values()], key=lambda module: module is script):
        attribute = _name_in(module, app)
        name = main if module is script else _importable(module)
        if attribute and name:
            return Launch(f"{name}:{attribute}", url, main=main, file=file)
    return None


def main_module() -> tuple[str, str]:
    """The real name of `__main__`, and the file of a script; two empty texts if no other process can import it."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name and spec.name != "__main__":
        return str(spec.name), ""
    file = Path(getattr(main, "__file__", None) or "")
    if spec is None and file.is_file() and file.stem != "__main__":
        return file.stem, str(file.absolute())
    return "", ""


def _name_in(module: ModuleType | None, app: object) -> str:
    names: object = getattr(module, "__dict__", None)  # never getattr by name: some modules import at that
    if not isinstance(names, dict):
        return ""
    return next((name for name, value in list(cast("dict[str, object]", names).items()) if value is app), "")


def _importable(module: ModuleType | None) -> str:
    name = getattr(module, "__name__", "")
    return name if isinstance(name, str) and sys.modules.get(name) is module else ""
