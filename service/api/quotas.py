"""What a client's key may ask for in 24 hours: experiments, runs, bytes of clips. Other roles have no bounds."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from service.http.exchange import Request
from service.http.parsing import Problem
from service.storage.registry import Registry
from service.storage.retention import Retention, Usage

RETRY_S = 3600      # what was used a day ago is free again; a client need not ask more often


@dataclass(frozen=True)
class Quota:
    """0: no bound."""

    experiments: int = 0
    runs: int = 0
    gb: float = 0.0

    @staticmethod
    def read(text: str) -> dict[str, float]:
        """ "runs=1000,gb=50" as numbers. ValueError says what was expected."""
        found: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            name, equals, value = part.partition("=")
            if name not in Quota.__dataclass_fields__ or not equals:
                known = ", ".join(f"{each}=N" for each in Quota.__dataclass_fields__)
                raise ValueError(f"expected {known} with commas between them, got {part!r}")
            number = float(value) if name == "gb" else int(value)
            if not 0 <= number < 1e12:
                raise ValueError(f"{name}: expected a number from 0 on, got {value!r}")
            found[name] = number
        return found


class Quotas:
    """The bounds of every key: `usual`, or what `keys add --quota` said."""

    def __init__(self, registry: Registry, retention: Retention, usual: Quota) -> None:
        self._registry, self._retention, self._usual = registry, retention, usual
        self._spending = threading.Lock()
        self._arriving = Counter[str]()         # bytes of uploads, by key

    @contextmanager
    def spending(self, request: Request, *, experiments: int, runs: int) -> Iterator[None]:
        """What is asked for is stored inside, and counts for whoever asks at the same time. Raises as `uploading`."""
        own = self._bounds_of(request)
        with nullcontext() if own is None else self._spending:
            self._check(request, own, experiments, runs, 0)
            yield

    @contextmanager
    def uploading(self, request: Request) -> Iterator[None]:
        """A clip arrives inside, whose bytes count meanwhile. Raises Problem 429 naming the bound, its value, what was
        used and asked, and what changes it."""
        own, key = self._bounds_of(request), request.principal.key
        size = int(request.headers.get("content-length", "1"))
        with self._spending:
            self._check(request, own, 0, 0, size)
            self._arriving[key] += size
        try:
            yield
        finally:
            with self._spending:
                self._arriving[key] -= size

    def _bounds_of(self, request: Request) -> dict[str, Any] | None:
        """What `keys add --quota` said of the request's key; None where nothing bounds it."""
        key = request.principal.key
        if request.principal.role != "client" or not key:
            return None
        own: dict[str, Any] = self._registry.quota(key)
        return own if any({**vars(self._usual), **own}.values()) else None

    def _check(self, request: Request, own: dict[str, Any] | None, experiments: int, runs: int, size: int) -> None:
        if own is None:
            return
        quota = Quota(**{**vars(self._usual), **own})
        used: Usage = self._retention.used(request.principal.key)
        arriving = self._arriving[request.principal.key]
        for name, bound, before, asked, unit in (
                ("experiments", quota.experiments, used.experiments, experiments, "experiments"),
                ("runs", quota.runs, used.runs, runs, "runs"),
                ("gb", quota.gb, (used.bytes + arriving) / 1e9, size / 1e9, "GB of clips")):
            if bound and asked and before + asked > bound:
                whose = f"keys add --quota {name}=…" if name in own else f"quota_{name}, or keys add --quota {name}=…"
                raise Problem(429, "quota", f"quota_{name}: this key may have {bound:g} {unit} in 24 hours; it has had "
                              f"{before:.10g}, and {asked:.10g} more were asked for. An admin changes it: {whose}",
                              headers={"Retry-After": str(RETRY_S)})
