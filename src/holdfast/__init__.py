"""Holdfast: background jobs for Python, from one process to many machines."""

from typing import TYPE_CHECKING, Any

from holdfast.app import Holdfast
from holdfast.client.filters import Filter
from holdfast.client.schedules import ScheduleStatus, ScheduleTick
from holdfast.clock import Duration
from holdfast.context import CurrentJob, current_job
from holdfast.errors import (
    Cancel,
    ConfigError,
    HoldfastError,
    IdConflict,
    JobCancelled,
    JobFailed,
    JobNotFound,
    Permanent,
    QueueFull,
    Refused,
    ResourceError,
    ScheduleNotFound,
    Snooze,
    Stop,
    StoreError,
    UniqueConflict,
)
from holdfast.handles import Job, JobStatus, NewJob
from holdfast.job import JobError, State
from holdfast.options import EnqueueOptions, JobOptions, TaskOptions
from holdfast.policy import Retry
from holdfast.resource import Resource
from holdfast.task import AsyncTask, SyncTask, Task
from holdfast.unique import Unique
from holdfast.worker.embedded import Worker

if TYPE_CHECKING:
    from holdfast.pool import Pool, PoolJob, PoolOptions, PoolStats

__version__ = "0.1.0"

__all__ = [
    "AsyncTask",
    "Cancel",
    "ConfigError",
    "CurrentJob",
    "Duration",
    "EnqueueOptions",
    "Filter",
    "Holdfast",
    "HoldfastError",
    "IdConflict",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "JobOptions",
    "JobStatus",
    "NewJob",
    "Permanent",
    "Pool",
    "PoolJob",
    "PoolOptions",
    "PoolStats",
    "QueueFull",
    "Refused",
    "Resource",
    "ResourceError",
    "Retry",
    "ScheduleNotFound",
    "ScheduleStatus",
    "ScheduleTick",
    "Snooze",
    "State",
    "Stop",
    "StoreError",
    "SyncTask",
    "Task",
    "TaskOptions",
    "Unique",
    "UniqueConflict",
    "Worker",
    "current_job",
]


def __getattr__(name: str) -> Any:
    """The pool is imported when it is asked for: not every program has one."""
    if name not in {"Pool", "PoolJob", "PoolOptions", "PoolStats"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from holdfast import pool

    globals()[name] = value = getattr(pool, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
