"""What a service with `--metrics 127.0.0.1:0` says at its endpoint, as a scraper and a probe read it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.flows.conftest import Service, until

ENDPOINT = ("--metrics", "127.0.0.1:0")


def address(service: Service) -> str:
    """Where its endpoint listens, as its banner says."""
    found = until(lambda: re.search(r"metrics  http://(\S+)/metrics", service.text()), "the banner of the worker")
    return str(found[1])


def ask(service: Service, path: str) -> tuple[int, str]:
    """Status and text of a GET."""
    try:
        with urllib.request.urlopen(f"http://{address(service)}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Scrape:
    """One scrape, parsed."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels."""
        return sum(self._of(name, labels))

    def _of(self, name: str, labels: dict[str, str]) -> Iterator[float]:
        for sample in self._samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.value

    def labels(self, name: str, label: str) -> set[str]:
        """All values of a label."""
        return {sample.labels[label] for sample in self._samples if sample.name == name}

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self._samples}


def scrape(service: Service) -> Scrape:
    """What Prometheus would get now."""
    status, text = ask(service, "/metrics")
    assert status == 200, text
    return Scrape(text)


def checks(service: Service) -> tuple[int, dict[str, dict[str, Any]]]:
    """The status of /ready, and its checks by name."""
    status, text = ask(service, "/ready")
    return status, {check["check"]: check for check in json.loads(text)["checks"]}
