"""Counters, gauges and histograms, and the text that Prometheus reads.

    metrics = Metrics()
    accepted = metrics.counter("nvc_experiments_accepted_total", "Experiments accepted.", ("codec",))
    accepted.inc(codec="nvc")
    metrics.gauge("nvc_queued", "Runs queued.").track(store.count_queued)     # called at each scrape
    metrics.render()                               # text format 0.0.4
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Metric:
    """Values by label values, and how they are written."""

    kind = "untyped"
    rises = True  # what counts is by how much, since the last look

    def __init__(self, name: str, help: str, labels: Sequence[str]) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def _key(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        if len(labels) != len(self.labels):
            raise ValueError(f"metric {self.name}: labels {sorted(labels)} given, {list(self.labels)} expected")
        try:
            return tuple(str(labels[name]) for name in self.labels)
        except KeyError as missing:
            raise ValueError(f"metric {self.name}: label {missing} is missing") from None

    def _add(self, amount: float, labels: Mapping[str, str]) -> None:
        key = self._key(labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + amount

    def readings(self) -> list[tuple[str, tuple[str, ...], float]]:
        """(name, label values, value) now; of a histogram its _count and _sum."""
        with self._lock:
            return [(self.name, key, value) for key, value in self._values.items()]

    def samples(self) -> list[str]:
        """The lines of this metric, without HELP and TYPE."""
        return [_sample(name, self.labels, key, value) for name, key, value in self.readings()]


class Counter(_Metric):
    """Only goes up.  `inc(2, codec="nvc")`."""

    kind = "counter"

    def inc(self, amount: float = 1.0, **labels: str) -> None:
        """Add; ValueError for a negative amount or wrong labels."""
        if amount < 0:
            raise ValueError(f"counter {self.name}: {amount} would lower it")
        self._add(amount, labels)


class Gauge(_Metric):
    """A value now.  `set(3, worker="w1")`, or `track(function)` to ask at each scrape."""

    kind = "gauge"
    rises = False
    _function: Callable[[], float | Iterable[tuple[Mapping[str, str], float]]] | None = None

    def set(self, value: float, **labels: str) -> None:
        """Replace the value."""
        key = self._key(labels)
        with self._lock:
            self._values[key] = float(value)

    def inc(self, amount: float = 1.0, **labels: str) -> None:
        """Add; `amount` may be negative."""
        self._add(amount, labels)

    def remove(self, **labels: str) -> None:
        """Forget a label set, as of a worker that is gone."""
        with self._lock:
            self._values.pop(self._key(labels), None)

    def track(self, function: Callable[[], float | Iterable[tuple[Mapping[str, str], float]]]) -> None:
        """`function` returns the value, or (labels, value) pairs."""
        self._function = function

    def readings(self) -> list[tuple[str, tuple[str, ...], float]]:
        """As of any metric; a tracked one is asked now."""
        if self._function is None:
            return super().readings()
        found = self._function()
        pairs = [({}, found)] if isinstance(found, int | float) else list(found)
        return [(self.name, self._key(labels), value) for labels, value in pairs]


class Histogram(_Metric):
    """Counts in cumulative buckets with sum and count.  `observe(0.012, route="/health")`; seconds."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        super().__init__(name, help, labels)
        self.buckets = tuple(sorted(float(b) for b in buckets))
        empty = [0] * (len(self.buckets) + 1)
        self._counts: dict[tuple[str, ...], list[int]] = {} if labels else {(): empty}

    def observe(self, value: float, **labels: str) -> None:
        """Count one value."""
        key = self._key(labels)
        place = next((i for i, bound in enumerate(self.buckets) if value <= bound), len(self.buckets))
        with self._lock:
            counts = self._counts.setdefault(key, [0] * (len(self.buckets) + 1))
            counts[place] += 1
            self._values[key] = self._values.get(key, 0.0) + value

    def readings(self) -> list[tuple[str, tuple[str, ...], float]]:
        """How many values, and their sum."""
        with self._lock:
            counts = [(f"{self.name}_count", key, float(sum(counts))) for key, counts in self._counts.items()]
            return counts + [(f"{self.name}_sum", key, self._values.get(key, 0.0)) for key in self._counts]

    def samples(self) -> list[str]:
        """Buckets (each counting all below it), sum and count."""
        with self._lock:
            state = [(key, list(counts), self._values[key]) for key, counts in self._counts.items()]
        lines = []
        for key, counts, total in state:
            running = 0
            for bound, count in zip((*self.buckets, math.inf), counts, strict=True):
                running += count
                lines.append(_sample(f"{self.name}_bucket", (*self.labels, "le"), (*key, _number(bound)), running))
            lines.append(_sample(f"{self.name}_sum", self.labels, key, total))
            lines.append(_sample(f"{self.name}_count", self.labels, key, running))
        return lines


_M = TypeVar("_M", bound=_Metric)


class Metrics:
    """A registry; asking again for a name of the same kind gives the same object, else ValueError."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}
        self._lock = threading.Lock()

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; its name ends in _total by convention."""
        return self._register(Counter(name, help, labels))

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge."""
        return self._register(Gauge(name, help, labels))

    def histogram(self, name: str, help: str, labels: Sequence[str] = (),
                  buckets: Sequence[float] = BUCKETS_S) -> Histogram:
        """A histogram; `buckets` are upper bounds, +Inf is added."""
        return self._register(Histogram(name, help, labels, buckets))

    def _register(self, metric: _M) -> _M:
        if not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", metric.name):
            raise ValueError(f"metric name {metric.name!r} is not letters, digits, _ and :")
        for label in metric.labels:
            if not re.fullmatch(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", label) or label == "le":
                raise ValueError(f"metric {metric.name}: {label!r} cannot be a label name")
        with self._lock:
            known = self._metrics.setdefault(metric.name, metric)
        if not isinstance(known, type(metric)) or known.labels != metric.labels:
            raise ValueError(f"metric {metric.name} exists as a {known.kind} with labels {list(known.labels)}")
        return known

    def all(self) -> list[_Metric]:
        """Every metric, in the order in which they were made."""
        with self._lock:
            return list(self._metrics.values())

    def render(self) -> str:
        """Prometheus text exposition format 0.0.4."""
        lines = []
        for metric in self.all():
            help_text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
            lines += [f"# HELP {metric.name} {help_text}", f"# TYPE {metric.name} {metric.kind}", *metric.samples()]
        return "\n".join(lines) + "\n"


def _sample(name: str, labels: Sequence[str], values: Sequence[str], number: float) -> str:
    if not labels:
        return f"{name} {_number(number)}"
    pairs = ",".join(f'{label}="{_escape(value)}"' for label, value in zip(labels, values, strict=True))
    return f"{name}{{{pairs}}} {_number(number)}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
