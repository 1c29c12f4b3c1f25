"""Pausing queues from code: nothing of them is started, until they are resumed or until their time has come."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import ConfigError, Holdfast, SyncTask
from holdfast.app import parts_of
from holdfast.job import Pause
from holdfast.testing import Sandbox

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["memory://"])
def url(request: pytest.FixtureRequest) -> str:
    """Nearly all here happens in a sandbox, whatever the app's own store is."""
    return str(request.param)


def paused(app: Holdfast, name: str) -> Pause | None:
    """The queue's pause as everybody sees it."""
    return next((queue.pause for queue in parts_of(app).operating.stats().queues if queue.name == name), None)


def test_a_paused_queue_starts_nothing_and_the_others_go_on(app: Holdfast, send: SyncTask[..., str]) -> None:
    with Sandbox(app) as box:
        app.pause("mail", reason="the provider is down")
        held, other = send.enqueue("ann"), send.using(queue="other").enqueue("bob")
        box.advance("10h")
        assert (held.status().state, other.status().state) == ("queued", "succeeded")
        pause = paused(app, "mail")
        assert pause is not None
        assert (pause.until, pause.reason) == (None, "the provider is down")
        assert app.resume("mail") is True
        assert app.resume("mail") is False
        box.run()
        assert held.status().state == "succeeded"


@pytest.mark.parametrize("until", ["2h", NOON + timedelta(hours=2), timedelta(hours=2), 7200])
def test_a_pause_ends_by_itself_at_its_time(app: Holdfast, send: SyncTask[..., str], until: Any) -> None:
    with Sandbox(app, now=NOON) as box:
        app.pause("mail", until=until)
        held = send.enqueue("ann")
        box.advance("1h")
        assert held.status().state == "queued"
        box.advance("3h")
        assert held.status().state == "succeeded"
        assert held.status().started_at == NOON + timedelta(hours=2)
        assert paused(app, "mail") is None
        assert app.resume("mail") is False


def test_pausing_again_changes_the_end_and_the_reason(app: Holdfast) -> None:
    app.pause("mail", until="2h", reason="first")
    before = paused(app, "mail")
    app.pause("mail", reason="second")
    after = paused(app, "mail")
    assert before is not None
    assert after is not None
    assert (after.since, after.until, after.reason) == (before.since, None, "second")


async def test_the_twins_do_the_same(app: Holdfast) -> None:
    async with app:
        await app.apause("mail", until="2h")
        assert await app.aresume("mail") is True
        assert await app.aresume("mail") is False


def test_a_paused_queue_takes_jobs_inline_and_holds_them(app: Holdfast, send: SyncTask[..., str]) -> None:
    with Sandbox(app, inline=True):
        app.pause("mail")
        assert send.enqueue("ann").status().state == "queued"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": "no such"}, "queue='no such'"),
        ({"until": "soon"}, "until='soon': not a duration"),
        ({"until": 0}, "until=0: a duration must be more than zero"),
        ({"until": datetime(2027, 1, 1)}, "until=.*has no time zone"),  # noqa: DTZ001  # on purpose
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, "until=2020-01-01T00:00:00.*that is over"),
        ({"reason": 5}, "reason=5: a text"),
    ],
)
def test_what_makes_no_sense_is_refused(app: Holdfast, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        app.pause(**{"queue": "mail"} | options)
    assert paused(app, "mail") is None
