"""Apps that are used before and after a fork, and programs that end in the middle of an enqueue."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from holdfast import Holdfast
from holdfast.app import parts_of
from holdfast.store import Where
from tests.flows import forking
from tests.flows.conftest import Ledger, Service, until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

WORKERS = 4


class Server:
    """gunicorn, which loads the application before it forks its workers."""

    def __init__(self, url: str, folder: Path) -> None:
        self.log = folder / "gunicorn.log"
        self.acknowledged = folder / "acknowledged"
        options = ["--preload", "--workers", str(WORKERS), "--worker-class", "gthread", "--threads", "2"]
        place = ["--bind", "127.0.0.1:0", "--no-control-socket", "--worker-tmp-dir", str(folder)]
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", *options, *place]
        environment = {**os.environ, "HOLDFAST_URL": url, "ACKNOWLEDGED": str(self.acknowledged)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "tests.flows.preloaded:application"], stderr=log, stdout=log, env=environment
            )

    def text(self) -> str:
        return self.log.read_text()

    def port(self) -> int:
        found = until(lambda: re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", self.text()), "the server's port")
        return int(found[1])

    def booted(self) -> list[int]:
        """The pids of all workers that it has forked so far."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.text())]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(40)


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("gunicorn")
    it = Server(url, tmp_path)
    yield it
    if it.process.poll() is None:
        for pid in it.booted():
            _kill(pid, it.process.pid)
        it.process.kill()
        it.process.wait(10)


def _kill(pid: int, parent: int) -> None:
    """A worker of the server's, unless it has left."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists() and int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
        os.kill(pid, signal.SIGKILL)


class Load:
    """Clients that send request after request, each with a number of its own."""

    def __init__(self, port: int) -> None:
        self.acknowledged: dict[int, UUID] = {}
        self.unclear: set[int] = set()  # the connection broke: nobody said what became of it
        self.pids = Counter[int]()
        self._port = port
        self._numbers = count()
        self._over = threading.Event()

    def client(self) -> None:
        while not self._over.is_set():
            self._request(next(self._numbers))

    def _request(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", f"/?{number}")
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, f"request {number} was answered {response.status}: {body}"
        except (OSError, http.client.HTTPException):
            self.unclear.add(number)
            return
        finally:
            connection.close()
        job, pid = body.split()
        self.acknowledged[number] = UUID(job)
        self.pids[int(pid)] += 1

    def goes_on(self, requests: int, what: str) -> None:
        """Waits until so many more were acknowledged."""
        goal = len(self.acknowledged) + requests
        until(lambda: len(self.acknowledged) >= goal, what)

    def stop(self) -> None:
        self._over.set()


@pytest.mark.timeout(120)
def test_a_preloading_server_under_load_loses_and_doubles_nothing(url: str, server: Server) -> None:
    until(lambda: len(server.booted()) == WORKERS, "the server's workers")
    load = Load(server.port())
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            clients = [pool.submit(load.client) for _ in range(WORKERS)]
            load.goes_on(200, "answers")
            server.process.send_signal(signal.SIGHUP)  # forks new workers under load, and lets the old ones end
            until(lambda: len(server.booted()) == 2 * WORKERS, "the reloaded server's workers")
            fresh = server.booted()[WORKERS:]
            until(lambda: load.pids.keys() & set(fresh), "an answer of a new worker")
            victim = max(fresh, key=lambda pid: load.pids[pid])
            os.kill(victim, signal.SIGKILL)
            until(lambda: len(server.booted()) == 2 * WORKERS + 1, "the dead worker's successor")
            load.goes_on(200, "answers after all this")
        finally:
            load.stop()
        for client in clients:
            client.result(60)
    server.stop()

    stored = numbers_of_jobs(url)
    of_the_server = [job for job, number in stored.items() if number == -1]
    of_requests = {number: job for job, number in stored.items() if number != -1}
    assert len(of_requests) + len(of_the_server) == len(stored), "no request's job is there twice"
    assert of_requests.items() >= load.acknowledged.items(), "acknowledged, and stored under just this id"
    assert of_requests.keys() - load.acknowledged.keys() <= load.unclear, "nothing is stored that nobody asked for"
    told = [UUID(line) for line in server.acknowledged.read_text().splitlines()]
    assert set(told) <= set(of_the_server)
    assert len(set(told)) == len(told) >= len(of_the_server) - 1, "its last enqueue may be cut by its end"
    assert len(load.pids) > WORKERS, "the load met workers of before and after the reload"


def numbers_of_jobs(url: str) -> dict[UUID, int]:
    """The stored jobs of the task `order`, and the number that each was enqueued with."""
    with Holdfast(url) as app:
        records = parts_of(app).operating.records(Where(task="order"))
        return {record.id: json.loads(record.payload)["args"][0] for record in records}


# --- forks of the application's own

PROGRAM = """
    import atexit, multiprocessing, os, signal, sys, threading, time
    from holdfast import Holdfast

    jobs = Holdfast(sys.argv[1])

    @jobs.task(name="order")
    def order(number: int) -> int:
        return number
