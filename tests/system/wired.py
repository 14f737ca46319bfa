"""Both services as processes, with a fault proxy on each way between them, and a client that writes down what it sees.

    client ── front ──► orchestrator ── outward[n] ──► worker n
                              ▲──────── inward[n] ───────┘

Workers run quick_codec.py in place of a codec. All processes bear a mark in their environment, by which those that are
left over in the end are found.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployment import PATIENCE_S, QUICK_WORKER, ROOT, Program, until_true, wait_until
from proxy import FaultProxy

from deployment_check.history import History
from deployment_check.traffic import Exercise
from deployment_check.verdict import ENDED, Verdict, verdict_of
from service.processes.process_tags import tagged

PROCESS_TAG = "NVC_TEST_MARK"
# What proxies know requests by.
DISPATCH, RESULT, UPLOAD = b"POST /experiment HTTP", b"POST /experiment_result HTTP", b"PUT /artifacts/"


class Wired:
    """See above. Use it in a with statement; `verdict` ends it. Short leases, but ten heartbeats may be late."""

    def __init__(self, folder: Path, workers: int = 1, *, slots: int = 1, lease_s: float = 2.0,
                 heartbeat_s: float = 0.1, worker_flags: tuple[str, ...] = (), script: str = "",
                 environment: dict[str, str] | None = None) -> None:
        """`script`: a program of this folder in place of the orchestrator's."""
        self.folder, self.gate, self.lease_s = folder, folder / "gate", lease_s
        self.history = History(folder / "history.jsonl")
        self.tag = uuid.uuid4().hex
        marks = {PROCESS_TAG: self.tag, "NVC_TEST_STARTS": str(folder / "starts"), "NVC_TEST_GATE": str(self.gate)}
        self.orchestrator = Program(
            "orchestrator", folder / "orchestrator", "--lease-s", str(lease_s), "--heartbeat-s", str(heartbeat_s),
            environment={**marks, **(environment or {})}, script=ROOT / "tests" / "system" / script if script else None)
        self.front = FaultProxy(self.orchestrator.url)
        self.inward = [FaultProxy(self.orchestrator.url) for _ in range(workers)]
        self.outward = [FaultProxy() for _ in range(workers)]
        self.workers: list[Program] = []
        self.proxies = [self.front, *self.inward, *self.outward]
        try:
            for number, (inward, outward) in enumerate(zip(self.inward, self.outward, strict=True), start=1):
                worker = Program("worker", folder / f"w{number}", "--orchestrator", inward.url, "--url", outward.url,
                                 "--name", f"w{number}", "--slots", str(slots), "--warm", "", *worker_flags,
                                 script=QUICK_WORKER, environment=marks)
                outward.target = worker.url
                self.workers.append(worker)
        except BaseException:
            self.__exit__()     # nobody else will end what has been started
            raise
        self.client = Exercise(self.front.url, self.history, patience_s=PATIENCE_S, read_s=3.0)
        self.names: list[str] = []

    def __enter__(self) -> Wired:
        return self

    def __exit__(self, *error: object) -> None:
        for program in [*self.workers, self.orchestrator]:
            program.end()
        for proxy in self.proxies:
            proxy.close()

    # --- what tests do

    def submit(self, script: str = "plain", **more: Any) -> str:
        """Submit an experiment of the quick codec; its id."""
        name = self.client.submit(document_of(script, **more))
        assert name is not None
        self.names.append(name)
        return name

    def wait(self, name: str, what: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The status document, once it is as wanted."""
        found: dict[str, Any] = {}

        def look() -> Any:
            found.clear()
            found.update(self.orchestrator.get(f"/experiment/{name}/status"))
            return what(found)

        wait_until(look, f"what {name} waits for")
        return found

    def wait_phase(self, name: str, phase: str) -> Program:
        """Until its codec process has said that it is there; the worker that has it."""
        found = self.wait(name, lambda document: (document.get("progress") or {}).get("phase") == phase)
        return self.workers[int(found["attempts"][-1]["worker"][1:]) - 1]

    def wait_end(self, name: str) -> dict[str, Any]:
        return self.wait(name, lambda document: document["status"] in ENDED)

    def starts(self) -> list[tuple[str, int]]:
        """(run, attempt) of every start of a codec, in order."""
        path = self.folder / "starts"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(run, int(attempt)) for run, attempt in rows]

    # --- what is made of it

    def verdict(self) -> Verdict:
        """Let everything end, stop the services, and judge what was seen."""
        for proxy in self.proxies:
            proxy.heal()
        self.client.wait_until_ended(self.names)
        self.client.look_at_all(self.names)
        for name in self.names[:5]:
            self.client.check_artifacts(name)
        for program in [*self.workers, self.orchestrator]:
            program.terminate()
        for run, attempt in self.starts():
            self.history.note("started", run=run, attempt=attempt)
        self.history.note("orphans", pids=self.left_over(5.0))
        return verdict_of(self.history)

    def left_over(self, patience_s: float, besides: Program | None = None) -> list[int]:
        """Processes of these services that are still there after so long, but for one service that may be."""
        tag, own = f"{PROCESS_TAG}={self.tag}".encode(), besides.process.pid if besides else 0
        until_true(lambda: set(tagged(tag)) <= {own}, patience_s)
        return [pid for pid in tagged(tag) if pid != own]


def document_of(script: str, **more: Any) -> dict[str, Any]:
    """A request for the quick codec."""
    return {"codec": "quick", "model": script, "clip": "carphone", "timeout_s": 120, **more}


def outcomes(document: dict[str, Any]) -> list[str]:
    """How the attempts of an experiment ended."""
    return [attempt["outcome"] for attempt in document["attempts"]]
