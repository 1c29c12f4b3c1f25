"""Holdfast: background jobs for Python, from one process to many machines."""

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
from holdfast.pool import Pool, PoolJob, PoolOptions, PoolStats
from holdfast.resource import Resource
from holdfast.task import AsyncTask, SyncTask, Task
from holdfast.unique import Unique
from holdfast.worker.embedded import Worker

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
