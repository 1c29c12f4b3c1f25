"""The board of one slot process: memory that its worker can read after its death, whatever became of its descriptors.

It says which attempt was begun, and which finished within a transaction of its own; it holds the last stacks as
faulthandler wrote them, and takes an answer where the channel is lost, as after a handler that closed every descriptor.
"""

from __future__ import annotations

import mmap
import os
import struct

from holdfast.worker.memory import nameless

STACK_MOST = 256 * 1024
_ANSWER_AT, _STACK_AT = 64, 4 * 1024 * 1024
_SIZE = _STACK_AT + STACK_MOST
_COUNT = struct.Struct("<q")
_BEGUN, _LENGTH, _FINISHED = 0, 8, 16


class Board:
    """One mapping of it; the descriptor belongs to whoever made the board or was handed it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _SIZE)

    @classmethod
    def made(cls) -> Board:
        """A new one, in memory that no file name leads to; what is never written takes no room."""
        descriptor = nameless("holdfast-board", _SIZE)
        try:
            os.lseek(descriptor, _STACK_AT, os.SEEK_SET)  # where faulthandler will write, in the slot
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    # --- written by the slot

    def begin(self, number: int) -> None:
        """The attempt with this number, counted from 1, is about to run."""
        _COUNT.pack_into(self._memory, _BEGUN, number)

    def finish(self, number: int) -> None:
        """The success of the attempt with this number is part of a transaction of its handler's."""
        _COUNT.pack_into(self._memory, _FINISHED, number)

    def leave(self, answer: bytes) -> None:
        """For the worker to find when the slot is gone."""
        self._memory[_ANSWER_AT : _ANSWER_AT + len(answer)] = answer
        _COUNT.pack_into(self._memory, _LENGTH, len(answer))

    # --- read by its worker

    @property
    def last_begun(self) -> int:
        """The number of the last attempt that was begun; 0 if none was."""
        number: int = _COUNT.unpack_from(self._memory, _BEGUN)[0]
        return number

    @property
    def last_finished(self) -> int:
        """The number of the last attempt that finished within a transaction; 0 if none did."""
        number: int = _COUNT.unpack_from(self._memory, _FINISHED)[0]
        return number

    @property
    def answer(self) -> bytes:
        """What the slot left; empty if it left nothing."""
        length: int = _COUNT.unpack_from(self._memory, _LENGTH)[0]
        return self._memory[_ANSWER_AT : _ANSWER_AT + length]

    @property
    def stack(self) -> str:
        """What faulthandler wrote."""
        return self._memory[_STACK_AT:].rstrip(b"\0").decode(errors="replace")

    def close(self) -> None:
        """For the worker, when the slot is buried."""
        self._memory.close()
        os.close(self.descriptor)
