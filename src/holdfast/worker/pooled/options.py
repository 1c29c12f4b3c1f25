"""Options of a pool's jobs: what may be given, checked and merged into a Plan."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from holdfast.clock import Duration, span
from holdfast.errors import ConfigError
from holdfast.policy import Retry
from holdfast.task import Task
from holdfast.worker.pooled.core import Core
from holdfast.worker.pooled.kinds import name_of
from holdfast.worker.pooled.work import Plan


class PoolOptions(TypedDict, total=False):
    """Options for `Pool()` and for its `using()`; "not given" differs from None."""

    run_in: Literal["thread", "process"]  # default: a thread for a plain function, the loop for an async one
    priority: int  # -100..100, higher first
    retry: Retry
    timeout: Duration | None


OPTIONS = frozenset(PoolOptions.__annotations__)
OF_THE_POOL = ("concurrency", "max_size", "when_full", "block_timeout")
_ONCE = Retry(max_attempts=1)


def first_plan(core: Core, options: Mapping[str, Any]) -> Plan:
    """The plan of `Pool(**options)`."""
    plain = Plan(core.lane(0), 0, _ONCE, _ONCE.terms(None, 0), None, None)
    _known(options, "Pool", (*OF_THE_POOL, *sorted(OPTIONS)))
    return _changed(core, plain, options)


def changed_plan(core: Core, plan: Plan, options: Mapping[str, Any]) -> Plan:
    """`plan` with the options of `using(**options)` over it. ConfigError naming the option, its value, what works."""
    for name in OF_THE_POOL:
        if name in options:
            raise ConfigError(f"using: {name}= is of the whole pool, not of a job: give it to Pool(...)")
    _known(options, "using", sorted(OPTIONS))
    return _changed(core, plan, options)


def refuse_options(fn: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """ConfigError for an option among a function's arguments, which it does not take."""
    misplaced = sorted(OPTIONS & kwargs.keys())
    if not misplaced:
        return
    try:
        taken = inspect.signature(fn.fn if isinstance(fn, Task) else fn).parameters.values()
    except (TypeError, ValueError):  # what it is, is said elsewhere; some builtins do not tell
        return
    names = {each.name for each in taken if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    for name in misplaced:
        if name not in names and not any(each.kind is each.VAR_KEYWORD for each in taken):
            raise ConfigError(
                f"{name}={kwargs[name]!r}: {name_of(fn)} takes no argument of this name, and what follows the function "
                f"are its arguments; options go to using(): pool.using({name}={kwargs[name]!r}).submit(...)"
            )


def _known(options: Mapping[str, Any], where: str, known: tuple[str, ...] | list[str]) -> None:
    for name in options:
        if name not in known:
            raise ConfigError(f"{where}: no option {name!r}; there are {', '.join(known)}")


def _changed(core: Core, plan: Plan, options: Mapping[str, Any]) -> Plan:
    for name, value in options.items():
        match name:
            case "timeout":
                timeout = None if value is None else span(value, name, positive=True)
                plan = plan._replace(timeout=timeout, terms=plan.retry.terms(timeout, 0))
            case "retry":
                if not isinstance(value, Retry):
                    raise ConfigError(f"retry={value!r}: a Retry, for example Retry(max_attempts=5)")
                plan = plan._replace(retry=value, terms=value.terms(plan.timeout, 0))
            case "priority":
                if isinstance(value, bool) or not isinstance(value, int) or not -100 <= value <= 100:
                    raise ConfigError(f"priority={value!r}: a whole number from -100 to 100, higher first")
                plan = plan._replace(priority=value, lane=core.lane(value))
            case _:
                if value not in ("thread", "process"):
                    raise ConfigError(f"run_in={value!r}: 'thread' or 'process'")
                plan = plan._replace(run_in=value)
    return plan
