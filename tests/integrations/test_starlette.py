"""A full queue behind a Starlette application: the caller is told when to come back, and is served when he does."""

import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast import Holdfast, JobNotFound, QueueFull, UniqueConflict
from holdfast.integrations.starlette import job_not_found, queue_full


def shop(jobs: Holdfast) -> Starlette:
    """Takes orders into a queue of two places."""
    jobs.queue("mail", max_size=2)

    @jobs.task(name="shop.send", queue="mail")
    async def send(order: int) -> None: ...

    async def order(request: Request) -> JSONResponse:
        job = await send.aenqueue(int(request.path_params["order"]))
        return JSONResponse({"job": str(job.id)}, status_code=202)

    async def state(request: Request) -> JSONResponse:
        return JSONResponse({"state": (await jobs.job(request.path_params["job"]).astatus()).state})

    return Starlette(
        routes=[Route("/orders/{order:int}", order, methods=["POST"]), Route("/orders/{job}", state)],
        exception_handlers={QueueFull: queue_full, JobNotFound: job_not_found},
    )


async def test_a_full_queue_is_answered_with_503_and_when_to_come_back() -> None:
    jobs = Holdfast("memory://")
    async with jobs, httpx.AsyncClient(transport=httpx.ASGITransport(shop(jobs)), base_url="http://shop") as client:
        taken = [await client.post(f"/orders/{n}") for n in range(2)]
        assert [answer.status_code for answer in taken] == [202, 202]
        full = await client.post("/orders/3")
        assert full.status_code == 503
        assert full.headers["retry-after"] == "1"
        assert full.json() == {"error": "queue full", "queue": "mail", "depth": 2, "bound": 2, "retry_after": 1}
        await jobs.job(taken[0].json()["job"]).acancel()
        assert (await client.post("/orders/3")).status_code == 202


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (59.5, "60")])
def test_the_header_is_in_whole_seconds_and_never_too_early(seconds: float, header: str) -> None:
    answer = queue_full(Request({"type": "http"}), QueueFull("full", "mail", 2, 2, seconds))
    assert answer.headers["retry-after"] == header


@pytest.mark.parametrize("id", ["abc", "0197a1b2-0000-7000-8000-000000000000"])
async def test_an_id_of_no_job_is_answered_with_404(id: str) -> None:
    jobs = Holdfast("memory://")
    async with jobs, httpx.AsyncClient(transport=httpx.ASGITransport(shop(jobs)), base_url="http://shop") as client:
        answer = await client.get(f"/orders/{id}")
    assert answer.status_code == 404
    assert answer.json() == {"error": "job not found"}


@pytest.mark.parametrize("answer", [queue_full, job_not_found])
def test_another_exception_is_not_answered_for(answer: Callable[[Request, Exception], Response]) -> None:
    other = ValueError("not ours")
    with pytest.raises(ValueError, match="not ours") as raised:
        answer(Request({"type": "http"}), other)
    assert raised.value is other
    assert not issubclass(UniqueConflict, QueueFull), "a clash of keys is no reason to come back later"


def test_without_starlette_the_import_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "sys.modules['starlette'] = sys.modules['starlette.requests'] = None\n"
        "try:\n"
        "    import holdfast.integrations.starlette\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "holdfast.integrations.starlette needs Starlette: pip install 'holdfast[starlette]'"
