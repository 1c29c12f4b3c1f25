"""The supervisor, over children that are a few lines of script: what it does when something of its own fails."""
# ruff: noqa: SLF001

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from holdfast.clock import SystemClock
from holdfast.job import TRACEBACK_LIMIT, Loss, new_id
from holdfast.store import Line
from holdfast.stores import open_store
from holdfast.worker import deaths, standing
from holdfast.worker import supervisor as module
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.child import Child, Handed
from holdfast.worker.deaths import reap_strangers
from holdfast.worker.stacks import Stacks
from holdfast.worker.supervisor import Supervisor
from tests.worker.rig import PATIENCE, Flaky, events, fields, soon, until

CHILD = """
import json, os, signal, socket, subprocess, sys, time
end = socket.socket(fileno=int(sys.argv[1]))
def say(**message): end.sendall(json.dumps(message).encode() + b"\\n")
def heard(): return (json.loads(line)["word"] for line in end.makefile())
"""
READY = """say(word="ready", worker=sys.argv[2], url="any", pid=os.getpid())
"""
OBEYS = "next(word for word in heard() if word in ('drain', 'hurry'))"


class Rig:
    """A supervisor of scripted children, on a memory store that can fail."""

    def __init__(self) -> None:
        self.store = Flaky(open_store("memory://", SystemClock()))
        self.ids: list[UUID] = []  # of the children's workers, in the order of their births
        self.banners: list[dict[str, Any]] = []
        self.opened: list[str] = []
        self.ready: Callable[[dict[str, Any]], object] = self.banners.append
        self.supervisor: Any = None
        self.task: asyncio.Task[int] | None = None

    def start(self, script: str = OBEYS, *, processes: int = 1, deadline: float = 5.0, ready: str = READY) -> None:
        def command(handed: Handed, _: UUID, declares: bool) -> Sequence[str]:
            self.ids.append(uuid4())
            return [sys.executable, "-S", "-c", CHILD + ready + script, str(handed.channel), str(self.ids[-1])]

        def store(url: str) -> Any:
            self.opened.append(url)
            return self.store

        self.supervisor = Supervisor(
            command,
            store,
            processes=processes,
            concurrency=10,
            deadline=deadline,
            stall_limit=None,
            clock=SystemClock(),
            ready=lambda facts: self.ready(facts),  # noqa: PLW0108  # it may be another by then
        )
        self.task = asyncio.create_task(self.supervisor.run())

    @property
    def children(self) -> list[Child]:
        assert self.task is not None
        assert not self.task.done(), "the supervisor has left"
        return list(self.supervisor._children)

    def beaten(self) -> set[UUID]:
        """Whom the supervisor has beaten for."""
        return {worker for name, (args) in self.store.calls if name == "beat" for worker in args[0]}

    def retired(self) -> dict[UUID, Loss | None]:
        found = [args for name, args in self.store.calls if name == "retire"]
        return {args[0]: args[1] if len(args) > 1 else None for args in found}

    def signal(self) -> None:
        self.supervisor._asked = 0.0
        self.supervisor._signalled("SIGTERM")

    async def stop(self) -> int:
        self.store.back()
        assert self.task is not None
        if not self.task.done():
            self.signal()
        return int(await soon(self.task, "the supervisor does not leave"))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    it = Rig()
    yield it
    if it.task is not None and not it.task.done():
        for child in it.supervisor._children:
            child.kill()
        await it.stop()


