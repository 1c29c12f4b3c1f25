"""`expires=` and `deadline=`: what the store is told of them, what they do to a job, and which make no sense."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import ConfigError, Holdfast, JobCancelled, JobFailed, SyncTask
from holdfast.clock import HOUR, MINUTE, SECOND, instant
from holdfast.job import Until
from holdfast.testing import Sandbox

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["memory://"])
def url(request: pytest.FixtureRequest) -> str:
    """Nearly all here happens in a sandbox, whatever the app's own store is."""
    return str(request.param)


def test_durations_cross_as_durations_and_instants_as_instants(send: SyncTask[..., str]) -> None:
    plain = send.bind("ann").draft
    assert (plain.expires, plain.deadline) == (None, None)
    draft = send.using(expires="5m", deadline=timedelta(hours=1)).bind("ann").draft
    assert (draft.expires, draft.deadline) == (Until(5 * MINUTE), Until(HOUR))
    later = datetime.now(UTC) + timedelta(days=1)
    draft = send.using(expires=later, deadline=90).bind("ann").draft
    assert (draft.expires, draft.deadline) == (Until(at=instant(later, "later")), Until(90 * SECOND))


def test_what_was_not_started_in_time_is_cancelled_as_expired(app: Holdfast, send: SyncTask[..., str]) -> None:
    with Sandbox(app, now=NOON) as box:
        job = send.using(expires="30m").enqueue("ann")
        later = send.using(expires="30m", delay="10m").enqueue("bob")
        app.pause("mail")
        assert box.advance("31m") == []
        assert [(one.status().state, one.status().reason) for one in (job, later)] == [("cancelled", "expired")] * 2
        with pytest.raises(JobCancelled, match=r"was cancelled: expired"):
            job.result()


def test_what_started_in_time_may_run_on(app: Holdfast, send: SyncTask[..., str]) -> None:
    with Sandbox(app, now=NOON) as box:
        job = send.using(expires="30m", delay="29m").enqueue("ann")
        box.advance("2h")
        assert job.result() == "<ann>" or job.result() == "ann"


def test_what_is_not_finished_by_its_deadline_is_dead(app: Holdfast) -> None:
    @app.task(name="shop.fails", retry=_often())
    def fails() -> None:
        raise ValueError("no paper")

    with Sandbox(app, now=NOON) as box:
        job = fails.using(deadline="30m").enqueue()
        never = fails.using(deadline=NOON + timedelta(minutes=5), delay="1m", queue="slow").enqueue()
        app.pause("slow")
        box.advance("2h")
        assert [(one.status().state, one.status().reason) for one in (job, never)] == [("dead", "deadline")] * 2
        with pytest.raises(
            JobFailed, match=r"deadline passed before it was finished; the last error .* ValueError: no p"
        ):
            job.result()
        with pytest.raises(JobFailed, match=r"is dead: its deadline passed before it was finished$") as failed:
            never.result()
        assert failed.value.error.type == "TimeoutError"


def test_an_operators_retry_has_all_the_time(app: Holdfast, send: SyncTask[..., str]) -> None:
    with Sandbox(app, now=NOON) as box:
        app.pause("mail")
        job = send.using(expires="30m", deadline="40m").enqueue("ann")
        box.advance("1h")
        app.resume("mail")
        job.retry()
        box.advance("1h")
        assert job.status().state == "succeeded"


def _often() -> Any:
    from holdfast import Retry

    return Retry(max_attempts=100, base_delay="10m", max_delay="10m", jitter=0)


@pytest.mark.parametrize("name", ["expires", "deadline"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "a duration must be more than zero"),
        (-5, "a duration must be more than zero"),
        ("soon", "not a duration"),
        ("2027-01-01T00:00:00Z", "; or an aware datetime"),
        (None, "; or an aware datetime"),
        (True, "not a duration"),
        ([5], "; or an aware datetime"),
        (datetime(2027, 1, 1), "has no time zone"),  # noqa: DTZ001  # on purpose
    ],
)
def test_what_is_no_time_is_refused(send: SyncTask[..., str], name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}=") as refused:
        send.using(**{name: value})
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["expires", "deadline"])
def test_a_job_that_would_be_over_before_it_is_due_is_refused(
    app: Holdfast, send: SyncTask[..., str], name: str
) -> None:
    early, late = NOON + timedelta(hours=1), NOON + timedelta(hours=2)
    for options in ({name: "30m", "delay": "1h"}, {name: "30m", "delay": "30m"}, {name: early, "at": late}):
        with pytest.raises(ConfigError, match=rf"{name}=.*is not due before that.*give a later time"):
            send.using(**options)  # without a look at any clock
    with Sandbox(app, now=NOON):
        for options in ({name: "30m", "at": early}, {name: early, "delay": "2h"}):
            with pytest.raises(ConfigError, match=rf"{name}=.*is not due before that.*give a later time"):
                send.using(**options).enqueue("ann")
        with pytest.raises(ConfigError, match=rf"{name}=2027-03-01T11:00:00.*that is over, it is 2027-03-01T12:00"):
            send.using(**{name: NOON - timedelta(hours=1)}).enqueue("ann")
        with pytest.raises(ConfigError, match=rf"{name}=.*that is over"):
            send.using(**{name: NOON - timedelta(hours=1), "at": NOON - timedelta(hours=2)}).bind("ann")
        for options in ({name: "2h", "at": early}, {name: late, "delay": "1h"}, {name: late, "at": early}):
            assert send.using(**options).enqueue("ann").created


def test_a_task_itself_has_no_end(app: Holdfast) -> None:
    with pytest.raises(ConfigError, match="no option 'expires'"):
        app.task(name="shop.send", expires="5m")(print)  # type: ignore[call-overload]
