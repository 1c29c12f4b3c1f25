"""A handler that uses everything: it snoozes, cancels, goes on where it was, and says how far it is."""

from holdfast import Cancel, Holdfast, Retry, Snooze, current_job
from tests.programs.bank import bank_open, charge, pages

jobs = Holdfast()


@jobs.task(timeout="10m", retry=Retry(max_attempts=10, base_delay=0.1))
def settle(order: int) -> str:
    job = current_job()
    if not bank_open():
        raise Snooze("15m", "bank closed")  # no attempt used
    if order < 0:
        raise Cancel("test order")
    todo = pages(order)
    start = job.saved(int, 0)  # where the last attempt stopped
    for i, page in enumerate(todo[start:], start):
        job.check()  # raises when cancelled or past the deadline
        job.log(page)
        job.progress(i + 1, len(todo), text=page)
        job.save(i + 1)  # fenced: raises Stop("lost")
    return charge(order, key=f"{job.id}", timeout=job.time_left)
