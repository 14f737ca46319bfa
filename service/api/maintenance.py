"""Maintenance of the orchestrator in one thread: keys in force, renewed certificates, removal of what is not kept, and
a look at what is."""

import threading
import time
from collections.abc import Sequence

from service.http.authentication import Authenticator, Key
from service.http.server import Server
from service.http.tokens import Tokens
from service.runtime.logs import Log
from service.runtime.settings import SettingsError
from service.storage.blobs import Blobs
from service.storage.registry import Registry
from service.storage.retention import Retention
from service.storage.scrubber import Scrubber
from service.storage.store import Store

KEYS_S = 1.0            # a key that was added or revoked is known to the service after this long
SWEEP_S = 3600.0        # between two removals of what is not kept
AT_A_TIME = 100         # experiments deleted before keys are read again
SHRINK_PAGES = 256      # of the database given back at a time: 1 MiB
SPARE_PAGES = 1024      # that it keeps for what comes


class Maintenance:
    """Keys in force, certificates to be read again, old experiments, bytes that nothing names."""

    def __init__(self, store: Store, registry: Registry, blobs: Blobs, log: Log, *, keep_days: float,
                 keep_unnamed_s: float, keep_gb: float = 0.0, scrub_mb_s: float = 0.0,
                 tokens: Tokens | None = None) -> None:
        """keep_days, keep_gb, keep_unnamed_s, scrub_mb_s: see the settings of these names. Raises StoreError."""
        self.store, self.registry, self.blobs = store, registry, blobs
        self.keep_days, self.keep_gb, self.keep_unnamed_s = keep_days, keep_gb, keep_unnamed_s
        self.retention = Retention(store)
        self.scrubber = Scrubber(blobs, scrub_mb_s * (1 << 20) * KEYS_S)
        self.log = log
        self.keys: dict[str, Key] = {}
        self.tokens = tokens
        self.has_keys = self._read_keys() or tokens is not None
        self.authenticator = Authenticator(lambda: self.keys, tokens=None if tokens is None else tokens.check)
        self._stopping = threading.Event()
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def start(self, server: Server) -> None:
        """Begin, for this server."""
        self._server = server
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def alive(self) -> None:
        """For the watchdog and /readyz: raises RuntimeError when its thread has ended (revoked keys would live on)."""
        if not self._thread.is_alive():
            raise RuntimeError("the maintenance thread has ended")

    def reload(self) -> None:
        """Read certificates and the keys of tokens again; those that were read last go on where they cannot be used."""
        try:
            if self._server is not None:
                self._server.reload_tls()
            if self.tokens is not None:
                self.tokens.reload()
            self.log.info("certificates-reloaded")
        except (SettingsError, OSError) as error:
            self.log.error("reload-failed", error=error)

    def sweep(self) -> bool:
        """Delete experiments older than `keep_days`, some at a time (keys are read in this thread too), then what is
        over `keep_gb`, then bytes that nothing names. Whether that was all. Raises StoreError, OSError."""
        if self.keep_days:
            old = self.store.ended_before(self.store.clock() - 86_400 * self.keep_days, limit=AT_A_TIME)
            self._delete(old, "keep_days")
            if len(old) == AT_A_TIME:
                return False
        if self.keep_gb and not self._make_smaller():
            return False
        self.registry.forget_old_clips(self.store.clock() - self.keep_unnamed_s)
        removed = self.blobs.sweep(self.registry.referenced, self.keep_unnamed_s)
        self._shrink()
        self.log.info("swept", removed=removed)
        return True

    def _shrink(self) -> None:
        """Give back what the database does not need, in steps between which others write."""
        left, before = self.store.shrink(SHRINK_PAGES), -1
        while left > SPARE_PAGES and left != before and not self._stopping.is_set():
            left, before = self.store.shrink(SHRINK_PAGES), left

    def _scrub(self) -> None:
        """Read a little of what is stored, and say which of it is damaged."""
        for sha256 in self.scrubber.step():
            self.log.error("blob-damaged", sha256=sha256, action="it is mended when the same bytes are uploaded again; "
                           "`orchestrator.py doctor` names what is of it")

    def _make_smaller(self) -> bool:
        """Remove reconstructions, and where those are not enough experiments, oldest first, some at a time, until what
        is stored is within `keep_gb`. Whether it is, or nothing is left that may go."""
        over = self.retention.named_bytes() - round(self.keep_gb * 1e9)
        if over <= 0:
            return True
        removed, size = self.retention.remove_reconstructions(over, AT_A_TIME)
        if removed:
            self.log.info("reconstructions-removed", removed=removed, bytes=size, why="keep_gb")
            return size >= over
        oldest = self.retention.oldest(1)
        self._delete(oldest, "keep_gb")
        return not oldest

    def _delete(self, experiments: Sequence[str], why: str) -> None:
        for experiment_id in experiments:
            runs = self.store.delete(experiment_id)
            self.log.info("experiment-deleted", experiment=experiment_id, runs=runs, why=why)

    def _read_keys(self) -> bool:
        """Take the keys in force into memory. Whether there has ever been one: the last key that is revoked must not
        open the service to everyone."""
        found = self.registry.list_keys()
        self.keys = {key["id"]: Key(key["id"], key["sha256"], key["role"], key["expires_s"])
                     for key in found if key["revoked_s"] is None}
        return bool(found)

    def _run(self) -> None:
        """The thread."""
        due = time.monotonic() + SWEEP_S
        while not self._stopping.wait(KEYS_S):
            try:
                if self._read_keys() and self._server is not None and self._server.authenticator is None:
                    self._server.authenticator = self.authenticator
                    self.log.info("keys-required")
                self._scrub()
                if time.monotonic() > due:
                    due = time.monotonic() + SWEEP_S    # also after a sweep that fails
                    due = due if self.sweep() else 0.0
            except Exception as error:  # whatever one round runs into, the next one is due: keys are revoked by it
                self.log.error("maintenance-failed", error=error)
