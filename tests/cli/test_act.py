"""`holdfast retry`, `cancel` and `delete`: by ids, by filter, with a preview, and never more than was shown."""

from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from holdfast.cli import act
from holdfast.cli.shell import shell
from tests.cli.shop import Run, Shop


def test_one_job_by_its_id_needs_no_question(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    made = filled["dead"]
    assert run("retry", str(made)).stdout == f"retried {made}\n"
    record = shop.record(made)
    assert (record.state, record.attempt, record.life) == ("queued", 0, 2)
    assert run("cancel", str(made)).stdout == f"cancelled {made}\n"
    assert shop.record(made).state == "cancelled"


def test_a_short_id_will_do(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    text = str(filled["dead"])
    run("retry", f"{text[:8]}…{text[-12:]}")
    assert shop.record(text).state == "queued"


def test_cancelling_a_running_job_asks_its_worker(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    result = run("cancel", str(filled["running"]))
    assert "their workers were asked to stop them" in result.stdout
    record = shop.record(filled["running"])
    assert record.state == "running"
    assert record.cancel_requested_at is not None


@pytest.mark.parametrize(
    ("verb", "name", "words"),
    [
        ("retry", "succeeded", "is succeeded; only dead and cancelled jobs can be retried"),
        ("retry", "running", "is running; only dead and cancelled"),
        ("cancel", "dead", "is dead; only unfinished jobs can be cancelled"),
        ("delete", "running", "is running; running jobs cannot be deleted: cancel them first"),
    ],
)
def test_a_job_in_another_state_is_refused_with_5(
    run: Run, shop: Shop, filled: dict[str, UUID], verb: str, name: str, words: str
) -> None:
    before = shop.states()
    result = run(verb, str(filled[name]), fails=True)
    assert result.exit_code == 5
    assert words in result.stderr
    assert shop.states() == before


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("arguments", [[str(uuid4())], ["--tag", "none"], ["ffffffff"]])
def test_nothing_matches_is_4(run: Run, arguments: list[str]) -> None:
    assert run("retry", *arguments, fails=True).exit_code == 4


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("verb", ["retry", "cancel", "delete"])
def test_everything_at_once_must_be_said(run: Run, verb: str) -> None:
    result = run(verb, "--yes", fails=True)
    assert result.exit_code == 2
    assert f"say which jobs to {verb}" in result.stderr


def test_a_dry_run_shows_what_and_does_nothing(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    before = shop.states()
    lines = run("cancel", "--since", "1h", "--dry-run").stdout.splitlines()
    assert lines[0] == "4 jobs would be cancelled:"
    assert sorted(" ".join(line.split()) for line in lines[1:-1]) == [
        "1 ▤ queued mail shop.send_invoice",
        "1 ▶ running default shop.resize",
        "1 ◷ scheduled default shop.resize",
        "1 ◷ scheduled mail shop.send_invoice",
    ]
    assert lines[-1].startswith("left as they are: ")
    assert all(words in lines[-1] for words in ("1 dead", "1 succeeded", "1 cancelled", "only unfinished"))
    assert shop.states() == before
    assert len(before) == len(filled)


def test_more_than_one_job_without_anybody_to_ask_is_refused(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    before = shop.states()
    for arguments in (["--state", "dead,cancelled"], [str(filled["dead"]), str(filled["cancelled"])]):
        result = run("retry", *arguments, fails=True)
        assert result.exit_code == 5
        assert "2 jobs would be retried" in result.stderr
        assert "--yes" in result.stderr
    assert shop.states() == before


def test_yes_does_it_and_says_what_was_left(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    result = run("retry", "--queue", "mail", "--yes")
    assert result.stdout == "retried 2 jobs\n"
    assert "left as they are: " in result.stderr
    assert "1 scheduled" in result.stderr
    states = shop.states()
    assert states[filled["dead"]] == states[filled["cancelled"]] == "queued"
    assert states[filled["scheduled"]] == "scheduled"
    assert states[filled["succeeded"]] == "succeeded"


def test_several_ids_do_it_one_by_one(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    ids = [str(filled[name]) for name in ("queued", "scheduled", "dead")]
    assert run("cancel", "--yes", *ids).stdout == "cancelled 2 jobs\n"
    states = shop.states()
    assert states[filled["queued"]] == states[filled["scheduled"]] == "cancelled"
    assert states[filled["dead"]] == "dead"


def test_ids_and_a_filter_must_both_hold(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    ids = [str(filled[name]) for name in ("queued", "scheduled")]
    assert run("cancel", "--state", "queued", *ids).stdout == f"cancelled {filled['queued']}\n"
    assert shop.record(filled["scheduled"]).state == "scheduled"


def test_jobs_that_come_after_the_preview_are_not_touched(
    run: Run, shop: Shop, filled: dict[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = list[UUID]()

    def agree(*_: object, **__: object) -> bool:
        late.append(shop.send.enqueue(99).id)
        shop.jobs.job(late[0]).cancel()
        return True

    monkeypatch.setattr(act, "_agreed", agree)
    assert run("retry", "--state", "cancelled,dead").stdout == "retried 2 jobs\n"
    assert shop.record(late[0]).state == "cancelled"


def test_a_preview_of_very_many_jobs_is_bounded(
    run: Run, shop: Shop, filled: dict[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(act, "COUNTED", 2)
    assert len(filled) > 2
    assert run("cancel", "--since", "1h", "--dry-run").stdout.startswith("2+ jobs would be cancelled:")
    assert run("cancel", "--since", "1h", "--yes").stdout.startswith("cancelled 4 jobs")
    assert shop.record(filled["queued"]).state == "cancelled"


def test_deleted_jobs_are_gone(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    assert run("delete", str(filled["dead"])).stdout == f"deleted {filled['dead']}\n"
    assert filled["dead"] not in shop.states()
    assert run("job", str(filled["dead"]), fails=True).exit_code == 4
    assert run("delete", str(filled["dead"]), fails=True).exit_code == 4


def test_running_jobs_are_not_deleted_and_that_is_said(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    result = run("delete", "--since", "1h", "--yes")
    assert result.stdout == "deleted 6 jobs\n"
    assert "left as they are: 1 running (running jobs cannot be deleted: cancel them first)" in result.stderr
    assert shop.states() == {filled["running"]: "running"}


def test_a_dry_run_of_delete_deletes_nothing(run: Run, shop: Shop, filled: dict[str, UUID]) -> None:
    lines = run("delete", "--state", "dead,cancelled,running", "--dry-run").stdout.splitlines()
    assert lines[0] == "2 jobs would be deleted:"
    assert lines[-1] == "left as they are: 1 running (running jobs cannot be deleted: cancel them first)"
    assert len(shop.states()) == len(filled)
    refused = run("delete", "--state", "dead,cancelled", fails=True)
    assert (refused.exit_code, "2 jobs would be deleted" in refused.stderr) == (5, True)
    assert len(shop.states()) == len(filled)


def test_delete_leaves_what_comes_after_the_preview(
    run: Run, shop: Shop, filled: dict[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = list[UUID]()
    monkeypatch.setattr(act, "_agreed", lambda *_, **__: late.append(shop.send.enqueue(99).id) or True)
    run("delete", "--queue", "mail")
    assert late[0] in shop.states()
    assert filled["queued"] not in shop.states()


def test_a_job_that_began_to_run_meanwhile_is_left(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.send.enqueue(1).id
    monkeypatch.setattr(act, "_agreed", lambda *_, **__: bool(shop.after(made, None)))
    result = refused_by("delete", str(made))
    assert "left as it is: " in result
    assert "running" in result
    assert shop.states() == {made: "running"}


def test_a_retry_whose_key_is_taken_is_left_and_names_the_holder(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = [shop.send.using(unique="order:1").enqueue(1)]
    made[0].cancel()
    made.append(shop.send.using(unique="order:1").enqueue(1))
    text = refused_by("retry", str(made[0].id))
    assert str(made[1].id) in text
    result = refused_by("retry", "--state", "cancelled", "--yes")
    assert "1 more (another job holds their unique key, their queue has no place, or they changed meanwhile)" in result
    assert shop.record(made[0].id).state == "cancelled"


def test_a_retry_for_which_there_is_no_place_is_left(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_URL", shop.url)
    made = shop.send.enqueue(1)
    made.cancel()
    shop.send.enqueue(2)
    run("queues", "set", "mail", "--max-size", "1", "--when-full", "drop_oldest")
    assert "left as it is: " in refused_by("retry", str(made.id))
    assert shop.record(made.id).state == "cancelled"
    assert len(shop.states()) == 2


def refused_by(*arguments: str) -> str:
    """What is said on stderr by a command that changed nothing."""
    result = CliRunner().invoke(shell, arguments)
    assert result.exit_code == 5, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr
