"""Starlette and FastAPI: answers to what enqueues and handles raise, such as a full queue as 503.

`exception_handlers={QueueFull: queue_full, JobNotFound: job_not_found}`
"""

from __future__ import annotations

import math

from holdfast.errors import JobNotFound, QueueFull

try:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
except ImportError as error:
    raise ImportError("holdfast.integrations.starlette needs Starlette: pip install 'holdfast[starlette]'") from error


def queue_full(request: Request, error: Exception) -> Response:
    """503 Service Unavailable with `Retry-After` in whole seconds, and a JSON body that names the queue.

    For `add_exception_handler(QueueFull, queue_full)`; any other exception is raised again.
    """
    del request
    if not isinstance(error, QueueFull):
        raise error
    after = max(1, math.ceil(error.retry_after))
    body = {
        "error": "queue full",
        "queue": error.queue,
        "depth": error.depth,
        "bound": error.bound,
        "retry_after": after,
    }
    return JSONResponse(body, status_code=503, headers={"Retry-After": str(after)})


def job_not_found(request: Request, error: Exception) -> Response:
    """404 Not Found, with a JSON body.

    For `add_exception_handler(JobNotFound, job_not_found)`; any other exception is raised again.
    """
    del request
    if not isinstance(error, JobNotFound):
        raise error
    return JSONResponse({"error": "job not found"}, status_code=404)
