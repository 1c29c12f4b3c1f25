"""The app's tasks, by all the names that they answer to, and the modules that define them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.errors import ConfigError
from holdfast.naming import module_named
from holdfast.options import Plan
from holdfast.task import Maker, Task, define


class Registry:
    """Tasks are added as they are defined; `load` imports the modules in which the rest of them are."""

    def __init__(self, modules: Sequence[str], defaults: Plan) -> None:
        if isinstance(modules, str):
            raise ConfigError(f"modules={modules!r}: a list of module names, for example modules=['shop.mail']")
        self._modules = tuple(_module(name) for name in modules)
        self._defaults = defaults
        self.names: dict[str, Task[..., Any]] = {}

    @property
    def tasks(self) -> list[Task[..., Any]]:
        """Each task once."""
        return list({task.name: task for task in self.names.values()}.values())

    def define(self, maker: Maker, fn: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
        """Makes a task of a function. ConfigError for one that cannot be, and for a name that is taken."""
        task = define(maker, fn, self._defaults, options)
        for name in (task.name, *task.aliases):
            taken = self.names.get(name)
            if taken is not None and not redefinition(taken.fn, task.fn):
                raise ConfigError(f"two tasks are named {name!r}: {taken.fn!r} and {task.fn!r}; give one of them name=")
        for name in (task.name, *task.aliases):
            self.names[name] = task
        return task

    def knows(self, module: str) -> bool:
        """Whether the app's tasks, or what is in `modules`, are in this module: it speaks for it."""
        named = any(module == name or module.startswith(f"{name}.") for name in self._modules)
        return named or any(module == module_named(task.fn.__module__) for task in self.names.values())

    def load(self) -> None:
        """Imports `modules`, so that their tasks exist. ConfigError naming the module that cannot be imported."""
        for name in self._modules:
            for module in (name, *_submodules(_import(name))):
                _import(module)


def redefinition(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether `new` is `old` loaded once more, as by importlib.reload or as __main__ and by its name."""
    return _origin(old) == _origin(new) and getattr(old, "__code__", None) is not getattr(new, "__code__", None)


def _origin(fn: Callable[..., Any]) -> tuple[object, ...]:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return (code.co_filename, code.co_firstlineno, code.co_qualname) if code is not None else (fn,)


def _module(name: object) -> str:
    if isinstance(name, str) and all(part.isidentifier() for part in name.split(".")):
        return name
    raise ConfigError(f"modules: {name!r} is no module's name, such as 'shop.mail'")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"modules: {name!r} cannot be imported: {error}") from error


def _submodules(package: Any) -> list[str]:
    path = getattr(package, "__path__", None)
    if path is None:
        return []
    names = [found.name for found in pkgutil.walk_packages(path, package.__name__ + ".")]
    return [name for name in names if not name.endswith(".__main__")]  # importing that would run the program
