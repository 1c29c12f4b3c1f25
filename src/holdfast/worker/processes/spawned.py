"""One slot process as its worker sees it: spawned by exec, heard, asked to stop, killed with its group, buried.

A thread of its own spawns it and waits for its death: the system ends such a child when that very thread ends, so the
thread has to live as long (PR_SET_PDEATHSIG), and the worker's loop waits for nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from holdfast.codec import from_json
from holdfast.context import note_end
from holdfast.errors import StoreAway
from holdfast.job import Failure, Note, Verdict
from holdfast.observe.logging import workers
from holdfast.worker.blackbox import BlackBox
from holdfast.worker.channel import Channel
from holdfast.worker.deaths import (
    GROUP_GONE,
    PEAK_UNIT,
    await_death,
    await_gone,
    await_group,
    end_family,
    ending,
    kill_group,
    reaped,
)
from holdfast.worker.notes import Notes
from holdfast.worker.processes.board import Board
from holdfast.worker.processes.launch import Launch
from holdfast.worker.processes.words import note_from, verdict_from
from holdfast.worker.runner import Run
from holdfast.worker.stacks import SIGNAL

LAST_WORDS = 1.0  # seconds after its death in which what it sent is still read
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from holdfast.cli.slot import main; sys.exit(main(*map(int, sys.argv[2:])))"
)


class Reply(NamedTuple):
    """What a slot says when a handler has ended. `left`: it left processes or threads behind. `memory` in bytes.
    `finished`: its success is part of a transaction of its own.
    """

    verdict: Verdict | None
    left: bool
    memory: int
    finished: bool


class Death(NamedTuple):
    """How a slot process ended. `cause` is for people; `begun`, `finished`: the numbers of the last attempts that it
    began, and that finished within a transaction of their own.
    """

    cause: str
    begun: int
    finished: int
    stack: str
    answer: bytes


class Unready(NamedTuple):
    """Why a slot process never got ready. `failure` is None if there was no process or no thread to be had."""

    reason: str
    failure: Failure | None = None


class Spawned:
    """A slot process. Raises RuntimeError if there is no thread for it; all else shows in `ready` and `gone`."""

    def __init__(self, launch: Launch, box: BlackBox, notes: Notes) -> None:
        self.jobs = 0
        self.group = 0
        self.leaving = False
        self.timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Unready | None] = self._loop.create_future()
        self.gone: asyncio.Future[Death] = self._loop.create_future()
        self._answer: asyncio.Future[Reply] = self._loop.create_future()
        self._launch = launch
        self._box = box
        self._notes = notes
        self._saving: set[asyncio.Task[None]] = set()
        self._run: Run | None = None
        self._channel: Channel | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._nonsense = ""
        self._inherited = 0  # the most memory that it seems to have held before it loaded anything
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None  # while it is killed by its number: not after its burial
        self._doomed = False
        self._strays: set[int] = set()  # killed with it, though they had left its group
        threading.Thread(target=self._live, name="holdfast-slot", daemon=True).start()

    # --- what its worker asks of it

    def ask(self, run: Run) -> asyncio.Future[Reply]:
        """Has it run an attempt; the answer comes when the handler has ended."""
        self._run, self._answer = run, self._loop.create_future()
        self.jobs += 1
        module = self._launch.module_of(run.task)
        self._send("run", number=self.jobs, claim=run.claim._replace(loss=None), module=module, ends=run.ends)
        return self._answer

    def stop(self, why: str) -> None:
        """Asks the handler to end."""
        self._send("stop", why=why)

    def leave(self, grace: float) -> None:
        """Lets it end by itself, and kills it if it has not within `grace` seconds."""
        self.leaving = True
        self._send("leave")
        self._loop.call_later(grace, self.kill)

    def dump(self) -> None:
        """Has it write down where its code is."""
        with self._lock, suppress(OSError):
            if self._process is not None:
                os.kill(self._process.pid, SIGNAL)

    def kill(self) -> None:
        """Kills it and all that it started; does nothing more once it is buried."""
        self.leaving = True
        with self._lock:
            self._doomed = True
            if self._process is not None:
                self._strays |= end_family(self._process.pid)

    def _send(self, word: str, **values: Any) -> None:
        if self._channel is not None:
            self._channel.send(word, **values)

    # --- its life, in its thread

    def _live(self) -> None:
        try:
            board = Board.made()
            try:
                process, ours = self._spawn(board)
            except BaseException:
                board.close()
                raise
        except Exception as error:  # noqa: BLE001  # no processes, no memory, no descriptors: that passes
            self._on_loop(self._unborn, f"{type(error).__name__}: {error}")
            return
        try:
            self._introduce(process, ours)
            await_death(process)
            death = self._bury(process, board)
        except Exception as error:  # noqa: BLE001  # a bug; but who waits for its end must not wait for ever
            death = self._unburied(process, board, error)
        if self._run is not None:
            note_end(self._run.job)
        self._on_loop(self._died, death)

    def _spawn(self, board: Board) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        descriptors = (theirs.fileno(), board.descriptor, self._box.descriptor)
        command = [
            *self._launch.python,
            "-P",
            "-c",
            _START,
            json.dumps(list(self._launch.path)),
            *map(str, descriptors),
        ]
        with theirs:
            try:
                process = subprocess.Popen(
                    [*command, str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    cwd=self._launch.cwd,
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        return process, ours

    def _introduce(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        with self._lock:
            self._process = process
        if self._doomed or not self._on_loop(self._born, process.pid, ours):
            ours.close()
            self.kill()

    def _bury(self, process: subprocess.Popen[bytes], board: Board) -> Death:
        """Its leader is dead: ends and awaits the rest of its group, and takes down what can be known."""
        kill_group(process.pid)
        with self._lock:
            self._process = None
            code, peak = reaped(process)
        await_group(process.pid)
        await_gone(self._strays)
        death = Death(f"its process (pid {process.pid}) ended: {ending(code)}{self._memory(peak)}", *_left_on(board))
        board.close()
        return death

    def _unburied(self, process: subprocess.Popen[bytes], board: Board, error: Exception) -> Death:
        """Its end cannot be confirmed: whatever is left of it is killed, and it counts as gone."""
        workers.error("a bug in burying pid %s; please report it", process.pid, exc_info=error)
        evidence = 0, 0, "", b""
        with suppress(Exception):
            self.kill()
            with self._lock:
                self._process = None
            process.wait(GROUP_GONE)
        with suppress(Exception):
            evidence = _left_on(board)
            board.close()
        text = f"its process (pid {process.pid}) was killed, but its end could not be confirmed: {error!r}"
        return Death(text, *evidence)

    def _memory(self, peak: int) -> str:
        """A process inherits the peak of the one that spawned it, so a small one of its own cannot be told."""
        if not peak or not self._inherited:
            return ""
        bound = "" if peak > self._inherited else "at most "
        return f"; it held {bound}{max(1, peak // 2**20)} MiB of memory"

    def _on_loop(self, call: Callable[..., object], *args: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return False
        return True

    # --- what comes of it, on the loop

    def _unborn(self, reason: str) -> None:
        self._became(Unready(reason))
        self.gone.set_result(Death(reason, 0, 0, "", b""))

    def _born(self, group: int, ours: socket.socket) -> None:
        self.group = group
        self._hearing = self._loop.create_task(self._hear(ours))

    def _died(self, death: Death) -> None:
        self._settling = self._loop.create_task(self._settle(death))

    async def _settle(self, death: Death) -> None:
        try:
            await self._last_words(death)
        except Exception as error:  # noqa: BLE001
            workers.error("a bug in hearing what pid %s said last; please report it", self.group, exc_info=error)
            self._nonsense = self._nonsense or f"{death.cause}; what it said last could not be read: {error!r}"
        finally:  # even if the loop is ending: whoever waits for its end waits for this alone
            reason = self._nonsense or death.cause
            text = f"before it had loaded {self._launch.app}; what it wrote to stderr is where the worker's goes"
            self._became(Unready(reason, Failure("StartFailed", f"{reason} {text}", death.stack)))
            self.gone.set_result(death._replace(cause=reason))

    async def _last_words(self, death: Death) -> None:
        if self._hearing is not None:
            await asyncio.wait({self._hearing}, timeout=LAST_WORDS)
            self._hearing.cancel()
        if self._channel is not None:
            self._channel.close()
        if death.answer and not self._answer.done():
            with suppress(Exception):
                self._heard(from_json(death.answer))

    def _became(self, ready: Unready | None) -> None:
        if not self.ready.done():
            self.ready.set_result(ready)

    async def _hear(self, ours: socket.socket) -> None:
        try:
            self._channel = await Channel.over(ours)
            self._load()
            while (message := await self._channel.receive()) is not None:
                self._heard(message)
        except Exception as error:  # noqa: BLE001  # a handler that wrote into whatever descriptor it found
            self._nonsense = f"its process wrote nonsense to its worker and was ended: {error!r}"
            self.kill()

    def _load(self) -> None:
        launch = self._launch
        self._send(
            "load",
            app=launch.app,
            main=launch.main,
            file=launch.file,
            argv=launch.argv,
            url=launch.url,
            style=launch.style,
            level=launch.level,
        )

    def _heard(self, message: dict[str, Any]) -> None:
        match message["word"]:
            case "ready":
                self._inherited = message["peak"] * PEAK_UNIT
                self._became(None)
            case "failed":
                failure = Failure(*message["failure"])
                self._became(Unready(failure.message, failure))
            case "note":
                self._noted(message["number"], message["note"])
            case "save":
                self._save(message["number"], message["key"], message["note"])
            case "verdict":
                self._noted(self.jobs, message["note"])
                verdict, finished = verdict_from(message), message["finished"]
                self._answer.set_result(Reply(verdict, message["left"], message["memory"], finished))
            case word:
                raise ValueError(f"no word: {word!r}")

    # --- what its handler says of its job

    def _noted(self, number: int, words: list[Any] | None) -> None:
        if words is not None and number == self.jobs and self._run is not None:
            self._notes.add(note_from(words, self._run.claim))

    def _save(self, number: int, key: int, words: list[Any]) -> None:
        if self._run is None or number != self.jobs:  # of an attempt that has ended
            self._send("saved", key=key, held=False, error="", away=False)
            return
        saving = self._loop.create_task(self._saved(key, note_from(words, self._run.claim)))
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)

    async def _saved(self, key: int, note: Note) -> None:
        held, error, away = True, "", False
        try:
            held = await self._notes.asave(note)
        except Exception as refusal:  # noqa: BLE001  # whatever it is, the handler waits for an answer
            error, away = str(refusal) or type(refusal).__name__, isinstance(refusal, StoreAway)
        self._send("saved", key=key, held=held, error=error, away=away)


def _left_on(board: Board) -> tuple[int, int, str, bytes]:
    return board.last_begun, board.last_finished, board.stack, board.answer