async def test_while_the_store_is_away_it_insists_and_all_children_start(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.store.away("open", "register")
    rig.start(processes=2)
    await until(lambda: len(rig.children) == 2, "the other child waits for the supervisor's store")
    await until(lambda: rig.store.times("open") > 1, "it does not try again")
    assert events(caplog, "store-away")
    rig.store.back()
    await until(lambda: rig.beaten() >= set(rig.ids), "no beats for the children that were ready before the store")
    assert len(rig.banners) == 1
    assert await rig.stop() == 0


async def test_a_banner_that_cannot_be_written_changes_nothing(rig: Rig) -> None:
    def broken(_: dict[str, Any]) -> None:
        raise BrokenPipeError("nobody reads")

    rig.ready = broken
    rig.start(processes=2)
    await until(lambda: len(rig.children) == 2 and rig.beaten() >= set(rig.ids), "beats for both")
    assert await rig.stop() == 0


async def test_a_child_that_talks_nonsense_is_named_killed_and_buried(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start("say(word='renamed')\n" + OBEYS)
    await until(rig.retired, "the child is not buried")
    (told, *_) = fields(caplog, "not-heard")
    assert isinstance(told["pid"], int)
    loss = rig.retired()[rig.ids[0]]
    assert loss is not None
    assert loss.on_purpose, "its jobs are not to blame"
    await until(lambda: len(rig.ids) > 1, "no other child takes its place")


async def test_who_leaves_by_itself_is_no_death_and_who_is_ended_is_one(rig: Rig) -> None:
    rig.start("os._exit(0)")
    await until(lambda: len(rig.retired()) >= 2, "the children that left are not buried")
    assert rig.supervisor._outlook.deaths == 0
    await rig.stop()
    other = Rig()
    other.start("os.kill(os.getpid(), signal.SIGKILL)")
    try:
        await until(lambda: other.supervisor._outlook.deaths, "the child that was killed is not counted")
    finally:
        await other.stop()


async def test_a_spawn_that_fails_is_tried_again_and_harms_no_sibling(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.start(processes=2)
    await until(lambda: len(rig.children) == 2 and rig.beaten() >= set(rig.ids), "two children")
    first, second = rig.children
    real, failures = subprocess.Popen, iter([BlockingIOError(11, "no more processes"), OSError(24, "too many files")])

    def failing(*args: Any, **options: Any) -> Any:
        error = next(failures, None)
        if error is not None:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", failing)
    first.kill()
    await until(lambda: len(rig.ids) == 5 and len(rig.children) == 2, "the place is not filled again")
    assert second in rig.children
    assert second.process.poll() is None, "the healthy sibling must live"
    pauses = [told["retry_in"] for told in fields(caplog, "spawn-failed")]
    assert len(pauses) == 2
    assert pauses[0] < pauses[1]
    assert await rig.stop() == 0


def test_a_child_that_never_stops_dying_is_restarted_at_the_longest_pause() -> None:
    assert module._pause(0) == 0
    assert module._pause(5000) == module.RESTART_MOST


async def test_the_second_signal_counts_the_time_to_the_kill_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("GRACE", "FLUSH", "LEAVE"):
        monkeypatch.setattr(module, limit, 0.1)
    rig.start("time.sleep(600)", deadline=600)
    await until(lambda: rig.banners, "the child is not ready")
    rig.signal()
    await asyncio.sleep(0)
    assert rig.children
    rig.signal()
    assert rig.task is not None
    assert await soon(rig.task, "the deaf child is not killed after the second signal") == 1
    loss = rig.retired()[rig.ids[0]]
    assert loss is not None
    assert loss.on_purpose


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_zombies_of_a_dead_childs_group_are_not_waited_for() -> None:
    script = """
import os, time
if os.fork() == 0: os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
print("a zombie and I", flush=True)
time.sleep(600)
"""
    leader = subprocess.Popen([sys.executable, "-S", "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    with leader.stdout:
        try:
            assert leader.stdout.readline(), "no zombie"
            assert deaths._runs(leader.pid), "its leader runs"
        finally:
            os.killpg(leader.pid, signal.SIGKILL)
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    os.killpg(leader.pid, 0)  # unreaped: the group is still there
    assert not any(deaths._runs_in(stat, leader.pid) for stat in Path("/proc").glob("[0-9]*/stat"))
    assert leader.wait(15) == -signal.SIGKILL


def test_a_group_that_cannot_be_looked_at_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)

    def blind(_: object) -> bytes:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(Path, "read_bytes", blind)
    try:
        assert deaths._runs(leader.pid)
    finally:
        leader.kill()
        leader.wait(15)
    assert not deaths._runs(leader.pid)


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
def test_as_the_first_process_it_reaps_strangers_and_leaves_its_own() -> None:
    stranger = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(4)"])
    script = "import sys; sys.stdin.read(); raise SystemExit(5)"
    own = subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE)
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)
    reap_strangers({own.pid})
    with pytest.raises(ChildProcessError):
        os.waitpid(stranger.pid, os.WNOHANG)
    stranger.wait()
    assert own.stdin is not None
    own.stdin.close()
    os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
    reap_strangers({own.pid})
    assert own.wait(15) == 5


@pytest.mark.parametrize("how", ["silent", "away"])
async def test_a_store_that_does_not_answer_at_the_end_is_not_waited_for_where_nothing_is_left_to_give_back(
    how: str, rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "FLUSH", 0.2)
    rig.start()
    await until(lambda: rig.beaten() >= set(rig.ids) and rig.ids, "no beats for the child")
    if how == "away":
        rig.store.away("retire", "mail")
    else:
        for _ in range(3):
            rig.store.hold("retire")
    rig.signal()
    assert rig.task is not None
    async with asyncio.timeout(PATIENCE / 2):  # the store is silent for longer
        assert await rig.task == 0
    assert rig.store.times("retire") >= 1, "the store was not asked"
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR], "its child had left in order"


async def test_a_child_is_not_retired_while_anything_of_its_group_still_runs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.start()
    await until(lambda: rig.banners, "the child is not ready")
    (child,) = rig.children
    looks: list[int] = []
    released = threading.Event()

    def runs(group: int) -> bool:
        looks.append(group)
        return not released.is_set()

    monkeypatch.setattr(deaths, "_runs", runs)
    monkeypatch.setattr(deaths, "GROUP_GONE", 60.0)
    try:
        child.kill()
        await until(lambda: len(looks) > 100, "it does not look whether its group is gone")
        assert rig.store.times("retire") == 0, "its jobs are given back while its code may run"
        assert child in rig.children
    finally:
        released.set()
    await until(lambda: rig.ids[0] in rig.retired(), "the child is not buried when its group is gone")
    assert set(looks) == {child.pid}
    assert await rig.stop() == 0


async def test_a_renamed_worker_is_kept_under_its_new_name_alone(rig: Rig) -> None:
    fresh = uuid4()
    await rig.store.inner.register(fresh, None, {})  # else the first beat finds it gone
    rig.start(f"say(word='renamed', worker='{fresh}')\n" + OBEYS)
    await until(
        lambda: fresh in rig.supervisor._standing.keeper.kept if rig.supervisor._standing.keeper else False,
        "its new name",
    )
    await until(lambda: rig.ids[0] in rig.retired(), "the old life is not buried")
    assert rig.ids[0] not in rig.supervisor._standing.keeper.kept
    assert await rig.stop() == 0
    assert fresh in rig.retired()


async def test_a_supervisor_that_was_retired_begins_anew(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.store.open()
    rig.start()
    await until(lambda: rig.banners, "the child is not ready")
    old = rig.supervisor._standing.id
    await rig.store.inner.retire(old)
    rig.store.fail("register")
    await rig.supervisor._standing.keeper.beat_step()
    await until(lambda: rig.supervisor._standing.id != old, "it goes on under its retired name")
    assert events(caplog, "supervisor-gone")
    await until(
        lambda: rig.supervisor._standing.id in rig.supervisor._standing.keeper.kept, "it does not beat for itself"
    )
    assert rig.supervisor._standing.id not in (await rig.store.inner.beat([rig.supervisor._standing.id])).gone


async def test_a_child_that_reads_nothing_gets_no_line_twice_and_is_killed_in_the_end(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.start("time.sleep(600)")
    await until(lambda: rig.banners, "the child is not ready")
    (child,) = rig.children
    forward = standing._Forward(child, rig.ids[0])
    line = Line(rig.ids[0], "cancel", new_id(), 1)
    for _ in range(20_000):
        forward.line(line)
    first = child.channel.unread
    assert 0 < first < 1000, "only what is read is followed by more"
    monkeypatch.setattr(standing, "UNREAD_MOST", 5_000)
    while child.sentence is None:
        forward.beaten(0.0, 15_000)
    await until(lambda: rig.ids[0] in rig.retired(), "the hung child is not buried")
    assert events(caplog, "hung") == ["hung"]


@pytest.mark.parametrize("says", [True, False])
async def test_a_child_that_says_that_it_leaves_has_its_jobs_back_uncharged(rig: Rig, says: bool) -> None:
    rig.start(OBEYS + f"\nif {says}: say(word='leaving', code=3)\nos._exit(3)")
    await until(lambda: rig.banners, "the child is not ready")
    assert await rig.stop() == 3
    loss = rig.retired()[rig.ids[0]]
    assert loss is not None
    assert loss.on_purpose is says


async def test_a_stuck_child_is_ended_even_if_nobody_can_look_into_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start("time.sleep(600)")
    await until(lambda: rig.banners, "the child is not ready")
    (child,) = rig.children

    async def blind(_: object) -> str:
        raise PermissionError(1, "not yours")

    child.stacks.of = blind
    child.box.pulse(1.0, 0.0)  # its first and last
    rig.supervisor._watchman._stall_limit = 0.5
    await until(lambda: rig.ids[0] in rig.retired(), "it lives on")
    loss = rig.retired()[rig.ids[0]]
    assert loss is not None
    assert "its loop stood still" in loss.cause
    assert not loss.on_purpose, "whose doing it was is not known"


async def test_a_death_that_cannot_be_judged_is_buried_all_the_same(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.start("os._exit(7)")

    def broken(*_: object) -> Any:
        raise ValueError("nonsense in the box")

    monkeypatch.setattr(Child, "losses", broken)
    await until(rig.retired, "the dead child is not buried")
    loss = rig.retired()[rig.ids[0]]
    assert loss is not None
    assert "exit code 7" in loss.cause
    assert "nonsense in the box" in caplog.text


async def test_nothing_is_killed_by_a_number_that_may_be_anothers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start("os._exit(0)")
    await until(lambda: rig.supervisor._children, "no child")
    (child,) = rig.supervisor._children
    await until(rig.retired, "the dead child is not buried")

    def killed(*_: object) -> None:
        pytest.fail("killed by its number after its burial")

    monkeypatch.setattr(os, "killpg", killed)
    monkeypatch.setattr(os, "kill", killed)
    child.kill()
    child.signal(signal.SIGTERM)
    monkeypatch.undo()


def test_a_loss_names_its_claim_and_brings_no_more_of_a_stack_than_is_kept() -> None:
    box, stacks, nobody = BlackBox.made(3), Stacks(), cast("Any", None)
    child = Child(nobody, nobody, box, stacks)
    box.on_loop()
    job, other = new_id(), new_id()
    for key in [(job, 1), (job, 2), (other, 1)]:
        box.begin(key, 1.0, 0, 1.0, on_loop=True)
    call = f'  File "/{"x" * 400}.py", line 1 in send\n'
    os.write(stacks.descriptor, f"Thread 0x{box.loop_thread[0]:016x} (most recent call first):\n{call * 100}".encode())
    child.condemn(Loss("stuck", on_purpose=True))
    child.overdue |= {(job, 2): ("final", ""), (other, 1): ("retry", call * 100)}
    _, losses = child.losses(-9, 0)
    assert {key: loss.overdue for key, loss in losses.items()} == {(job, 1): "", (job, 2): "final", (other, 1): "retry"}
    for stack in (losses[job, 2].stack, losses[other, 1].stack):
        assert TRACEBACK_LIMIT < len(stack) < TRACEBACK_LIMIT + 50
        assert "characters left out" in stack


async def test_a_child_that_cannot_start_again_is_told_with_its_reason(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start("say(word='unstarted', error='resource shop.db could not be opened: OSError: gone')\nsys.exit(2)")
    await until(lambda: events(caplog, "restart"), "it is not restarted")
    told = fields(caplog, "restart")[0]
    assert told["error"] == "resource shop.db could not be opened: OSError: gone"
    assert told["ended"] == "exit code 2"
    await rig.stop()


async def test_a_child_that_hears_nothing_while_it_starts_is_ended_without_the_deadline(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("GRACE", "FLUSH", "LEAVE"):
        monkeypatch.setattr(module, name, 0.01)
    rig.start("time.sleep(600)", deadline=600, ready="")
    await until(lambda: len(rig.children) == 1, "it is not there")
    assert await rig.stop() == 0, "it had no jobs"
    assert "still starting" in fields(caplog, "killed")[0]["message"]
