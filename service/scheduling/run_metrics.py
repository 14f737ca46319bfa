"""Metrics of runs: how many were accepted, dispatched and ended, and how long they waited."""

from collections.abc import Callable

from service.runtime.prometheus import Metrics
from service.storage.store import Store


class RunMetrics:
    """One attribute for each metric that is counted here; gauges are read from the store at each scrape."""

    def __init__(self, metrics: Metrics, store: Store, worker_states: Callable[[], list[str]]) -> None:
        """`worker_states`: each worker's state, in a word."""
        self.accepted = metrics.counter("nvc_runs_accepted_total", "Runs accepted.")
        self.ended = metrics.counter("nvc_runs_ended_total", "Runs ended, by state.", ("state",))
        self.dispatches = metrics.counter("nvc_dispatches_total", "Offers to workers, by their answer.",
                                           ("answer",))
        self.refused = metrics.counter("nvc_stale_results_total", "Results of earlier attempts, refused.")
        self.lease_ends = metrics.counter("nvc_leases_ended_total", "Attempts taken back from workers.", ("why",))
        self.waited = metrics.histogram("nvc_queue_wait_seconds", "From joining the queue to a worker's slot.")
        self.offered = metrics.histogram("nvc_offer_seconds", "From sending an attempt to the worker's 202.")
        self.started = metrics.histogram("nvc_start_seconds", "From joining the queue to a worker having begun.")
        metrics.gauge("nvc_runs", "Runs by state.", ("state",)).track(
            lambda: [({"state": str(state)}, float(count)) for state, count in store.counts().items()])
        metrics.gauge("nvc_workers", "Workers by state.", ("state",)).track(
            lambda: _numbers(worker_states()))
        metrics.gauge("nvc_conservation_difference", "Runs accepted minus deleted and the sum of all states; 0.").track(
            lambda: _difference(store))


def _numbers(states: list[str]) -> list[tuple[dict[str, str], float]]:
    return [({"state": state}, float(states.count(state))) for state in sorted({*states, "free", "busy", "lost"})]


def _difference(store: Store) -> float:
    found = store.conservation(limit=0)
    return float(found.accepted - found.deleted - sum(found.counts.values()))
