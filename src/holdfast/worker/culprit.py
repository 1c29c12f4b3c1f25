"""Who did it: which run ended or holds up its process, read from stacks, thread times and the black box. Pure.

The stacks are as the standard library's faulthandler writes them (`dump_traceback`, Python 3.11 to 3.13): a section for
each thread, headed by its identifier in hexadecimal, the innermost call first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from holdfast.worker.blackbox import Begun, code_number

FATAL = "Fatal Python error"
_HEAD = re.compile(r"^(Current thread|Thread) 0x([0-9a-f]+)", re.MULTILINE)
_LINE = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


def crashed(stacks: str, begun: Sequence[Begun], loop_thread: int) -> Begun | None:
    """The run whose thread a fatal signal met. Stacks that were only asked for blame nobody."""
    stacks = stacks[stacks.find(FATAL) :] if FATAL in stacks else ""
    found = next((head for head in _HEAD.finditer(stacks) if head[1] == "Current thread"), None)
    return None if found is None else _run_in(int(found[2], 16), stacks, begun, loop_thread)


def held_up(
    stacks: str,
    begun: Sequence[Begun],
    loop_thread: tuple[int, int],
    *,
    busy: AbstractSet[int] | None,
    blocker: object = None,
) -> Begun | None:
    """The run that keeps its process, or the loop in it, from going on.

    `busy` is None while the process's own pulse goes on: then only that can know, and `blocker` is the (id, fence) that
    it named. Else no thread but one goes on, and `busy` are those, as the system numbers them, that used the processor.
    """
    begun = [run for run in begun if not run.over]
    if busy is None:
        return next((run for run in begun if run.key == blocker), None)
    ident, native = loop_thread
    suspects = [run for run in begun if run.thread and run.native in busy]
    if native in busy:
        on_loop = _run_in(ident, stacks, begun, ident)
        suspects += [on_loop] if on_loop is not None else []
    return suspects[0] if len(suspects) == 1 else None


def stack_of(stacks: str, thread: int) -> str:
    """The stack of one thread as Python's own tracebacks write it: the innermost call last."""
    calls = _LINE.findall(_section(stacks, thread))
    lines = [f'  File "{file}", line {line}, in {name}' for file, line, name in reversed(calls)]
    return "\n".join(["Stack (most recent call last):", *lines]) if lines else ""


def _section(stacks: str, thread: int) -> str:
    heads = [*_HEAD.finditer(stacks)]
    for place, head in enumerate(heads):
        if int(head[2], 16) == thread:
            end = heads[place + 1].start() if place + 1 < len(heads) else len(stacks)
            return stacks[head.start() : end].rstrip()
    return ""


def _run_in(thread: int, stacks: str, begun: Sequence[Begun], loop_thread: int) -> Begun | None:
    begun = [run for run in begun if not run.over]
    if thread != loop_thread:
        return next((run for run in begun if run.thread == thread), None)
    code = _handler_in(_section(stacks, thread))
    known = [run for run in begun if not run.thread and not run.group and run.code == code]
    return known[0] if len(known) == 1 else None


def _handler_in(stack: str) -> int | None:
    """The code of the handler that the runner itself has called: deeper in the stack it may be any other's doing."""
    calls = [(file, name) for file, _, name in _LINE.findall(stack)]  # the innermost first
    for place, (file, name) in enumerate(calls):
        if name == "run_async" and file.endswith("worker/runner.py") and place:
            return code_number(*calls[place - 1])
    return None
