"""Wakes event streams and waiting clients when an experiment changes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ChangeNotifier:
    """Wakes waiters; what has changed they read from the store. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = {}

    @contextmanager
    def changes(self, experiment_id: str) -> Iterator[threading.Event]:
        """An event that is set at every change from now on. To miss none: clear it, then read, then wait."""
        changed = threading.Event()
        with self._lock:
            self._waiting.setdefault(experiment_id, set()).add(changed)
        try:
            yield changed
        finally:
            with self._lock:
                others = self._waiting[experiment_id]
                others.discard(changed)
                if not others:
                    del self._waiting[experiment_id]

    def notify(self, experiment_id: str) -> None:
        """The experiment has changed, and the store says so."""
        with self._lock:
            for changed in self._waiting.get(experiment_id, ()):
                changed.set()
