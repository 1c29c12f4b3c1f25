"""Memory without a name, which processes share by its descriptor, and which outlives each of them."""

from __future__ import annotations

import fcntl
import os


def nameless(name: str, size: int, *, fixed: bool = True) -> int:
    """A descriptor of `size` bytes of such memory, `name` for those who look. What is never written takes no room.

    `fixed`: on Linux nobody can make it shorter or longer any more. A process that has memory mapped which another then
    cuts off would die of the next look at it (SIGBUS).
    """
    if not hasattr(os, "memfd_create"):  # macOS
        import tempfile

        with tempfile.TemporaryFile() as file:
            os.ftruncate(file.fileno(), size)
            return os.dup(file.fileno())
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if fixed:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
