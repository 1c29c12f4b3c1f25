"""The store in dicts of this process; nothing here survives it."""

from holdfast.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
