"""A framework's numbers as Prometheus text. Numbers are written whole, however large they are.

Source: the text format of Prometheus.
"""

from collections.abc import Iterator, Sequence

import msgspec
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Gauge(msgspec.Struct, frozen=True):
    """What goes up and down. Shapes: `values` by the value of the one `label`, or one under the empty text."""

    name: str
    help: str
    values: dict[str, float]
    label: str = ""


class Counter(msgspec.Struct, frozen=True):
    """What only grows. Shapes: `name` ends in `_total`."""

    name: str
    help: str
    value: float


class Histogram(msgspec.Struct, frozen=True):
    """Shapes: `counts` has one more than `bounds`, for what is above the last; each counts what is in it alone."""

    name: str
    help: str
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


Number = Gauge | Counter | Histogram


def write_metrics(numbers: Sequence[Number]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(numbers))
    return generate_latest(registry)


class _Numbers(Collector):
    def __init__(self, numbers: Sequence[Number]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        for each in self._numbers:
            match each:
                case Gauge():
                    yield _gauge(each)
                case Counter():
                    yield CounterMetricFamily(each.name, each.help, value=each.value)
                case Histogram():
                    yield _histogram(each)


def _gauge(gauge: Gauge) -> Metric:
    if not gauge.label:
        return GaugeMetricFamily(gauge.name, gauge.help, value=gauge.values[""])
    family = GaugeMetricFamily(gauge.name, gauge.help, labels=[gauge.label])
    for label, value in gauge.values.items():
        family.add_metric([label], value)
    return family


def _histogram(histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(histogram.name, histogram.help)
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
    family.add_metric([], buckets, histogram.sum)
    return family
