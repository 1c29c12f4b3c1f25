"""An exception as text: what is left out of one that is too large, and that it never takes long or raises."""

from __future__ import annotations

import pytest

from holdfast.job import MESSAGE_LIMIT, TRACEBACK_LIMIT
from holdfast.observe import tracebacks
from holdfast.observe.tracebacks import text_of, traceback_of
from holdfast.policy import failure


def chain(length: int) -> BaseException:
    error = None
    for number in range(length):
        try:
            raise ValueError(f"number {number}") from error
        except ValueError as following:
            error = following
    assert error is not None
    return error


def spelt(error: BaseException) -> str:
    return traceback_of(error, text_of(error))


def test_a_chain_that_is_not_long_is_written_as_python_does() -> None:
    text = spelt(chain(tracebacks.PLENTY // 2))
    assert all(f"ValueError: number {number}\n" in text for number in range(tracebacks.PLENTY // 2))
    assert "more exceptions" not in text


def test_of_a_long_chain_the_first_causes_and_the_last_effects_are_kept_and_the_others_counted() -> None:
    text = spelt(chain(9_000))
    kept = [0, 1, 2, 3, 4, 8_995, 8_996, 8_997, 8_998, 8_999]
    places = [text.index(f"ValueError: number {number}\n") for number in kept]
    assert places == sorted(places), "the first cause comes first, as Python has it"
    assert text.index("8990 more exceptions") > places[4]
    assert text.count("in chain") == len(kept)
    assert text.count("direct cause") == len(kept) - 1
    assert len(text) < TRACEBACK_LIMIT, "so that nothing of it is cut"


def test_a_context_is_told_from_a_cause() -> None:
    error: BaseException = KeyError("x" * tracebacks.LONG)
    error.__context__ = ValueError("before")
    assert "During handling of the above exception" in spelt(error)
    error.__suppress_context__ = True
    assert "before" not in spelt(error)


@pytest.mark.parametrize("depth", [3, 12, 3_000])
def test_a_group_that_is_in_itself_again_and_again_is_outlined(depth: int) -> None:
    error: Exception = ValueError("the one")
    for _ in range(depth):
        error = ExceptionGroup("ten of them", [error] * 10)
    text = spelt(error)
    assert text.count("ten of them") >= tracebacks.ENDS
    assert "5 more exceptions" in text


def test_a_huge_text_is_asked_for_once_and_kept_from_both_ends() -> None:
    asked: list[int] = []

    class Huge(Exception):
        def __str__(self) -> str:
            asked.append(1)
            return "é" * 10_000_000 + "the end"

    kept = failure(Huge())
    assert kept.message.startswith("éé")
    assert kept.message.endswith("the end")
    assert "characters left out" in kept.message
    assert kept.traceback.rstrip().endswith("the end")
    assert len(kept.message) < MESSAGE_LIMIT + 50
    assert len(asked) <= 2


def test_half_a_surrogate_at_the_cut_is_spelt_out() -> None:
    kept = failure(ValueError("\ud83d" * 1_000_000))
    for text in kept:
        text.encode()
    assert len(kept.message) < MESSAGE_LIMIT + 50


def test_whatever_its_parts_raise_a_text_comes_out() -> None:
    class Sly(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]
            raise SystemExit(1)

    assert "SystemExit" in spelt(Sly())
