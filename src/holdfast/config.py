"""Settings, read at first use: an argument wins over HOLDFAST_*, that over [tool.holdfast] in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from holdfast.errors import ConfigError


def store_url(given: str | None) -> str:
    """The store's URL from the first place that names one; ConfigError if none does."""
    url = given or setting("url")
    if not url:
        raise ConfigError(
            "no store is chosen: give Holdfast(url=...), call jobs.configure(url=...), set HOLDFAST_URL, "
            "or write url under [tool.holdfast] in pyproject.toml; for example sqlite:///jobs.db"
        )
    return url


def setting(name: str) -> str | None:
    """HOLDFAST_<NAME> from the environment, else `name` under [tool.holdfast] from the working directory upwards."""
    value = os.environ.get(f"HOLDFAST_{name.upper()}")
    if value is not None:
        return value.strip() or None
    found = _pyproject(Path.cwd()).get(name)
    if found is None:
        return None
    if not isinstance(found, str):
        raise ConfigError(f"[tool.holdfast] {name} = {found!r}: must be a text")
    return found


def _pyproject(start: Path) -> dict[str, Any]:
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return _section(path)
    return {}


def _section(path: Path) -> dict[str, Any]:
    import tomllib  # only a project that has the file pays for it

    try:
        tools = tomllib.loads(path.read_text("utf-8")).get("tool", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    section: object = cast("dict[str, Any]", tools).get("holdfast", {}) if isinstance(tools, dict) else None
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: [tool.holdfast] must be a table")
    return cast("dict[str, Any]", section)
