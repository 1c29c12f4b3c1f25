"""Every store that the conformance suite runs on: a name, and how to make a fresh one. A new store is one line here."""

from collections.abc import Callable
from pathlib import Path

from holdfast.clock import Clock
from holdfast.store import Store
from holdfast.stores import open_store

BACKENDS: dict[str, Callable[[Path, Clock], Store]] = {
    "memory": lambda _, clock: open_store("memory://", clock),
    "sqlite": lambda place, clock: open_store(f"sqlite:///{place}/jobs.db?durability=normal", clock),
}
