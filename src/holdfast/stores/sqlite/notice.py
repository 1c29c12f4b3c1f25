"""Hears of writes to a file from the kernel (Linux's inotify), whichever process makes them. Nothing is opened."""

from __future__ import annotations

import os

_IN_MODIFY = 0x2


def noticing(path: str) -> int | None:
    """A descriptor that becomes readable when the file at `path` is written to; None where there is no such thing.

    The file must exist. Writes through a memory map are not seen.
    """
    try:
        import ctypes  # some systems have none

        libc = ctypes.CDLL(None, use_errno=True)
    except (ImportError, OSError, TypeError):  # TypeError: Windows has no library without a name
        return None
    if not hasattr(libc, "inotify_init1"):
        return None
    descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None  # the user has no more of them
    if libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY) < 0:
        os.close(descriptor)
        return None
    return descriptor


def heard(descriptor: int) -> None:
    """Takes what has been noticed so far, so that the descriptor is readable again only at the next write."""
    try:
        while os.read(descriptor, 65536):
            pass
    except BlockingIOError:
        pass
