"""Names of tasks, queues and schedules: what may be one, and what a function's task is called."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def named(value: object, parameter: str) -> str:
    """A name of a task, queue or schedule; ConfigError if it would need escaping anywhere."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ConfigError(f"{parameter}={value!r}: a name has 1 to 100 letters, digits, or any of _ . : -")


def default_name(fn: Callable[..., Any]) -> str:
    """module.qualname, with `__main__` resolved to the module that a worker would import, and `<locals>` left out."""
    module = module_named(getattr(fn, "__module__", None) or "__main__")
    qualname = getattr(fn, "__qualname__", "")
    name = f"{module}.{qualname}".replace(".<locals>", "")
    if not qualname or not _NAME.fullmatch(name):
        raise ConfigError(f"the name {name!r} does not fit (letters, digits, _ . : - up to 100): give name=")
    return name


def module_named(name: str) -> str:
    """A module's name as a worker would import it."""
    return _main_module() if name == "__main__" else name.removesuffix(".__main__")


def _main_module() -> str:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file and not file.startswith("<") else "__main__"  # <stdin> is no module's name
