"""The one I/O thread: calls from any thread and any loop, forks, exits, and what runs without it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast import Holdfast
from holdfast import bridge as bridges
from holdfast.bridge import Bridge, run_here
from holdfast.errors import StoreAway

PATIENCE = 30


async def nothing() -> None:
    pass


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    it = Bridge(lambda: None, nothing)
    yield it
    it.close()


async def where() -> tuple[int, int]:
    """Which thread and which loop this runs on."""
    return threading.get_ident(), id(asyncio.get_running_loop())


def program(text: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a small program in an interpreter of its own, with every warning an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


# --- one thread, one loop


def test_a_bridge_that_is_not_used_has_no_thread() -> None:
    before = threading.active_count()
    it = Bridge(lambda: None, nothing)
    it.close()
    assert threading.active_count() == before


def test_calls_of_every_thread_and_loop_meet_on_one_loop(bridge: Bridge) -> None:
    def synchronous(_: int) -> set[tuple[int, int]]:
        return {bridge.run(where()) for _ in range(20)}

    def asynchronous(_: int) -> set[tuple[int, int]]:
        async def many() -> set[tuple[int, int]]:
            return set(await asyncio.gather(*(bridge.arun(where()) for _ in range(20))))

        return asyncio.run(many()) | asyncio.run(many())  # a loop each, one after the other

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(kind, n) for n in range(8) for kind in (synchronous, asynchronous)]
        places = set[tuple[int, int]]().union(*(call.result(PATIENCE) for call in calls))
    assert len(places) == 1
    assert threading.get_ident() not in {thread for thread, _ in places}


def test_the_first_calls_of_many_threads_start_one_thread(bridge: Bridge) -> None:
    start = threading.Barrier(8, timeout=PATIENCE)

    def call(_: int) -> tuple[int, int]:
        start.wait()
        return bridge.run(where())

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(call, range(8), timeout=PATIENCE))) == 1


def test_what_a_call_raises_reaches_its_caller(bridge: Bridge) -> None:
    async def fail() -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        bridge.run(fail())

    async def through_a_loop() -> None:
        with pytest.raises(KeyError, match="no such thing"):
            await bridge.arun(fail())

    asyncio.run(through_a_loop())
    assert bridge.run(where()), "it goes on after an error"


async def test_a_caller_that_leaves_takes_its_call_along(bridge: Bridge) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    call = asyncio.create_task(bridge.arun(endless()))
    assert await asyncio.to_thread(begun.wait, PATIENCE), "the call does not begin"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(ended.wait, PATIENCE), "the cancelled call goes on on the bridge"


def test_an_interrupt_ends_the_wait_and_the_call(bridge: Bridge) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def press() -> None:
        begun.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            bridge.run(endless())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended.wait(PATIENCE), "the interrupted call goes on on the bridge"


def test_a_signal_handler_may_call_in_the_middle_of_a_call(bridge: Bridge) -> None:
    calls = 0

    def handler(*_: object) -> None:
        nonlocal calls
        bridge.run(where())
        calls += 1

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for number in range(2_000):
            if number % 4 == 0:
                threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1)).start()
            bridge.run(where())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert calls > 0


# --- closing


def test_a_closed_bridge_starts_afresh(bridge: Bridge) -> None:
    first = bridge.run(where())
    bridge.close()
    assert not any(thread.ident == first[0] for thread in threading.enumerate())
    second = bridge.run(where())
    assert second[0] in {thread.ident for thread in threading.enumerate()}
    assert bridge.run(where()) == second


def test_closing_runs_the_last_call_on_the_bridges_own_loop() -> None:
    seen: list[tuple[int, int]] = []

    async def last() -> None:
        seen.append(await where())
        raise OSError("a store that cannot close must not keep the program")

    bridge = Bridge(lambda: None, last)
    here = bridge.run(where())
    bridge.close()
    assert seen == [here]


def test_closing_waits_for_the_calls_in_flight() -> None:
    begun = threading.Event()
    done: list[str] = []

    async def slow() -> str:
        begun.set()
        await asyncio.sleep(0.05)
        done.append("slow")
        return "slow"

    async def last() -> None:
        done.append("last")

    bridge = Bridge(lambda: None, last)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: bridge.run(slow()))
        assert begun.wait(PATIENCE)
        bridge.close()
        assert call.result(PATIENCE) == "slow"
    assert done == ["slow", "last"]


def test_calls_that_take_too_long_share_one_grace_and_end_for_their_callers(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges, "EXIT_GRACE", 0.2)
    many = 10
    begun = threading.Semaphore(0)

    async def endless() -> None:
        begun.release()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(many) as pool:
        calls = [pool.submit(lambda: bridge.run(endless())) for _ in range(many // 2)]
        calls += [pool.submit(lambda: asyncio.run(bridge.arun(endless()))) for _ in range(many // 2)]
        assert all(begun.acquire(timeout=PATIENCE) for _ in range(many)), "not all calls begin"
        before = time.monotonic()
        bridge.close()
        took = time.monotonic() - before
        for call in calls:
            with pytest.raises(StoreAway, match="closed before this call could end"):
                call.result(PATIENCE)
    assert took < 0.2 * many, "each call had a grace of its own"


def test_a_store_that_does_not_close_is_cut_in_time_and_leaves_no_task_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridges, "EXIT_GRACE", 0.2)
    said: list[str] = []

    async def stays(what: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            said.append(what)

    async def called() -> asyncio.Task[None]:
        return asyncio.create_task(stays("a task of a call"))

    it = Bridge(lambda: None, lambda: stays("the close"))
    before = set(threading.enumerate())
    left = it.run(called())
    it.close()
    assert said == ["the close", "a task of a call"]
    assert left.cancelled()
    assert set(threading.enumerate()) <= before


def test_threads_that_enqueue_while_the_app_is_closed_again_and_again_all_get_their_answer(tmp_path: Path) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    app = Holdfast(f"sqlite:///{tmp_path}/jobs.db?durability=normal")

    @app.task(name="shop.send")
    def send(n: int) -> int:
        return n

    over, done = threading.Event(), threading.Semaphore(0)

    def enqueue(_: int) -> list[object]:
        made: list[object] = []
        while not over.is_set():
            made.append(send.enqueue(1).id)
            done.release()
        return made

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(enqueue, n) for n in range(8)]
        for _ in range(60):
            assert all(done.acquire(timeout=PATIENCE) for _ in range(40)), "nobody gets an answer any more"
            app.close()
        over.set()
        made = {id for call in calls for id in call.result(PATIENCE)}  # noqa: A001
    with app:
        assert {status.id for status in app.find(task="shop.send")} == made


# --- forks

FORK = """
    import os, sys, threading
    from holdfast import Holdfast

    jobs = Holdfast(sys.argv[1])

    @jobs.task(name="shop.send")
    def send(n: int) -> int:
        return n

    class Child:
        '''A forked process that runs `act` and tells in its exit code whether it could.'''
        def __init__(self, act):
            self.pid = os.fork()
            if not self.pid:
                try:
                    act()
                except BaseException as error:
                    os.write(2, repr(error).encode())
                    os._exit(1)
                os._exit(0)

        def join(self):
            pid, status = os.waitpid(self.pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0, status
"""


def forked(text: str, *arguments: str) -> str:
    done = subprocess.run(
        # From Python 3.12 on, a fork of a process with threads warns; to have them is the point here.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORK + text), *arguments],
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@needs_fork
def test_a_forked_child_works_afresh_and_the_parent_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    program = """
    before = send.enqueue(1)
    def act():
        assert send.enqueue(2).status().state == "queued"
        assert before.status().state == "queued"
    children = [Child(act), Child(act)]
    after = send.enqueue(3)
    for child in children:
        child.join()
    assert before.status().state == after.status().state == "queued"
    jobs.close()
    print(sorted(len(list(jobs.find(task=name))) for name in ("shop.send",)))
    """
    assert forked(program, f"sqlite:///{tmp_path}/jobs.db").strip() == "[4]"


@needs_fork
def test_a_fork_amid_calls_of_other_threads_hangs_nobody(tmp_path: Path) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    program = """
    import signal
    stop, made = threading.Event(), [send.enqueue(0)]
    def enqueue():
        while not stop.is_set():
            made.append(send.enqueue(1))
    threads = [threading.Thread(target=enqueue, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    def act():
        signal.alarm(10)  # ends a child that hangs
        send.enqueue(2)
    while len(made) < 100:
        pass
    for _ in range(4):
        Child(act).join()
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    found = len(list(jobs.find(task="shop.send")))
    assert found == len(made) + 4, (found, len(made))
    print("ok")
    """
    assert forked(program, f"sqlite:///{tmp_path}/jobs.db?durability=normal").strip() == "ok"


@needs_fork
def test_what_a_forked_child_enqueues_outlives_the_parents_store(tmp_path: Path) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    program = """
    send.enqueue(1)
    ready, go = os.pipe(), os.pipe()
    def act():
        send.enqueue(2)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        for n in range(3):
            send.enqueue(3 + n)
    child = Child(act)
    os.read(ready[0], 1)
    jobs.close()  # the last one to leave a database folds its log away: this process is not the last one
    os.write(go[1], b"x")
    child.join()
    print(len(list(jobs.find(task="shop.send"))))
    """
    assert forked(program, f"sqlite:///{tmp_path}/jobs.db").strip() == "5", "acknowledged jobs are lost"


@needs_fork
def test_an_unused_app_may_be_forked() -> None:
    program = """
    def act():
        assert send.enqueue(2).status().state == "queued"
    Child(act).join()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("holdfast")]
    print("ok")
    """
    assert forked(program, "memory://").strip() == "ok"


@needs_fork
def test_a_forked_child_drops_what_lived_on_the_parents_loop_but_closes_nothing() -> None:
    program = """
    from holdfast.bridge import Bridge
    closed, forgotten = [], []
    class Connection:
        def __del__(self):
            closed.append(os.getpid())
    it = {"connection": Connection()}
    def forget():
        forgotten.append(1)
        return it.pop("connection")
    async def nothing():
        pass
    bridge = Bridge(forget, nothing)
    async def ident():
        return threading.get_ident()
    bridge.run(ident())
    def act():
        assert forgotten == [1]
        import gc
        gc.collect()
        assert closed == []
        assert bridge.run(ident())
    Child(act).join()
    assert forgotten == [] and "connection" in it
    assert bridge.run(ident())
    print("ok")
    """
    assert forked(program, "memory://").strip() == "ok"


# --- the end of the program


def test_a_program_that_ends_with_a_call_in_flight_ends(tmp_path: Path) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    done = program(
        """
        import sys, threading
        from holdfast import Holdfast

        jobs = Holdfast(sys.argv[1])

        @jobs.task(name="shop.send")
        def send(n: int) -> int:
            return n

        job = send.enqueue(1)
        threading.Thread(target=job.result, daemon=True).start()  # waits for ever: no worker
        threading.Thread(target=lambda: [send.enqueue(n) for n in range(100_000)], daemon=True).start()
        print("leaving")
        """,
        f"sqlite:///{tmp_path}/jobs.db",
    )
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


def test_what_was_enqueued_last_is_stored_though_nobody_closed(tmp_path: Path) -> None:
    pytest.importorskip("holdfast.stores.sqlite")
    url = f"sqlite:///{tmp_path}/jobs.db"
    enqueue = """
        import sys
        from holdfast import Holdfast

        jobs = Holdfast(sys.argv[1])

        @jobs.task(name="shop.send")
        def send(n: int) -> int:
            return n

        for n in range(50):
            send.enqueue(n)
        """
    done = program(enqueue, url)
    assert (done.returncode, done.stderr) == (0, "")
    count = program(
        "import sys; from holdfast import Holdfast; print(len(list(Holdfast(sys.argv[1]).find(queue='default'))))", url
    )
    assert count.stdout.strip() == "50", count.stderr


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_last_enqueue_of_a_program_that_ends_is_stored(tmp_path: Path, order: str) -> None:
    """`before`: the program's own last words come after the app has closed; `after`: before it, as a first use."""
    pytest.importorskip("holdfast.stores.sqlite")
    url = f"sqlite:///{tmp_path}/jobs.db"
    done = program(
        """
        import atexit, sys
        url, order = sys.argv[1:]
        if order == "before":
            atexit.register(lambda: send.enqueue(2))
        from holdfast import Holdfast

        jobs = Holdfast(url)

        @jobs.task(name="shop.send")
        def send(n: int) -> int:
            return n

        if order == "before":
            send.enqueue(1)
        else:
            atexit.register(lambda: [send.enqueue(1), send.enqueue(2)])
        """,
        url,
        order,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Holdfast(url) as jobs:
        assert len(list(jobs.find(task="shop.send"))) == 2


def test_an_app_that_nobody_holds_is_collected() -> None:
    done = program(
        """
        import gc, weakref
        from holdfast import Holdfast

        app = weakref.ref(Holdfast("memory://"))
        gc.collect()
        print(app() is None)
        """
    )
    assert (done.stdout.strip(), done.stderr) == ("True", "")


# --- without the thread


def test_a_coroutine_that_never_suspends_runs_here() -> None:
    async def inner() -> int:
        return threading.get_ident()

    async def outer() -> int:
        return await inner()

    assert run_here(outer()) == threading.get_ident()


def test_what_it_raises_is_raised_here() -> None:
    async def fail() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        run_here(fail())


def test_a_coroutine_that_suspends_is_refused_and_closed() -> None:
    left: list[str] = []

    async def suspends() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            left.append("closed")

    with pytest.raises(TypeError, match=r"aenqueue\(\)"):
        run_here(suspends())
    assert left == ["closed"]
