"""The job on an application's own log lines: a filter for its handlers, wherever workers run in its processes."""

from __future__ import annotations

import logging

from holdfast.context import writing


class WithJob(logging.Filter):
    """Gives each record `job`, `task` and `attempt`, which formats may name: `%(job)s`. Outside of a job they are "".

    `handler.addFilter(WithJob())`, or in a dictConfig `{"()": "holdfast.integrations.logs.WithJob"}`. It belongs on
    handlers: a logger's filters do not see what its children log. Nothing is filtered out.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        job = writing()
        record.job = "" if job is None else str(job.id)
        record.task = "" if job is None else job.task
        record.attempt = "" if job is None else job.attempt
        return True
