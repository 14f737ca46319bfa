"""The worker: runs codecs for an orchestrator, or alone.

    python worker.py [--host H] [--port 8080] [--state DIR] --orchestrator URL [--name N] [--slots 1] [--threads N]
                     [--device auto] [--codec NAME=MODULE:FACTORY]… [--engine ray [--ray-address auto]]

This file has the settings, the endpoints and `main`. The work is done in service/runs/ (a run from its dispatch to its
delivered result) and service/processes/ (the codec process of each slot). docs/architecture.md follows one experiment
through all of them.

Settings are the table below; each row is a flag (`--heartbeat-s`) and an environment variable (`NVC_HEARTBEAT_S`).
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    sys.exit("worker.py: Python 3.11 or newer is needed")


import hashlib
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.http.authentication import Authenticator, Key, check_exposure, is_loopback, new_key
from service.http.client import Client
from service.http.exchange import Request, Response, file_response
from service.http.listening import ServerSettings, client_certificate
from service.http.parsing import Problem
from service.http.routes import JSON, Routes
from service.http.server import Server
from service.jobs.states import timestamp
from service.processes.memory import automatic_limit_mb
from service.processes.supervision import ProcessSpec
from service.ray.cluster import Cluster, driver_program, missing
from service.runs import openapi
from service.runs.assigned_runs import RETRY_AFTER, AssignedRuns
from service.runs.assignment import RUN_NAME, Dispatch, read_dispatch
from service.runs.attempts import Attempt, AttemptContext, LocalResults, ResultStore, cut_short, lock_state
from service.runs.clip_cache import ClipCache
from service.runs.orchestrator_link import Link
from service.runs.outbox import Outbox
from service.runs.outcome import Outcome, handed_back
from service.runs.slot_pool import SlotPool
from service.runtime.cloudwatch import Reporter
from service.runtime.logs import Log
from service.runtime.prometheus import Metrics
from service.runtime.settings import SettingsError, load, row
from service.runtime.systemd import Notifier, Signals, Watchdog, listen_sockets
from service.runtime.version import VERSION
from service.s3 import Bucket, S3Error


@dataclass(frozen=True)
class WorkerSettings(ServerSettings):
    """Every limit and default of a worker that is not of the HTTP layer."""

    port: int = row(8080, "", "port to listen on; 0 picks a free one and prints it", low=0, high=65535)
    state: Path = row(Path("state/worker"), "", "folder of clips, runs and results; one worker each")
    orchestrator: str = row("", "", "URL of the orchestrator to work for; none: alone")
    name: str = row("", "", "name among workers; none: host name and port")
    url: str = row("", "", "address at which the orchestrator reaches this worker; none: the one listened on")
    slots: int = row(1, "runs", "at once; each keeps a codec process with its own weights in memory", low=1, high=256)
    engine: str = row("local", "", "where codec processes are: here, or on the nodes of a Ray cluster, which then says "
                      "how many slots there are", choices=("local", "ray"))
    ray_address: str = row("auto", "", "of the Ray cluster, host:port; auto: the one that this host is a node of")
    threads: int = row(0, "threads", "of computation in each slot; 0: the machine's cores, shared by the slots", low=0)
    device: str = row("auto", "", "device of runs that ask for auto", choices=("auto", "cpu", "cuda"))
    codec: str = row("", "", "more codecs, NAME=MODULE:FACTORY; the flag may be repeated, the variable has commas")
    warm: str = row("nvc", "", "codecs made ready at the start, with commas; others load when first used")
    warm_s: float = row(300.0, "s", "until they are; compiling all kernels on a slow machine takes a minute", low=1)
    codec_memory_mb: int = row(0, "MiB", "memory of a codec process; 0: its share of four fifths of the machine's",
                               low=0)
    drain_s: float = row(60.0, "s", "to let runs finish at SIGTERM; those that do not are handed back", low=0)
    answer_s: float = row(30.0, "s", "for the orchestrator to answer an end, plus an upload's size at 10 MiB/s; then "
                          "it is sent again", low=0.1)
    artifacts: str = row("", "", "s3://bucket/prefix where the orchestrator keeps clips and artifacts, to be read and "
                         "written there; empty: through the orchestrator")
    clip_cache_mb: int = row(10_240, "MiB", "of fetched clips; those unused for longest go first", low=1)
    keep_results: int = row(100, "runs", "whose results are kept here when no orchestrator takes them", low=1)
    log_level: str = row("info", "", "least level that is logged", choices=("debug", "info", "warning", "error"))
    emf_namespace: str = row("", "", "CloudWatch namespace; when given, metrics are logged as EMF lines too")
    key: str | None = row(None, "", "key shown to the orchestrator (role worker)", secret=True)
    accept_key: str | None = row(None, "", "key that callers of this worker must show", secret=True)
    ca: Path | None = row(None, "", "CA certificates (PEM) that the orchestrator's certificate is checked against")


class Worker:
    """The worker's parts, and what its endpoints do."""

    def __init__(self, config: WorkerSettings, log: Log) -> None:
        """Raises OSError when the state folder cannot be used, SettingsError for settings that do not go together."""
        if config.orchestrator and "://" not in config.orchestrator:
            config = replace(config, orchestrator=f"http://{config.orchestrator}")
        self.config = config
        self.log = log
        self.certificate = client_certificate(config)
        self.boot_id = uuid.uuid4().hex
        self.began = time.monotonic()
        self.threads = config.threads or (
            1 if config.engine == "ray" else max(1, len(os.sched_getaffinity(0)) // config.slots))
        self._state_lock = lock_state(config.state)
        self._dispatch_key = ""     # that the orchestrator shows, where callers need one

        warm, codecs = (tuple(part for part in given.split(",") if part) for given in (config.warm, config.codec))
        memory_mb = config.codec_memory_mb or automatic_limit_mb(config.slots)
        spec = ProcessSpec(warm, codecs, self.threads, memory_mb, config.warm_s)
        self.cluster: Cluster | None = None
        if config.engine == "ray":
            if reason := missing():
                raise SettingsError(reason)
            gpus = int(config.device == "cuda")
            program = driver_program(config.ray_address, self.threads, gpus)
            spec = replace(spec, program=program, memory_mb=config.codec_memory_mb)
            self.cluster = Cluster(config.ray_address, self.threads, gpus, self._cluster_changed)
        self.slots = SlotPool(spec, 0 if self.cluster else config.slots, self._slot_changed, log.warning)
        self.link = Link(config.orchestrator.rstrip("/"), self._client, self.registration,
                         lambda run, attempt: self.assigned_runs.fence(run, attempt), log.info,
                         config.answer_s, Bucket(config.artifacts) if config.artifacts else None)
        self.outbox = Outbox(config.state / "outbox", self.link.deliver, log.info)
        self.link.when_heard(self.outbox.retry_now)
        self.local_results = LocalResults(config.state / "kept", config.keep_results)
        clips = ClipCache(config.state / "clips", config.clip_cache_mb << 20)
        self.context = AttemptContext(config.state / "runs", clips, self.threads, self.link.download,
                                      self._result_store, self._progress_changed, self._over)
        for message, folder in cut_short(self.context.runs):
            log.warning("attempt-cut-short", run=message["run"], attempt=message["attempt"])
            (self.outbox if message["callback"] else self.local_results).put(message, folder)
        self.assigned_runs = AssignedRuns(self.slots, self.context, self.local_results, self._about, log)
        self.assigned_runs.remember(self.outbox.waiting())

        self.metrics = Metrics()
        self._make_metrics()
        self.reporter = Reporter(self.metrics, log, "worker")
        self.routes = self._routes()
        sockets = listen_sockets()
        self.server = Server(self.routes, config, log=log, metrics=self.metrics,
                             authenticator=self._authenticator(sockets), sockets=sockets)

    # --- life ---

    def start(self) -> None:
        """Listen, warm the slots, deliver what is left, register."""
        self.server.start()
        self.slots.start()
        if self.cluster:
            self.cluster.start()
        self.outbox.start()
        self.reporter.start()
        self.link.start()

    def stop(self, at_once: threading.Event, extend: Any = lambda seconds: None) -> None:
        """Take no more work, let runs finish for ``drain_s`` or until ``at_once``, hand back the others, deliver,
        end."""
        self.assigned_runs.draining = True
        self.server.drain()
        self.link.beat()
        self.log.info("draining", running=len(self.assigned_runs.unfinished()))
        until = time.monotonic() + self.config.drain_s
        while self.assigned_runs.unfinished() and not at_once.is_set() and time.monotonic() < until:
            extend(10.0)  # systemd must not lose patience before drain_s
            with self.assigned_runs.idle:
                self.assigned_runs.idle.wait(0.2)  # wakes when a run ends; `at_once` is set by a signal
        if self.cluster:
            self.cluster.close()
        self.slots.close()
        self.outbox.flush(5.0 if self.link.registered.is_set() else 0.0)
        self.link.close()
        self.outbox.close(timeout_s=1.0)
        self.server.stop(grace_s=2.0)
        self.reporter.stop()
        self.log.info("stopped", undelivered=len(self.outbox))
        os.close(self._state_lock)

    def reload_certificates(self) -> None:
        """Read the certificate files again; those that were read last go on where they cannot be used."""
        try:
            self.server.reload_tls()
            self.log.info("certificates-reloaded")
        except SettingsError as error:
            self.log.error("reload-failed", error=error)

    def alive(self) -> None:
        """For the watchdog: raises when a part of the worker has died or is stuck."""
        self.assigned_runs.alive()
        dead = [slot.index for slot in self.slots if not slot.alive]
        if dead or not self.link.alive():
            raise RuntimeError(f"dead threads: slots {dead}, link alive: {self.link.alive()}")

    @property
    def name(self) -> str:
        return self.config.name or f"{socket.gethostname()}-{self.server.address[1]}"

    # --- what others see ---

    def why_not_ready(self) -> str:
        """"" when an experiment would start at once if a slot is free."""
        if self.assigned_runs.draining:
            return "the worker is draining"
        if self.slots.trouble or not len(self.slots):
            return self.slots.trouble or "the Ray cluster has no room for a slot yet"
        broken = [slot for slot in self.slots if slot.state == "failed"]
        if broken:
            return broken[0].reason
        if not all(slot.about for slot in self.slots):
            return "codecs are being made ready"
        return ""

    def registration(self) -> dict[str, Any]:
        """The document of POST /workers."""
        about = self._about()
        running = [{"run": attempt.dispatch.run, "attempt": attempt.dispatch.attempt, **attempt.progress}
                   for attempt in self.assigned_runs.unfinished() if attempt.dispatch.callback]
        listed = {(entry["run"], entry["attempt"]) for entry in running}
        running += [{"run": entry.key[0], "attempt": entry.key[1], "phase": "deliver", "fraction": 1.0,
                     "frame": 0, "frames": None, "fps": None}
                    for entry in self.outbox.waiting() if entry.key not in listed]
        return {
            "name": self.name,
            "url": self.config.url or self.server.url,
            # A slot whose codec process does not come up is none: nothing should be sent there until it has.
            "slots": sum(slot.state != "failed" and not slot.reason for slot in self.slots) if about else 0,
            "running": running,
            "device": about.get("device", "cpu"),
            "threads": self.threads,
            "codecs": about.get("known", []),
            "segmented": about.get("segmented", []),
            "models": about.get("codecs", {}),
            "version": VERSION,
            "draining": self.assigned_runs.draining,
            "boot_id": self.boot_id,
            "dispatch_key": self._dispatch_key,
            # What an earlier version has left to deliver has no secret: until it is delivered, none is asked for.
            "attempt_secrets": all(entry.message.get("secret") for entry in self.outbox.waiting())
            and all(attempt.dispatch.secret or not attempt.dispatch.callback
                    for attempt in self.assigned_runs.unfinished()),
        }

    def describe(self, attempt: Attempt) -> dict[str, Any]:
        dispatch = attempt.dispatch
        ended = None if attempt.ended_at is None else timestamp(attempt.ended_at)
        return {"experiment_id": dispatch.run, "run": dispatch.run, "attempt": dispatch.attempt,
                "status": attempt.state, "state": attempt.state, **attempt.progress, "error": attempt.error,
                "accepted": timestamp(attempt.accepted), "ended": ended}

    # --- endpoints ---

    def _routes(self) -> Routes:
        routes = Routes()
        read, write = {"read", "client", "worker"}, {"client", "worker"}
        routes.add("GET", "/livez", lambda request: Response(200, {"status": "alive"}), always=True)
        routes.add("GET", "/readyz", self.get_readyz, query={"verbose"})
        routes.add("GET", "/health", self.get_health)
        routes.add("GET", "/status", self.get_status, roles=read)
        routes.add("GET", "/metrics", self.get_metrics, roles=read, produces="text/plain")
        routes.add("GET", "/openapi.json", self.get_openapi)
        routes.add("POST", "/experiment", self.post_experiment, body=JSON, roles=write)
        routes.add("GET", "/experiment/{run}", self.get_experiment, roles=read)
        routes.add("POST", "/experiment/{run}/cancel", self.post_cancel, body=JSON, roles=write)
        routes.add("GET", "/experiment/{run}/artifacts/{name}", self.get_artifact, roles=read, produces="*/*")
        return routes

    def get_readyz(self, request: Request) -> Response:
        if why := self.why_not_ready():
            raise Problem(503, "not-ready", why, headers=RETRY_AFTER)
        checks = {f"slot {slot.index}": slot.state for slot in self.slots}
        return Response(200, {"status": "ready"} | ({"checks": checks} if "verbose" in request.query else {}))

    def get_health(self, request: Request) -> Response:
        why = self.why_not_ready()
        return Response(200, {
            "status": "ok" if not why else "draining" if self.assigned_runs.draining else "not ready", "reason": why,
            "version": VERSION, "uptime_s": round(time.monotonic() - self.began, 3), "slots": len(self.slots),
            "running": len(self.assigned_runs.unfinished()), "outbox": len(self.outbox),
        })

    def get_status(self, request: Request) -> Response:
        about = self._about()
        slots = []
        for slot in self.slots:
            task = slot.task
            slots.append({"slot": slot.index, "state": slot.state, "reason": slot.reason, "codec_process": slot.pid,
                          "restarts": slot.restarts,
                          "run": self.describe(task) if isinstance(task, Attempt) else None})
        return Response(200, {
            "name": self.name, "boot_id": self.boot_id, "version": VERSION, "draining": self.assigned_runs.draining,
            "orchestrator": self.link.home or None, "registered": self.link.registered.is_set(),
            "orchestrator_trouble": self.link.trouble, "slots": slots,
            "outbox": [{"run": entry.key[0], "attempt": entry.key[1], "state": entry.message["state"],
                        "tries": entry.tries, "trouble": entry.trouble} for entry in self.outbox.waiting()],
            "stale_results": self.link.stale, "device": about.get("device"), "threads": self.threads,
            "codecs": about.get("known", []), "models": about.get("codecs", {}),
        })

    def get_metrics(self, request: Request) -> Response:
        return Response(200, self.metrics.render(), {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def get_openapi(self, request: Request) -> Response:
        return Response(200, openapi.describe(self.routes), etag=True)

    def post_experiment(self, request: Request) -> Response:
        dispatch = read_dispatch(request.document(), request.trace.traceparent, self.config.device)
        attempt = self.assigned_runs.accept(dispatch)
        return Response(202, self.describe(attempt), {"Location": f"/experiment/{dispatch.run}"})

    def get_experiment(self, request: Request) -> Response:
        run = request.params["run"]
        attempt = self.assigned_runs.newest(run)
        message = None if attempt and attempt.ended_at is None else self._kept_message(run)
        if attempt is None and message is None:
            raise Problem(404, "unknown-run", f"run {run} is not known here")
        document = self.describe(attempt) if attempt else {
            "experiment_id": run, "run": run, "attempt": 1, "status": message["state"], "state": message["state"],
            "error": message["error"]} if message else {}
        return Response(200, {**document, **((message or {}).get("result") or {})})

    def post_cancel(self, request: Request) -> Response:
        run = request.params["run"]
        wanted = request.document().get("attempt")
        attempt = self.assigned_runs.newest(run)
        if attempt is None:
            raise Problem(404, "unknown-run", f"run {run} is not known here")
        if attempt.ended_at is not None:
            raise Problem(409, "already-ended", f"run {run} is {attempt.state}")
        if wanted is not None and wanted != attempt.dispatch.attempt:
            raise Problem(409, "stale-attempt", f"attempt: {wanted} is not here, {attempt.dispatch.attempt} is",
                          field="attempt")
        self.assigned_runs.end(attempt, Outcome("cancelled"))
        return Response(202, self.describe(attempt))

    def get_artifact(self, request: Request) -> Response:
        run, name = request.params["run"], request.params["name"]
        folder, message = self.local_results.folder(run) if RUN_NAME.fullmatch(run) else None, self._kept_message(run)
        about = ((message or {}).get("artifacts") or {}).get(name)
        if folder is None or about is None:
            raise Problem(404, "unknown-artifact", f"run {run} has no artifact {name} here")
        return file_response(folder / name, about["sha256"], name=name)

    # --- called by attempts, slots and the link ---

    def _result_store(self, dispatch: Dispatch) -> ResultStore:
        return self.outbox if dispatch.callback else self.local_results

    def _progress_changed(self, attempt: Attempt) -> None:
        self.link.progress(attempt)

    def _over(self, attempt: Attempt) -> None:
        self.link.forget_progress(attempt)
        seconds = (attempt.ended_at or time.time()) - attempt.accepted
        self.log.info("run-ended", run=attempt.dispatch.run, attempt=attempt.dispatch.attempt, state=attempt.state,
                      error=attempt.error, seconds=round(seconds, 3), trace_id=attempt.dispatch.trace_id)
        self._ended.inc(state=attempt.state)
        self._seconds.observe(seconds, codec=attempt.dispatch.experiment["codec"])
        with self.assigned_runs.idle:
            self.assigned_runs.idle.notify_all()

    def _slot_changed(self) -> None:
        self.link.beat()

    def _kept_message(self, run: str) -> dict[str, Any] | None:
        return self.local_results.message(run) if RUN_NAME.fullmatch(run) else None

    def _cluster_changed(self, slots: int, trouble: str) -> None:
        self.log.info("cluster-changed", slots=slots, trouble=trouble)
        self.slots.resize(slots, trouble)
        if trouble:
            for attempt in self.assigned_runs.unfinished():
                self.assigned_runs.end(attempt, handed_back(trouble))

    def _about(self) -> dict[str, Any]:
        return next((slot.about for slot in self.slots if slot.about), {})

    def _client(self, address: str) -> Client:
        verify: bool | str = str(self.config.ca) if self.config.ca else True
        key = self.config.key if address == self.link.home else None    # a dispatch may name any callback
        return Client(address, key=key, retries=0, verify=verify, cert=self.certificate)

    def _authenticator(self, sockets: Sequence[socket.socket]) -> Authenticator | None:
        """Callers show `accept_key`, or the key that this worker gives to its orchestrator with each registration. On
        loopback, and where neither is asked for, everybody of this machine may call."""
        config = self.config
        check_exposure(config.host, has_keys=bool(config.accept_key or config.orchestrator),
                       insecure_bind=config.insecure_bind, sockets=sockets)
        addresses = [str(sock.getsockname()[0]) for sock in sockets] or [config.host]
        exposed = not config.insecure_bind and not all(map(is_loopback, addresses))
        if not config.accept_key and not (config.orchestrator and exposed):
            return None
        keys = {}
        if config.accept_key:
            name = config.accept_key.removeprefix("nck_").partition("_")[0]
            keys[name] = Key(name, hashlib.sha256(config.accept_key.encode()).hexdigest(), "admin")
        self._dispatch_key, made = new_key("client")
        keys[made.id] = made
        return Authenticator(lambda: keys)

    def _make_metrics(self) -> None:
        self._ended = self.metrics.counter("nvc_worker_runs_total", "Attempts ended here.", ("state",))
        self._seconds = self.metrics.histogram("nvc_worker_run_seconds", "From accepting an attempt to its end.",
                                               ("codec",), (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 3600))
        for name, help_text, value in (
            ("nvc_worker_running", "Attempts accepted and not ended.", lambda: len(self.assigned_runs.unfinished())),
            ("nvc_worker_outbox", "Ends not yet acknowledged.", lambda: len(self.outbox)),
            ("nvc_worker_stale_results", "Ends refused because a later attempt was granted.", lambda: self.link.stale),
            ("nvc_worker_ready", "1 when an experiment would start at once.", lambda: int(not self.why_not_ready())),
            ("nvc_worker_registered", "1 while the orchestrator answers.", lambda: int(self.link.registered.is_set())),
            ("nvc_state_free_bytes", "Room left where the state is.",
             lambda: shutil.disk_usage(self.config.state).free),
            ("nvc_worker_codec_restarts", "Codec processes replaced.", lambda: sum(s.restarts for s in self.slots)),
        ):
            self.metrics.gauge(name, help_text).track(value)


def join_repeated(argv: Sequence[str]) -> list[str]:
    """The arguments with ``--codec A --codec B`` as ``--codec A,B``: a row of a settings table has one value."""
    others, codecs = [], []
    pending = iter(argv)
    for argument in pending:
        if argument == "--codec":
            codecs.append(next(pending, ""))
        elif argument.startswith("--codec="):
            codecs.append(argument.removeprefix("--codec="))
        else:
            others.append(argument)
    return others + (["--codec", ",".join(codecs)] if codecs else [])


def main(argv: Sequence[str] | None = None) -> int:
    config = load(WorkerSettings, join_repeated(sys.argv[1:] if argv is None else argv), prog="worker.py",
                          description="Runs codecs for an orchestrator, or alone.")
    log = Log(service="worker", level=config.log_level, emf=config.emf_namespace or None)
    log.adopt_libraries()
    signals = Signals()
    try:
        worker = Worker(config, log)
        worker.start()
    except (OSError, SettingsError, S3Error) as error:
        print(f"worker.py: {error}", file=sys.stderr)
        return 1

    print(f"worker listening on {worker.server.url}", flush=True)
    notifier = Notifier()
    watchdog = Watchdog(notifier, {"http": worker.server.self_check, "parts": worker.alive}, log)
    watchdog.start()
    notifier.ready(f"listening on {worker.server.url}")
    signals.wait(reload=worker.reload_certificates)
    notifier.stopping("draining")
    worker.stop(signals.at_once, notifier.extend)
    watchdog.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