"""


def program(text: str, url: str) -> str:
    """Runs a small program to its end, which comes within a bounded time; returns what it printed."""
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning"]  # Python 3.12 warns of forks beside threads
    done = subprocess.run(
        [sys.executable, *warnings, "-c", textwrap.dedent(PROGRAM) + textwrap.dedent(text), url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.timeout(120)
def test_processes_of_multiprocessing_that_fork_amid_calls_lose_and_double_nothing(url: str) -> None:
    printed = program(
        """
        def many(number):
            return [str(order.enqueue(number).id) for _ in range(25)]

        if __name__ == "__main__":
            over, mine = threading.Event(), [str(order.enqueue(0).id)]

            def enqueue():
                while not over.is_set():
                    mine.append(str(order.enqueue(0).id))

            threads = [threading.Thread(target=enqueue) for _ in range(3)]
            for thread in threads:
                thread.start()
            theirs = []
            for _ in range(3):
                with multiprocessing.get_context("fork").Pool(4) as pool:
                    for ids in pool.map(many, range(1, 9), chunksize=1):
                        theirs += ids
            over.set()
            for thread in threads:
                thread.join()
            print(*mine, *theirs)
        """,
        url,
    )
    told = [UUID(job) for job in printed.split()]
    assert len(told) > 3 * 8 * 25
    assert len(set(told)) == len(told), "ids are unique across processes"
    assert numbers_of_jobs(url).keys() == set(told)


@pytest.mark.timeout(120)
def test_a_forked_childs_child_and_its_exit_hooks_enqueue_too(url: str) -> None:
    program(
        """
        order.enqueue(0)
        atexit.register(lambda: order.enqueue(10 + generation))
        generation = 0
        for _ in range(2):
            if child := os.fork():
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                break
            generation += 1
            order.enqueue(generation)
        """,
        url,
    )
    assert sorted(numbers_of_jobs(url).values()) == [0, 1, 2, 10, 11, 12]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("leaves", ["sys.exit()", "os._exit(0)"])
def test_a_child_that_is_forked_beside_an_embedded_worker_enqueues_and_ends(url: str, leaves: str) -> None:
    program(
        f"""
        with jobs.worker():
            child = os.fork()
            if not child:
                signal.alarm(40)  # ends a child that hangs
                order.enqueue(1)
                {leaves}  # past the end of the block, and the hooks of the interpreter's end
            assert order.enqueue(2).result(timeout=30) == 2, "the parent's worker goes on"
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert sorted(status.job.result(timeout=30) for status in jobs.find()) == [1, 2], "it runs the child's too"
        """,
        url,
    )
    assert sorted(numbers_of_jobs(url).values()) == [1, 2]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("task", ["forks_in_thread", "forks_on_loop"])
def test_a_handler_that_forks_loses_and_doubles_nothing(
    task: str, using: Callable[[Holdfast], Holdfast], ledger: Ledger, serve: Callable[..., Service]
) -> None:
    app = using(forking.jobs)
    service = serve(app="tests.flows.forking:jobs")
    job = getattr(forking, task).enqueue(10)
    told: list[str] = job.result(timeout=60)
    assert len(set(told)) == len(told) == 20
    assert {str(status.id) for status in app.find(task="leaf")} == set(told)
    until(lambda: all(status.state == "succeeded" for status in app.find()), "the end of all that was enqueued")
    assert job.status().attempt == 1
    assert service.stop() == 0
    assert "event=restart" not in service.text()
    assert ledger.count("effect") == 20


# --- the end of the program in the middle of an enqueue

# A store that does not answer: the enqueue is done or not, and its caller never hears of it.
SILENT = """
    import asyncio
    from holdfast.client import link
    from holdfast.stores import open_store

    class Silent:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        async def enqueue(self, drafts, connection=None):
            receipts = await self._inner.enqueue(drafts, connection)
            reached.set()
            await asyncio.Event().wait()

    reached = threading.Event()
    atexit.register(lambda: thread and thread.join(30))  # after the app has closed: hooks run in reverse
    thread = None
    silent = Holdfast(sys.argv[1])
    link.open_store = lambda url, clock: Silent(open_store(url, clock))

    @silent.task(name="order")
    def late(number: int) -> int:
        return number

    def attempt(number):
        bound = late.bind(number)
        try:
            silent.enqueue_many([bound])
        except BaseException as error:
            print(bound.id, type(error).__name__, *getattr(error, "__notes__", ["says nothing"]), sep="|", flush=True)
"""


def _says(printed: str, error: str, url: str) -> None:
    """The program's output names the job that may have been stored, and it is there indeed."""
    job, name, note = printed.split("|")
    assert name == error
    assert f"may have been or not: {job}" in note
    with Holdfast(url) as app:
        assert app.job(job).status().state == "queued"


@pytest.mark.timeout(120)
def test_a_thread_that_the_programs_end_meets_in_an_enqueue_is_told_what_may_have_become_of_it(url: str) -> None:
    printed = program(
        textwrap.dedent(SILENT)
        + textwrap.dedent(
            """
            thread = threading.Thread(target=attempt, args=(1,), daemon=True)
            thread.start()
            assert reached.wait(30)
            """
        ),
        url,
    )
    _says(printed, "StoreAway", url)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt", "TimeoutError"])
def test_an_enqueue_that_a_signals_handler_leaves_says_what_may_have_become_of_it(url: str, error: str) -> None:
    printed = program(
        textwrap.dedent(SILENT)
        + textwrap.dedent(
            f"""
            def leave(*_):
                raise {error}

            def press():
                assert reached.wait(30)
                os.kill(os.getpid(), signal.SIGUSR1)

            signal.signal(signal.SIGUSR1, leave)
            threading.Thread(target=press).start()
            attempt(1)
            """
        ),
        url,
    )
    _says(printed, error, url)


@pytest.mark.timeout(120)
def test_a_thread_that_outlives_the_main_thread_enqueues_to_its_end(url: str) -> None:
    program(
        """
        def enqueue():
            threading.main_thread().join()
            for number in range(20):
                order.enqueue(number)

        threading.Thread(target=enqueue).start()
        threading.Thread(target=sys.exit, args=(3,)).start()  # ends that thread and nothing else
        """,
        url,
    )
    assert sorted(numbers_of_jobs(url).values()) == list(range(20))
