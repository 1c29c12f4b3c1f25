"""Memory without a name, which processes share by its descriptor, and which outlives each of them."""

from __future__ import annotations

import fcntl
import os
import tempfile


def nameless(name: str, size: int) -> int:
    """A descriptor of `size` bytes of such memory, `name` for those who look. What is never written takes no room.

    On Linux nobody can make it shorter any more: a process that has it mapped would die of the next look (SIGBUS).
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor
    with tempfile.TemporaryFile() as file:  # macOS
        os.ftruncate(file.fileno(), size)
        return os.dup(file.fileno())
