"""The handle of a job: seven names, equal to its like, and an error that does not grow."""

import gc
from datetime import timedelta

import pytest

from holdfast import Pool, PoolJob, State
from tests.pool.rig import PATIENCE, held


def double(number: int) -> int:
    return 2 * number


def test_it_shows_what_the_interface_says_and_no_more() -> None:
    with Pool(1) as pool:
        job = pool.submit(double, 4)
        shown = {name for name in dir(job) if not name.startswith("_")}
    assert shown == {"id", "args", "state", "result", "aresult", "exception", "cancel"}
    with pytest.raises(AttributeError):
        job.value = 3  # type: ignore[attr-defined]


def test_handles_of_one_job_are_equal() -> None:
    with Pool(1) as pool:
        gate, (running,) = held(pool)
        waiting = [pool.submit(double, number) for number in range(3)]
        names: dict[PoolJob[int], int] = {job: job.args[0] for job in waiting}
        dropped = pool.stop(drain=False)
        gate.open()
    assert [names[job] for job in dropped] == [0, 1, 2]
    assert dropped == waiting
    assert running not in dropped
    assert running != "a job"
    assert running.state == State.SUCCEEDED


@pytest.mark.parametrize(
    ("timeout", "text"), [("20ms", "20 ms"), (0.02, "20 ms"), (timedelta(milliseconds=20), "20 ms")]
)
def test_the_time_that_it_did_not_end_in_is_told_as_time(timeout: object, text: str) -> None:
    with Pool(1) as pool:
        gate, (job,) = held(pool)
        for ask in (job.result, job.exception):
            with pytest.raises(TimeoutError, match=f"<PoolJob .*Gate running> has not ended within {text}$"):
                ask(timeout)  # type: ignore[arg-type]
        gate.open()


def test_to_ask_again_does_not_lengthen_the_error() -> None:
    def length(error: BaseException) -> int:
        count, trace = 0, error.__traceback__
        while trace is not None:
            count, trace = count + 1, trace.tb_next
        return count

    with Pool(1) as pool:
        job = pool.submit(lambda: 1 / 0)
        error = job.exception(PATIENCE)
        assert error is not None
        first = length(error)
        for _ in range(50):
            with pytest.raises(ZeroDivisionError):
                job.result()
        assert length(error) <= first + 3
        del error
    gc.collect()
