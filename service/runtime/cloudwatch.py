"""All metrics as CloudWatch lines: what /metrics shows, once a minute in the log, for hosts that nobody scrapes.

The log's lines are read by the CloudWatch agent (Embedded Metric Format); names are those of /metrics.  Each metric is
given in total, under the dimension `service`, and metrics of one label also by its values, as nvc_runs by `state`.
Counters are given as what came to them since the last line, histograms as `_count` and `_sum` of that.
"""

from __future__ import annotations

import threading
from collections import defaultdict

from service.runtime.logs import Log
from service.runtime.prometheus import Metrics

EVERY_S = 60.0  # CloudWatch keeps minutes


class Reporter:
    """Writes the lines, where the log has a namespace for them."""

    def __init__(self, metrics: Metrics, log: Log, service: str) -> None:
        self._metrics, self._log, self._service = metrics, log, service
        self._before: dict[tuple[str, tuple[str, ...]], float] = {}
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin a thread; does nothing where no namespace was given."""
        if self._log.reports:
            threading.Thread(target=self._run, name="cloudwatch", daemon=True).start()

    def stop(self) -> None:
        """End the thread, with a last line."""
        if self._log.reports and not self._stop.is_set():
            self._stop.set()
            self.report()

    def report(self) -> None:
        """One line in total, and one for each value of a label."""
        total: dict[str, float] = defaultdict(float)
        parts: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        for metric in self._metrics.all():
            for name, key, value in metric.readings():
                if metric.rises:
                    value -= self._before.get((name, key), 0.0)
                    self._before[name, key] = self._before.get((name, key), 0.0) + value
                total[name] += value
                if len(metric.labels) == 1:
                    parts[metric.labels[0], key[0]][name] = value
        self._log.emf({name: (value, unit(name)) for name, value in total.items()}, service=self._service)
        for (label, said), values in parts.items():
            self._log.emf({name: (value, unit(name)) for name, value in values.items()},
                          service=self._service, **{label: said})

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self.report()
            except Exception as error:  # a gauge that cannot be read now must not end the lines of later minutes
                self._log.error("report-failed", error=error)


def unit(name: str) -> str:
    """CloudWatch's name of the unit that a metric's name ends in."""
    return "Bytes" if name.endswith("_bytes") else "Seconds" if name.endswith("_seconds_sum") else "Count"
