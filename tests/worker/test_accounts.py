"""What a dead worker's runs became: counted as what is on record under its word, and nothing that others did."""

import pytest

from holdfast.clock import FakeClock
from holdfast.job import Cancelled, Failed, Failure, Loss, Released, Succeeded, Verdict
from holdfast.policy import decide
from holdfast.worker.accounts import settled_under
from tests.store.acts import TERMS, hand, running
from tests.worker.rig import Flaky, memory

BOOM = Failed(Failure("ValueError", "no", ""))


@pytest.fixture
def store() -> Flaky:
    return memory(FakeClock())


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (Succeeded(b"1"), "succeeded"),
        (BOOM, "failed"),
        (Failed(Failure("ValueError", "no", ""), final=True), "dead"),
        (Cancelled("enough"), "cancelled"),
        (Released("leaving"), "released"),
    ],
)
async def test_each_end_is_found_with_the_time_that_it_took(store: Flaky, verdict: Verdict, status: str) -> None:
    worker = await hand(store.inner)
    claim = await running(store.inner, worker, terms=TERMS._replace(max_attempts=5))
    store.shift += 1500
    await store.inner.finish([decide(claim, verdict)])
    (account,) = await settled_under(store, worker.id, [(claim.id, claim.fence)])
    assert (account.queue, account.task, account.status) == (claim.queue, claim.task, status)
    assert account.ran == 1.5


async def test_what_is_not_on_record_under_its_word_is_not_its_own(store: Flaky) -> None:
    """It runs, or was taken over, or another finished it since."""
    worker, other = await hand(store.inner), await hand(store.inner)
    runs, robbed = await running(store.inner, worker), await running(store.inner, worker)
    key = [(runs.id, runs.fence), (robbed.id, robbed.fence)]
    assert await settled_under(store, worker.id, key) == []
    await store.inner.retire(worker.id, Loss("killed"))
    for claim in await store.inner.reclaim(other.id, 10):
        await store.inner.finish([decide(claim, Succeeded(b"1"))])
    assert await settled_under(store, worker.id, key) == []


async def test_an_attempt_that_others_followed_is_found_in_the_history(store: Flaky) -> None:
    worker, other = await hand(store.inner), await hand(store.inner)
    claim = await running(store.inner, worker, terms=TERMS._replace(max_attempts=5, base_delay=0))
    await store.inner.finish([decide(claim, BOOM)])
    again = await other.take()
    await store.inner.finish([decide(again, Succeeded(b"1"))])
    found = await settled_under(store, worker.id, [(claim.id, claim.fence)])
    assert [account.status for account in found] == ["failed"]
    assert [a.status for a in await settled_under(store, other.id, [(claim.id, again.fence)])] == ["succeeded"]


async def test_a_job_that_is_gone_has_no_account(store: Flaky) -> None:
    worker = await hand(store.inner)
    await running(store.inner, worker)
    assert await settled_under(store, worker.id, [(worker.id, 1)]) == []
    assert await settled_under(store, worker.id, []) == []
