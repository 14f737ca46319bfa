"""Whether a message about an attempt comes from who holds it."""

import threading

from service.jobs.states import TERMINAL
from service.scheduling.attempt_secrets import AttemptSecrets
from service.scheduling.placement import Placement
from service.storage.store import Store


class WrongSecret(Exception):
    """A message about an attempt by someone who does not hold it."""


class AttemptChecks:
    """Checks the secrets that workers show; one of an earlier version has none to show. `lock` guards `placement`."""

    def __init__(self, placement: Placement, lock: threading.Lock, store: Store, secrets: AttemptSecrets) -> None:
        self._placement, self._lock, self._store, self._secrets = placement, lock, store, secrets

    def secret(self, run_id: str, attempt: int, secret: str | None) -> None:
        """Raises WrongSecret unless this is the attempt's secret, UnknownExperiment."""
        if secret is not None:
            if not self._secrets.match(run_id, attempt, secret):
                raise WrongSecret(f"secret: not that of attempt {attempt} of {run_id[:100]}")
            return
        with self._lock:
            lease = self._placement.leases.get(run_id)
            holder = lease.worker if lease is not None and lease.attempt == attempt else None
        if holder is None:
            run = self._store.run(run_id)
            holder = run.worker if run.attempt == attempt and run.state not in TERMINAL else None
        with self._lock:
            worker = self._placement.workers.get(holder or "")
            if worker is not None and worker.attempt_secrets:
                raise WrongSecret(f"secret: the secret of attempt {attempt} of {run_id[:100]} was expected")

    def artifact(self, run_id: str, attempt: int, secret: str | None) -> None:
        """Raises WrongSecret unless an artifact comes with an attempt's secret; without one only while some worker here
        is of a version that has none to show."""
        if secret is not None:
            self.secret(run_id, attempt, secret)
            return
        with self._lock:
            workers = self._placement.workers.values()
            if workers and all(worker.attempt_secrets for worker in workers):
                raise WrongSecret("attempt: the header `Attempt: RUN NUMBER SECRET` was expected")
