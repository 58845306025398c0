"""Metrics, read as Prometheus reads them."""

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def parse(answer: httpx.Response) -> Samples:
    """Return every sample of an answer, by name and labels."""
    answer.raise_for_status()
    assert answer.headers["content-type"].startswith(("text/plain; version=0.0.4", OPENMETRICS))
    read = openmetrics if answer.headers["content-type"].startswith(OPENMETRICS) else prometheus
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read(answer.text)
        for sample in family.samples
    }


def scrape(address: str, **headers: str) -> Samples:
    """Return every sample of what an address tells."""
    return parse(httpx.get(f"{address}/metrics", headers=headers, timeout=10))


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return the key of a sample."""
    return name, frozenset(labels.items())
