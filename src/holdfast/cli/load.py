"""From `module:attribute` to the app, with errors that say what was tried and from where."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType, TracebackType

from holdfast.app import Holdfast
from holdfast.config import setting
from holdfast.errors import ConfigError


def app_named(spec: str | None) -> str:
    """Which app: the argument, else HOLDFAST_APP, else [tool.holdfast]; ConfigError if none of them says."""
    named = spec or setting("app")
    if not named:
        raise ConfigError(
            "no app is named: give module:attribute such as shop:jobs, set HOLDFAST_APP, "
            "or write app under [tool.holdfast] in pyproject.toml"
        )
    return named


def load_app(spec: str | None) -> Holdfast:
    """Imports the app that `module:attribute` names; without an attribute, the only Holdfast in the module.

    The working directory comes first in the search. ConfigError if the module is not there, cannot be imported, or
    has no such Holdfast; what else the module raises passes through, with a note.
    """
    named = app_named(spec)
    module_name, _, attribute = named.partition(":")
    if module_name.endswith(".py") or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"app {named!r}: {_spelling(module_name)}")
    _search_here()
    module = _imported(named, module_name)
    found = _attribute(named, module, attribute) if attribute else _only_app(named, module)
    if not isinstance(found, Holdfast):
        kind = type(found).__name__
        raise ConfigError(f"app {named!r}: {attribute} is a {kind}, not a Holdfast; {_apps_there(module)}")
    return found


def _spelling(module: str) -> str:
    if module.endswith(".py"):
        return f"this is a file; write it as a module: {module.removesuffix('.py').replace(os.sep, '.')}:jobs"
    return "write it as module:attribute, for example shop:jobs or shop.app:jobs"


def _search_here() -> None:
    here = os.getcwd()  # noqa: PTH109  # sys.path holds texts
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)


def _imported(named: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            where = _looked_in(module, error.name)
            raise ConfigError(f"app {named!r}: there is no module {error.name!r} {where}") from None
        raise _broken(named, module, error) from error
    except (ImportError, SyntaxError) as error:
        raise _broken(named, module, error) from error
    except Exception as error:
        error.add_note(f"holdfast was importing {module!r} for the app {named!r}, from {sys.path[0]}")
        raise


def _looked_in(module: str, missing: str) -> str:
    parent = missing.rpartition(".")[0]
    if parent and parent in sys.modules:
        return f"in {getattr(sys.modules[parent], '__file__', None) or parent}"
    more = " (or is it the name of the package's folder that is missing?)" if "." in module else ""
    return f"in {sys.path[0]} (the working directory), nor among the installed packages{more}"


def _broken(named: str, module: str, error: Exception) -> ConfigError:
    if isinstance(error, SyntaxError):
        return ConfigError(f"app {named!r}: {error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}")
    return ConfigError(f"app {named!r}: importing {module!r} failed{_line_of(error.__traceback__)}: {error}")


def _line_of(trace: TracebackType | None) -> str:
    """The innermost line of a file of the user's own, which is where to look."""
    frames = [f for f in traceback.extract_tb(trace) if not f.filename.startswith("<frozen")][1:]  # the first is ours
    own = [f for f in frames if f.filename.startswith(sys.path[0] + os.sep)] or frames
    return f" at {own[-1].filename}, line {own[-1].lineno} ({own[-1].line})" if own else ""


def _attribute(named: str, module: ModuleType, attribute: str) -> object:
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(f"app {named!r}: {_place(module)} has no {attribute!r}; {_apps_there(module)}") from None
    return found


def _only_app(named: str, module: ModuleType) -> Holdfast:
    apps = {id(app): app for app in vars(module).values() if isinstance(app, Holdfast)}
    if len(apps) != 1:
        raise ConfigError(f"app {named!r}: which object of {_place(module)}? {_apps_there(module)}")
    return next(iter(apps.values()))


def _apps_there(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Holdfast)]
    if not names:
        return "it has no Holdfast at all; write jobs = Holdfast(...) in it"
    return f"it has {', '.join(f'{module.__name__}:{name}' for name in names)}"


def _place(module: ModuleType) -> str:
    return f"{module.__name__} ({module.__file__})" if module.__file__ else module.__name__
