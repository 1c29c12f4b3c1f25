"""Health: what is red, what is only less than it should be, and that each check says why."""

import pytest

from holdfast.observe.health import CLAIM_LATE, Check, Seen, Vitals, live, ready, well

WELL = Vitals(0, 10, 0, 1, 0.0, 0.1, 0.1, held=True, unheard=False)


def seen(*processes: Vitals, answers: bool = True, **changes: object) -> Seen:
    return Seen(processes or (WELL,), answers=answers)._replace(**changes)  # type: ignore[arg-type]


def red(checks: list[Check]) -> list[str]:
    assert all(check.why for check in checks if not check.ok), "a red check does not say why"
    return [check.check for check in checks if not check.ok]


def degraded(checks: list[Check]) -> list[str]:
    assert all(check.why and check.ok for check in checks if check.degraded)
    return [check.check for check in checks if check.degraded]


def test_a_service_that_works_is_ready_and_nothing_is_said_against_it() -> None:
    checks = ready(seen(WELL, WELL._replace(number=1)))
    assert [check.check for check in checks] == ["store", "lease", "loop", "claiming", "notifier"]
    assert well(checks)
    assert not any(check.why for check in checks)


@pytest.mark.parametrize(
    ("ill", "which"),
    [
        (seen(answers=False, away="connection refused"), "store"),
        (seen(answers=False), "store"),
        (seen(held=False), "lease"),
        (seen(WELL._replace(held=False)), "lease"),
        (seen(WELL._replace(still=5.0)), "loop"),
        (seen(WELL._replace(claimed=CLAIM_LATE + 1)), "claiming"),
        (seen(WELL._replace(claimed=None)), "claiming"),
        (seen(stopping=True), "running"),
        (Seen((), answers=True), "running"),
    ],
)
def test_each_check_is_red_alone_and_says_why(ill: Seen, which: str) -> None:
    checks = ready(ill)
    assert red(checks) == [which]
    assert not well(checks)


def test_of_processes_that_die_it_is_not_said_that_none_has_started() -> None:
    assert "they die (12 so far)" in ready(Seen((), answers=True, deaths=12))[0].why
    assert "has started yet" in ready(Seen((), answers=True))[0].why


def test_the_reason_of_the_store_is_given() -> None:
    assert "connection refused" in next(check.why for check in ready(seen(answers=False, away="connection refused")))


def test_one_bad_process_of_two_is_less_than_it_should_be_and_still_ready() -> None:
    checks = ready(seen(WELL, WELL._replace(still=9.0)))
    assert well(checks)
    assert degraded(checks) == ["loop"]
    assert "1 of 2" in next(check.why for check in checks if check.degraded)
    assert red(ready(seen(WELL._replace(still=9.0), WELL._replace(still=9.0)))) == ["loop"]


def test_a_notifier_that_does_not_hear_degrades_and_does_not_end_readiness() -> None:
    checks = ready(seen(WELL._replace(unheard=True)))
    assert well(checks)
    assert degraded(checks) == ["notifier"]


def test_a_service_lives_whatever_its_store_does() -> None:
    assert well(live(seen(answers=False, held=False, stopping=True)))
    assert well(live(seen(WELL._replace(still=900.0)))), "the supervisor ends what is stuck: nobody has to end it"


def test_a_worker_in_ones_own_process_lives_as_long_as_its_loop_goes_on() -> None:
    assert well(live(seen(WELL._replace(still=30.0), supervised=False)))
    assert red(live(seen(WELL._replace(still=300.0), supervised=False))) == ["loop"]


def test_a_process_without_workers_is_ready_while_its_store_answers() -> None:
    assert well(ready(Seen((), answers=True, works=False)))
    assert red(ready(Seen((), answers=False, works=False))) == ["store"]
