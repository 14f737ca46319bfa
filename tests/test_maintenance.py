"""The orchestrator's upkeep goes on whatever one round of it runs into, and says so when it does not."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest

from service.api import maintenance
from service.api.maintenance import Maintenance
from service.runtime.logs import Log
from service.storage.blobs import Blobs


class Registry:
    """Gives no keys, and fails the first time that it is asked while running."""

    def __init__(self) -> None:
        self.calls = 0
        self.asked_again = threading.Event()

    def list_keys(self) -> list[dict[str, Any]]:
        self.calls += 1
        if self.calls == 2:
            raise TypeError("a bug")
        if self.calls > 2:
            self.asked_again.set()
        return []


class Server:
    authenticator = None


def test_a_round_that_fails_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "KEYS_S", 0.01)
    registry, log = Registry(), io.StringIO()
    upkeep = Maintenance(None, registry, Blobs(tmp_path), Log(log),  # type: ignore[arg-type]
                         keep_days=0.0, keep_unnamed_s=60.0)
    with pytest.raises(RuntimeError, match="has ended"):
        upkeep.alive()
    upkeep.start(Server())  # type: ignore[arg-type]
    assert registry.asked_again.wait(10)
    upkeep.alive()
    upkeep.stop()
    assert "a bug" in log.getvalue()
