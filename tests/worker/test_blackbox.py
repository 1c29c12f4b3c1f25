"""The black box: what one process writes, another reads, whatever becomes of the first; and who is to blame by it."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.worker import finisher, slots
from holdfast.worker.blackbox import SPARE, Begun, BlackBox, code_number, code_of
from holdfast.worker.culprit import crashed, held_up, stack_of
from holdfast.worker.stacks import Stacks
from holdfast.worker.watch import EVERY, Watch
from tests.worker.rig import soon

WRITER = """
import os, signal, sys
from uuid import UUID
from holdfast.worker.blackbox import BlackBox
box = BlackBox(int(sys.argv[1]))
kept, settled, slot = (UUID(text) for text in sys.argv[2:])
box.begin((settled, 1), None, 0, 1.0, on_loop=True)
box.begin((kept, 7), 12.5, 99, 2.0, on_loop=False)
box.begin((slot, 3), None, 0, 3.0, on_loop=True)
box.in_group((slot, 3), 4321)
box.end((settled, 1))
box.pulse(5.0, 4.0)
box.thread_pulse(6.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_begun_is_still_to_be_read() -> None:
    box = BlackBox.made(10)
    kept, settled, slot = uuid4(), uuid4(), uuid4()
    command = [sys.executable, "-c", WRITER, str(box.descriptor), str(kept), str(settled), str(slot)]
    done = subprocess.run(command, pass_fds=[box.descriptor], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    begun = {run.id: run for run in box.begun()}
    assert begun.keys() == {kept, slot}
    assert begun[kept].key == (kept, 7)
    assert (begun[kept].deadline, begun[kept].code, begun[kept].since) == (12.5, 99, 2.0)
    assert begun[kept].thread
    assert begun[kept].native
    assert begun[slot].group == 4321
    assert not begun[slot].thread
    assert box.pulses == (5.0, 6.0, 4.0)


def test_a_place_is_used_again_and_an_unknown_run_changes_nothing() -> None:
    box = BlackBox.made(1)
    for number in range(10_000):
        box.begin((uuid4(), number), None, 0, 1.0, on_loop=True)
        box.end(next(iter(box._taken)))  # noqa: SLF001
    assert box.begun() == []
    box.end((uuid4(), 1))
    box.in_group((uuid4(), 1), 5)
    box.blocked_by((uuid4(), 1))
    assert box.blocker() is None


def test_there_is_a_place_for_all_that_can_be_unsettled_at_once() -> None:
    assert SPARE >= finisher.PENDING_MOST + finisher.BATCH_MOST + slots.PREFETCH_MOST


def test_a_full_table_leaves_a_run_unnoted_until_there_is_a_place() -> None:
    box, keys = BlackBox.made(1), [(uuid4(), number) for number in range(SPARE + 3)]
    for key in keys:
        box.begin(key, None, 0, 1.0, on_loop=True)
    assert {run.key for run in box.begun()} == set(keys[:-2])
    for key in keys[-2:]:
        box.in_group(key, 5)
        box.end(key)
    assert not any(run.group for run in box.begun())
    box.end(keys[0])
    box.begin(keys[-1], None, 0, 1.0, on_loop=True)
    assert {run.key for run in box.begun()} == {*keys[1:-2], keys[-1]}


def test_a_group_that_is_gone_is_nobodys_any_more() -> None:
    box, first, second, other, settled = BlackBox.made(1), *[(uuid4(), number) for number in range(4)]
    groups = {first: 4321, second: 4321, other: 99, settled: 4321}
    for key, group in groups.items():
        box.begin(key, None, 0, 1.0, on_loop=True)
        box.in_group(key, group)
    box.end(settled)
    box.group_gone(0)
    assert {run.key: run.group for run in box.begun()} == {first: 4321, second: 4321, other: 99}
    box.group_gone(4321)
    assert {run.key: run.group for run in box.begun()} == {first: 0, second: 0, other: 99}


def test_the_blocker_is_named_until_it_is_settled() -> None:
    box, key = BlackBox.made(1), (uuid4(), 2)
    box.begin(key, None, 0, 1.0, on_loop=True)
    box.blocked_by(key)
    assert box.blocker() == key
    box.end(key)
    assert box.blocker() is None


def test_late_news_of_a_beat_do_not_set_the_lease_back() -> None:
    box = BlackBox.made(1)
    box.beat(10.0, 15.0, 23.0)
    box.beat(9.0, 15.0, 22.0)
    assert box.beaten == (10.0, 15.0)
    assert box.held_until == 23.0


# --- who did it


def run(**changes: Any) -> Begun:
    fields: dict[str, Any] = {"deadline": 0.0, "thread": 0, "native": 0, "code": 0, "group": 0, "since": 1.0}
    return Begun(**{"id": uuid4(), "fence": 1} | fields | changes)


CRASH = """Fatal Python error: Segmentation fault

Current thread 0x00007f0000000002 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 521 in string_at
  File "/app/shop.py", line 30 in resize
  File "/app/shop.py", line 20 in send
  File "/lib/holdfast/worker/runner.py", line 150 in run_async

Thread 0x00007f0000000001 (most recent call first):
  File "/usr/lib/python3.11/asyncio/events.py", line 80 in _run
  File "/app/shop.py", line 9 in resize
"""
LOOP, OTHER = 0x7F0000000001, 0x7F0000000002


def test_a_crash_in_a_thread_is_the_doing_of_the_run_in_that_thread() -> None:
    guilty, innocent = run(thread=OTHER), run(thread=3)
    assert crashed(CRASH, [innocent, guilty], LOOP) == guilty
    assert crashed(CRASH, [innocent], LOOP) is None
    assert crashed("", [guilty], LOOP) is None
    asked = CRASH.replace("Fatal Python error: Segmentation fault", "")
    assert crashed(asked, [guilty], LOOP) is None, "stacks that were asked for say nothing of a crash"


def test_a_crash_on_the_loop_is_the_doing_of_the_only_run_whose_code_is_on_its_stack() -> None:
    code = code_number("/app/shop.py", "send")
    guilty, innocent = run(code=code), run(code=code_number("/app/shop.py", "resize"))
    assert crashed(CRASH, [innocent, guilty], loop_thread=OTHER) == guilty
    assert crashed(CRASH, [run(code=code), guilty], loop_thread=OTHER) is None, "of two it is not known which"
    subtask = CRASH.replace("run_async", "_run")
    assert crashed(subtask, [guilty], loop_thread=OTHER) is None, "in a task of its own it may be anybody's doing"
    assert crashed(CRASH, [guilty._replace(since=-1.0)], loop_thread=OTHER) is None, "its code had ended"
    assert crashed(CRASH, [run(code=code, group=9)], loop_thread=OTHER) is None, "that one is in another process"


def test_who_holds_the_interpreter_is_the_one_whose_thread_works() -> None:
    busy, idle = run(thread=OTHER, native=22), run(thread=3, native=33)
    assert held_up("", [idle, busy], (LOOP, 11), busy={22}) == busy
    assert held_up("", [idle, busy], (LOOP, 11), busy={22, 33}) is None
    assert held_up("", [idle, busy], (LOOP, 11), busy=set()) is None
    before = run(thread=OTHER, native=22, since=-1.0)
    assert held_up("", [before, busy], (LOOP, 11), busy={22}) == busy, "the run before in that thread is over"


def test_while_its_pulse_goes_on_only_the_process_itself_can_say_who_blocks_its_loop() -> None:
    one, other = run(thread=OTHER, native=22), run()
    assert held_up("", [one, other], (LOOP, 11), busy=None, blocker=other.key) == other
    assert held_up("", [one, other], (LOOP, 11), busy=None) is None, "to compute is no guilt"
    assert held_up("", [one, other], (LOOP, 11), busy={22}, blocker=other.key) == one, "an old note, of a frozen pulse"
    over = other._replace(since=-1.0)
    assert held_up("", [over], (LOOP, 11), busy=None, blocker=over.key) is None


def test_a_stack_reads_like_a_traceback() -> None:
    assert stack_of(CRASH, OTHER).splitlines() == [
        "Stack (most recent call last):",
        '  File "/lib/holdfast/worker/runner.py", line 150, in run_async',
        '  File "/app/shop.py", line 20, in send',
        '  File "/app/shop.py", line 30, in resize',
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 521, in string_at',
    ]
    assert stack_of(CRASH, 5) == ""


def test_a_handler_is_known_by_its_own_code_behind_decorators() -> None:
    def handler() -> None: ...

    assert code_of(handler) == code_number(__file__, "handler")
    assert code_of(print) == 0


# --- stacks


async def test_a_process_tells_its_stacks_while_a_c_call_holds_its_interpreter() -> None:
    stacks = Stacks()
    script = (
        "import sys; from holdfast.worker.stacks import write_stacks; write_stacks(int(sys.argv[1]))\n"
        "def busy(): sum(range(10**12))\n"
        "print('ready', flush=True); busy()"
    )
    command = [sys.executable, "-c", script, str(stacks.descriptor)]
    process = subprocess.Popen(  # noqa: ASYNC220  # it starts within milliseconds
        command, pass_fds=[stacks.descriptor], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            assert process.stdout.readline() == b"ready\n"
            for _ in range(2):
                text = ""
                while "in busy" not in text:
                    text = await soon(stacks.of(process.send_signal), "its stacks")
                assert text.count("Current thread") == 1, "what was written before is forgotten"
        finally:
            process.kill()
            process.wait(15)
    assert await soon(stacks.of(process.send_signal), "no stacks of the dead") == ""


# --- the watch


def test_a_pulse_that_stands_still_is_counted_until_it_goes_on() -> None:
    watch = Watch()
    for second in range(5):
        watch.look((1.0, float(second + 1), 0.0), float(second), store_answers=True)
    assert watch.still == [4.0, 0.0, 0.0]
    assert watch.stuck(4.0) == "loop"
    assert watch.stuck(4.5) is None
    assert watch.stuck(None) is None
    watch.look((2.0, 6.0, 0.0), 5.0, store_answers=True)
    assert watch.still == [0.0, 0.0, 0.0]


def test_a_pulse_that_never_beat_is_not_judged() -> None:
    watch = Watch()
    for second in range(100):
        watch.look((0.0, 0.0, 0.0), float(second), store_answers=True)
    assert watch.stuck(1.0) is None


def test_a_watcher_that_was_stopped_itself_blames_nobody() -> None:
    watch = Watch()
    watch.look((1.0, 1.0, 1.0), 0.0, store_answers=True)
    watch.look((1.0, 1.0, 1.0), 1.0, store_answers=True)
    watch.look((1.0, 1.0, 1.0), 10_000.0, store_answers=True)
    assert max(watch.still) <= 3 * EVERY


def test_outcomes_that_wait_for_a_store_that_is_away_are_no_fault_of_the_child() -> None:
    watch = Watch()
    for second in range(100):
        watch.look((float(second + 1), float(second + 1), 7.0), float(second), store_answers=second < 50)
    assert watch.stuck(10.0) is None
    for second in range(100, 120):
        watch.look((float(second + 1), float(second + 1), 7.0), float(second), store_answers=True)
    assert watch.stuck(10.0) is None, "that the store is away may not have been noticed yet"
    for second in range(120, 140):
        watch.look((float(second + 1), float(second + 1), 7.0), float(second), store_answers=True)
    assert watch.stuck(10.0) == "outcomes"


@pytest.mark.parametrize("threads", [1, 4])
def test_runs_begun_in_several_threads_all_have_a_place(threads: int) -> None:
    box = BlackBox.made(100)
    keys: list[tuple[UUID, int]] = [(uuid4(), number) for number in range(400)]

    def begin(part: int) -> None:
        for key in keys[part::threads]:
            box.begin(key, None, 0, time.monotonic(), on_loop=False)

    started = [threading.Thread(target=begin, args=(part,)) for part in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(30)
    assert sorted(one.key for one in box.begun()) == sorted(keys)
    assert {one.native for one in box.begun()} != {os.getpid()}
