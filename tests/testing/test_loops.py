"""Loops: what runs where, when several threads want the sandbox's own loop."""

import asyncio
import threading

import pytest

from holdfast.testing.loops import Loops, loop_here, off_loop


async def _answer() -> int:
    await asyncio.sleep(0)
    return 42


def test_a_call_beside_a_loop_that_stops_is_taken_over() -> None:
    """The loop was about to end when the call came: it must not wait for a turn that nobody takes."""
    loops, answers = Loops(None), list[int]()
    assert loops.run(_answer) == 42
    loops._turn.acquire()  # noqa: SLF001  # as by a thread whose run is over, but for letting go
    thread = threading.Thread(target=lambda: answers.append(loops.run(_answer)), daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive(), "it waits for the loop to run"
    loops._turn.release()  # noqa: SLF001  # as above
    thread.join(30)
    assert answers == [42]
    loops.close()


def test_errors_come_back() -> None:
    async def fails() -> None:
        raise TimeoutError("its own")

    loops = Loops(None)
    with pytest.raises(TimeoutError, match="its own"):
        loops.run(fails)
    loops.close()


def test_close_without_use_makes_no_loop() -> None:
    Loops(None).close()


async def test_off_the_loop_and_back() -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    with off_loop():
        assert loop_here() is None
        assert asyncio.run(_answer()) == 42
        assert loop_here() is None
    assert loop_here() is loop
    with pytest.raises(LookupError), off_loop():
        raise LookupError
    assert loop_here() is loop
    assert asyncio.current_task() is task
    await asyncio.sleep(0)


def test_off_no_loop_is_no_matter() -> None:
    with off_loop():
        assert loop_here() is None
