"""Natural batching: what comes while a write is in flight goes together in the next, and strangers share no errors."""

import asyncio
from collections.abc import Sequence

import pytest

from holdfast.errors import StoreAway, StoreError
from holdfast.worker.batcher import Batcher
from tests.worker.rig import soon, until


class Writer:
    """A write that waits for the test, answers each item with its double, and refuses what it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.refused: dict[int, Exception] = {}
        self.gate = asyncio.Semaphore(0)
        self.open = False
        self.at_once = 0
        self.most_at_once = 0

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if not self.open:
                await self.gate.acquire()
            for item in items:
                if item in self.refused:
                    raise self.refused[item]
            return [2 * item for item in items]
        finally:
            self.at_once -= 1

    def let_go(self) -> None:
        self.open = True
        self.gate.release()


async def calls(batcher: Batcher[int, int], *items: Sequence[int]) -> list[asyncio.Task[Sequence[int]]]:
    """One call after another, each as far as it gets."""
    made = []
    for call in items:
        made.append(asyncio.create_task(batcher.put(call)))
        await asyncio.sleep(0)
    return made


async def gathered(made: Sequence[asyncio.Task[Sequence[int]]]) -> list[object]:
    answers = await soon(asyncio.gather(*made, return_exceptions=True), "a call is never answered")
    return [list(a) if isinstance(a, list) else a for a in answers]


async def test_one_call_is_written_at_once() -> None:
    writer = Writer()
    writer.let_go()
    batcher = Batcher(writer)
    assert await soon(batcher.put([1, 2]), "no answer") == [2, 4]
    assert await soon(batcher.put([3]), "no answer") == [6]
    assert writer.batches == [[1, 2], [3]]


async def test_what_comes_during_a_write_goes_together_in_the_next_in_order() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    made = await calls(batcher, [1], [2, 3], [4], [5])
    assert writer.batches == [[1]]
    writer.let_go()
    assert await gathered(made) == [[2], [4, 6], [8], [10]]
    assert writer.batches == [[1], [2, 3, 4, 5]]
    assert writer.most_at_once == 1, "one write is in flight at a time"


async def test_a_batch_is_not_larger_than_its_most() -> None:
    writer = Writer()
    batcher = Batcher(writer, most=3)
    made = await calls(batcher, [0], [1], [2, 3], [4], [5, 6, 7], [8, 9, 10, 11], [12])
    writer.let_go()
    assert await gathered(made) == [[0], [2], [4, 6], [8], [10, 12, 14], [16, 18, 20, 22], [24]]
    assert writer.batches == [[0], [1, 2, 3], [4], [5, 6, 7], [8, 9, 10, 11], [12]]


async def test_a_call_is_never_split_over_two_writes() -> None:
    writer = Writer()
    writer.let_go()
    assert await soon(Batcher(writer, most=2).put([1, 2, 3, 4, 5]), "no answer") == [2, 4, 6, 8, 10]
    assert writer.batches == [[1, 2, 3, 4, 5]]


async def test_a_refused_item_fails_its_own_call_alone() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    refusal = StoreError("too long")
    writer.refused[3] = refusal
    made = await calls(batcher, [0], [1, 2], [3, 4], [5])
    writer.let_go()
    assert await gathered(made) == [[0], [2, 4], refusal, [10]]
    assert writer.batches == [[0], [1, 2, 3, 4, 5], [1, 2], [3, 4], [5]]


async def test_a_store_that_is_away_is_away_for_all() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    away = StoreAway("away")
    writer.refused[2] = away
    made = await calls(batcher, [0], [1], [2], [3])
    writer.let_go()
    assert await gathered(made) == [[0], away, away, away]
    assert writer.batches == [[0], [1, 2, 3]], "it is not asked item by item"


async def test_after_an_error_the_batcher_goes_on() -> None:
    writer = Writer()
    writer.let_go()
    batcher = Batcher(writer)
    for error in (StoreAway("away"), StoreError("refused")):
        writer.refused[1] = error
        with pytest.raises(type(error)):
            await soon(batcher.put([1]), "no answer")
    assert await soon(batcher.put([2]), "no answer") == [4]


async def test_a_caller_that_leaves_takes_along_what_has_not_left() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    made = await calls(batcher, [1], [2], [3])
    made[1].cancel()
    await asyncio.sleep(0)
    writer.let_go()
    answers = await gathered(made)
    assert isinstance(answers.pop(1), asyncio.CancelledError)
    assert answers == [[2], [6]]
    assert writer.batches == [[1], [3]]


async def test_a_caller_that_leaves_while_it_is_written_disturbs_nobody() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    first, second = await calls(batcher, [1], [2])
    first.cancel()
    await asyncio.sleep(0)
    writer.let_go()
    assert await soon(second, "the other call is not answered") == [4]
    assert first.cancelled()
    assert writer.batches == [[1], [2]]


async def test_a_caller_that_leaves_a_batch_that_fails_disturbs_nobody() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    writer.refused[3] = StoreError("refused")
    made = await calls(batcher, [1], [2], [3], [4])
    writer.gate.release()
    await until(lambda: len(writer.batches) == 2, "the joint batch is not written")
    made[1].cancel()
    writer.let_go()
    answers = await gathered(made)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert (answers[0], answers[3]) == ([2], [8])


async def test_two_calls_with_the_same_items_are_two_calls() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    made = await calls(batcher, [1], [2], [2])
    made[2].cancel()
    await asyncio.sleep(0)
    writer.let_go()
    assert (await gathered(made))[:2] == [[2], [4]]
    assert writer.batches == [[1], [2]], "the other one was withdrawn"


async def test_a_thousand_concurrent_calls_make_a_few_writes() -> None:
    writer = Writer()
    batcher = Batcher(writer, most=500)
    made = [asyncio.create_task(batcher.put([n])) for n in range(1_001)]
    await asyncio.sleep(0)
    writer.let_go()
    assert await gathered(made) == [[2 * n] for n in range(1_001)]
    assert sum(len(batch) for batch in writer.batches) == 1_001
    assert len(writer.batches) <= 4
