"""Holdfast: background jobs for Python, from one process to many machines."""

from holdfast.app import Filter, Holdfast
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
    Snooze,
    Stop,
    StoreError,
)
from holdfast.job import JobError, State
from holdfast.policy import Retry
from holdfast.task import (
    AsyncTask,
    EnqueueOptions,
    Job,
    JobOptions,
    JobStatus,
    NewJob,
    SyncTask,
    Task,
    TaskOptions,
)
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
    "Retry",
    "Snooze",
    "State",
    "Stop",
    "StoreError",
    "SyncTask",
    "Task",
    "TaskOptions",
    "Worker",
    "current_job",
]
