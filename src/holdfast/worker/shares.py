"""Shares: how many jobs of each queue the next claim asks for, so that what a worker starts follows their weights.

Each queue has a mark that moves on by 1/weight with each of its jobs; whoever stands furthest behind comes next (stride
scheduling: Waldspurger and Weihl, 1995). A queue that is found empty is carried along, at most one job behind the
others: it saves nothing up, and its share goes to the others meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from math import ceil, inf
from operator import attrgetter

from holdfast.job import Claim
from holdfast.store import QueueSetup, Quota

PROBES_MOST = 16  # queues that were found empty lately, and are asked for again with one claim
AHEAD_MOST = 1_000  # jobs (or one of the lightest queue) after which a queue that had too many has its turn again
_HAIR = 1e-6  # of a job: what sums of fractions may be off by


class Strict:
    """Quotas that take what the first queue has, and of the next only where there is room left."""

    used = True
    weighs = False

    def __init__(self, served: Sequence[str]) -> None:
        self._served = served
        self._places = {name: place for place, name in enumerate(served)}

    def weigh(self, queues: Iterable[QueueSetup]) -> None:
        """As for Shares; weights say nothing here."""

    def quotas(self, limit: int) -> list[Quota]:
        return [Quota(name, limit) for name in self._served]

    def took(self, limit: int, quotas: Sequence[Quota], claims: Sequence[Claim]) -> Sequence[Claim]:  # noqa: ARG002
        """The claims, in the order to start them in."""
        return sorted(claims, key=lambda claim: self._places[claim.queue])


class Shares:
    """The shares of one worker that serves `served`, None: whatever queue has jobs. What nobody declared weighs 1."""

    def __init__(self, served: Collection[str] | None = None) -> None:
        self.used = False  # where no weight differs from 1, claims need no quotas
        self.weighs = served is None or len(served) > 1  # whether weights could matter at all
        self._served = served
        self._weights: dict[str, int] = {}
        self._stands: dict[str, _Stand] = {}
        self._strangers = _Stand("", 1)  # all queues that are not known here
        self._claims = 0

    def weigh(self, queues: Iterable[QueueSetup]) -> None:
        """Takes in what is laid down about queues; how far each has come stays."""
        self._weights = {queue.name: queue.terms.weight for queue in queues}
        names = self._weights if self._served is None else self._served
        self.used = self.weighs and any(self._weight(name) != 1 for name in names)
        if not self.used:
            self._stands.clear()
            return
        self._stands = {name: stand for name, stand in self._stands.items() if name in names or not stand.empty}
        for name in names:
            self._stand(name)
        for stand in self._stands.values():
            stand.weight = self._weight(stand.name)

    def quotas(self, limit: int) -> list[Quota]:
        """For a claim of up to `limit` jobs: queues that were found empty lately, then those that are furthest behind.

        What the first of them have takes from the share of the last, who will be further behind next time.
        """
        stands = list(self._stands.values())
        level = _level(stands, limit)
        return [
            *(Quota(stand.name, min(limit, max(1, stand.owed(level)))) for stand in self._probes(stands)),
            *self._of_the_busy([stand for stand in stands if not stand.empty], limit),
        ]

    def _of_the_busy(self, busy: list[_Stand], limit: int) -> list[Quota]:
        level, quotas, promised, left_open = _level(busy, limit), list[Quota](), 0, 0
        strangers = [self._strangers] if busy and self._served is None else []
        for stand in sorted([*busy, *strangers], key=_NEXT):
            most = min(limit, stand.owed(level))
            if stand is self._strangers:
                left_open = int(most > 0 and promised < limit)  # one place, which the store fills from any queue
            elif most > 0:
                quotas.append(Quota(stand.name, most))
                promised += most
            if promised >= 2 * limit:  # enough, even if some of them have become empty
                break
        return _at_most(quotas, limit - 1) if left_open else quotas

    def _probes(self, stands: Iterable[_Stand]) -> list[_Stand]:
        empty = [stand for stand in stands if stand.empty]
        if len(empty) > PROBES_MOST:
            empty = sorted(empty, key=_ASKED)[:PROBES_MOST]
        return sorted(empty, key=_NEXT)

    def took(self, limit: int, quotas: Sequence[Quota], claims: Sequence[Claim]) -> Sequence[Claim]:
        """Accounts for what a claim with these quotas brought; returns it in the order in which to start it."""
        got, room = Counter(claim.queue for claim in claims), limit
        woven = self._woven(claims)
        self._claims += 1
        for name, most in quotas:
            if (offered := min(most, room)) > 0:
                stand = self._stand(name)
                stand.asked, stand.empty = self._claims, got[name] < offered
                room -= min(got[name], offered)
        if room:
            self._strangers.mark += 1
        self._carry()
        return woven

    def _woven(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Moves the marks on; the jobs of each queue in their order, those of all as if claimed one by one."""
        marks: list[float] = []
        for claim in claims:
            stand = self._stand(claim.queue)
            stand.mark, stand.empty = stand.next, False
            marks.append(stand.mark)
        return [claims[n] for n in sorted(range(len(claims)), key=marks.__getitem__)]

    def _carry(self) -> None:
        """Counts all marks from that of the queue that is furthest behind, of those that have jobs."""
        stands = self._stands.values()
        busy = [stand for stand in stands if not stand.empty]
        base = max(0.0, min(map(_MARK, busy)) if busy else max(map(_MARK, stands), default=0.0))
        longest = 1 / min(map(_WEIGHT, busy), default=1)  # or none that is ahead would ever let it pass
        ahead = max(AHEAD_MOST / sum(map(_WEIGHT, busy)), longest) if busy else 0.0
        for stand in stands:
            stride = 1 / stand.weight
            stand.mark = min(stand.mark - base, max(ahead, stride))
            if stand.empty:
                stand.mark = max(stand.mark, -stride)
        self._strangers.mark = max(self._strangers.mark - base, -1.0)

    def _stand(self, name: str) -> _Stand:
        if (stand := self._stands.get(name)) is None:
            self._stands[name] = stand = _Stand(name, self._weight(name))
        return stand

    def _weight(self, name: str) -> int:
        return self._weights.get(name, 1)


class _Stand:
    """How far a queue has come, and whether it was found empty when it was last asked for."""

    __slots__ = ("asked", "empty", "mark", "name", "weight")

    def __init__(self, name: str, weight: int) -> None:
        self.name = name
        self.weight = weight
        self.mark = 0.0
        self.empty = False
        self.asked = 0  # the number of that claim

    @property
    def next(self) -> float:
        """Where its next job takes it."""
        return self.mark + 1 / self.weight

    def owed(self, level: float) -> int:
        """How many jobs take it to `level`, the last one perhaps beyond it."""
        return ceil((level - self.mark) * self.weight - _HAIR)


_NEXT, _MARK = attrgetter("next"), attrgetter("mark")
_WEIGHT, _ASKED = attrgetter("weight"), attrgetter("asked")


def _level(stands: Iterable[_Stand], limit: int) -> float:
    """The mark that all who are behind it have reached when `limit` jobs were given to them alone."""
    weight, total, level = 0, float(limit), inf
    for stand in sorted(stands, key=_MARK):
        if stand.mark >= level:
            break
        weight += stand.weight
        total += stand.weight * stand.mark
        level = total / weight
    return level


def _at_most(quotas: Sequence[Quota], room: int) -> list[Quota]:
    """The first of them, together for no more than `room` jobs."""
    kept: list[Quota] = []
    for name, most in quotas:
        if (most := min(most, room)) > 0:
            kept.append(Quota(name, most))
            room -= most
    return kept
