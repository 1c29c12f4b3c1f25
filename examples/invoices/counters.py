"""What the worker services counted, by their /metrics: as Prometheus does it, one look after the other.

A service counts from its own start, so the last look at each is added up. What ends after the last look at a service
that leaves is in none: no more than it had under way.
"""

from contextlib import suppress

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Counters:
    """The sums over all services that have answered at `url`, one at a time."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=2)
        self._before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}  # of services that have left
        self._now: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def look(self) -> bool:
        """Takes the numbers as they are now; False if nobody answers."""
        with suppress(httpx.HTTPError):
            text = self._http.get("/metrics").raise_for_status().text
            self._now = {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if family.type == "counter" and not sample.name.endswith("_created")
            }
            return True
        return False

    def left(self) -> None:
        """The service has left: another will count from zero."""
        for key, value in self._now.items():
            self._before[key] = self._before.get(key, 0) + value
        self._now = {}

    def total(self, name: str, **labels: str) -> int:
        """The sum of all counters of this name that have these labels."""
        wanted = set(labels.items())
        counters = [*self._before.items(), *self._now.items()]
        return round(sum(value for (named, has), value in counters if named == name and wanted <= has))
