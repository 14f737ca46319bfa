"""Secrets of attempts: whoever holds an attempt's secret may report on it, and on nothing else.

An attempt's secret goes with its dispatch, and comes back with its progress, its artifacts and its result.  So a
worker's key alone, which many workers may share, completes nobody else's run.  Secrets are derived from a key of the
state's own, so that they outlive a restart and need no table.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path


class AttemptSecrets:
    """The secrets of all attempts under one state folder."""

    def __init__(self, folder: Path) -> None:
        """Makes the key at the first start. Raises OSError."""
        path = folder / "attempt-secrets.key"
        if not path.exists():
            part = path.with_suffix(".part")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(secrets.token_bytes(32))
                out.flush()
                os.fsync(out.fileno())
            part.rename(path)
        self._key = path.read_bytes()

    def of(self, run_id: str, attempt: int) -> str:
        """The attempt's secret, 64 hexadecimal digits."""
        return hmac.new(self._key, f"{run_id} {attempt}".encode(), hashlib.sha256).hexdigest()

    def match(self, run_id: str, attempt: int, secret: str) -> bool:
        """Whether this is the attempt's secret, in the same time for every wrong one."""
        return secret.isascii() and hmac.compare_digest(self.of(run_id, attempt), secret)    # takes only ASCII
