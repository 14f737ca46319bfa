"""The orchestrator: accepts experiments, stores them, places their runs on workers, serves their results.

    python orchestrator.py [--host H] [--port 8081] [--state DIR] [--config FILE] [--show-config]
    python orchestrator.py keys add --role worker [--expires 90d] [--label WORDS] | list | revoke ID
    python orchestrator.py backup FOLDER | restore FOLDER | doctor [--state DIR]

This file has the settings, the endpoints and `main`. The work is done in service/: api/ answers requests, scheduling/
places runs, storage/ is the database, clips/ and results/ are what their names say. docs/architecture.md follows one
experiment through all of them.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    sys.exit("orchestrator.py: Python 3.11 or newer is needed")


import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.api import openapi
from service.api.experiment_views import ExperimentViews
from service.api.files import Files
from service.api.keys_command import keys_command
from service.api.maintenance import Maintenance
from service.api.page import Page
from service.api.problems import with_problem_responses
from service.api.quotas import Quota, Quotas
from service.api.results import BODY as BD_RATE_BODY
from service.api.results import Results
from service.api.state_command import COMMANDS as STATE_COMMANDS
from service.api.state_command import state_command
from service.api.submissions import Submissions
from service.api.workers import WorkerApi
from service.clips.catalogue import Catalogue
from service.http.authentication import check_exposure
from service.http.client import Client
from service.http.exchange import Request, Response
from service.http.fetching import Fetcher, parse_networks
from service.http.listening import ServerSettings, client_certificate
from service.http.parsing import Problem
from service.http.routes import JSON, Routes, json_body, upload
from service.http.server import Server
from service.http.tokens import ALGORITHMS, Tokens
from service.results.plots import Plots
from service.runtime.cloudwatch import Reporter
from service.runtime.logs import Log
from service.runtime.prometheus import METRICS_TYPE, Metrics
from service.runtime.settings import SettingsError, load, row
from service.runtime.systemd import Notifier, Signals, Watchdog, listen_sockets
from service.runtime.version import VERSION
from service.s3 import Bucket, S3Error
from service.scheduling.attempt_secrets import AttemptSecrets
from service.scheduling.scheduler import Scheduler
from service.storage import store as storage
from service.storage.blobs import Blobs
from service.storage.registry import Registry
from service.storage.store import Store
from video.headers import FIELDS as RAW_FIELDS


@dataclass(frozen=True)
class OrchestratorSettings(ServerSettings):
    """Every limit and default of the orchestrator that is not of the HTTP layer."""

    port: int = row(8081, "", "port to listen on; 0 picks a free one and prints it", low=0, high=65535)
    state: Path = row(Path("state/orchestrator"), "", "folder of the database, clips and artifacts; one process each")
    url: str = row("", "", "address at which workers reach the orchestrator; none: the one listened on")
    lease_s: float = row(10.0, "s", "a worker silent for this long loses its attempts; five heartbeats may get lost",
                         low=0.2)
    heartbeat_s: float = row(2.0, "s", "between two heartbeats of a worker", low=0.05)
    clip_mb: int = row(2048, "MiB", "largest clip that may be uploaded", low=1)
    fetch_hosts: str = row("", "", "hosts that clips are fetched from over https, with commas: a.example, "
                           "a.example:8443, .example with all below, * for any; empty: none")
    fetch_networks: str = row("", "", "networks that these hosts may be in besides public addresses, as 10.1.0.0/16")
    fetch_buckets: str = row("", "", "S3 buckets that clips are fetched from (s3://bucket/key), with commas; empty: "
                             "none")
    artifacts: str = row("", "", "s3://bucket/prefix in which clips and artifacts are kept; empty: in the state folder")
    fetch_s: float = row(60.0, "s", "to fetch one clip; the submission that names it waits that long", low=0.1)
    artifact_mb: int = row(16_384, "MiB", "largest artifact that a worker may store; a lossless film is that large",
                           low=1)
    result_mb: int = row(64, "MiB", "largest result document; one with 100,000 frames is a fifth of it", low=1)
    keep_unnamed_s: float = row(86_400.0, "s", "until stored bytes that no clip or result names are removed; a "
                                "worker's result may come late", low=60)
    keep_days: float = row(0.0, "d", "until an experiment that has ended is deleted with its artifacts, unless it has "
                           "the tag keep; 0: never", low=0)
    keep_gb: float = row(0.0, "GB", "of clips and artifacts; beyond it reconstructions, and then experiments, are "
                         "removed, oldest first, but not those with the tag keep; 0: no bound", low=0)
    scrub_mb_s: float = row(1.0, "MiB/s", "of stored files read again and compared with their SHA-256, all of them, "
                            "over and over; 0: none", low=0)
    quota_experiments: int = row(0, "", "experiments that a client's key may submit in 24 hours; 0: no bound", low=0)
    quota_runs: int = row(0, "", "runs that a client's key may submit in 24 hours; 0: no bound", low=0)
    quota_gb: float = row(0.0, "GB", "of clips that a client's key may upload in 24 hours; 0: no bound", low=0)
    drain_s: float = row(10.0, "s", "to finish calls in progress at SIGTERM; runs go on at the workers meanwhile",
                         low=0)
    log_level: str = row("info", "", "least level that is logged", choices=("debug", "info", "warning", "error"))
    emf_namespace: str = row("", "", "CloudWatch namespace; when given, metrics are logged as EMF lines too")
    jwt_keys: Path | None = row(None, "", "JWK Set (RFC 7517) of those who sign tokens; tokens are then taken beside "
                                "keys")
    jwt_algorithm: str = row("ES256", "", "the one algorithm of tokens", choices=ALGORITHMS)
    jwt_audience: str = row("", "", "audience that tokens must be for; needed with jwt_keys")
    jwt_issuer: str = row("", "", "issuer that tokens must be of; none: any that signs with these keys")
    worker_networks: str = row("", "", "networks that workers' addresses must be in, as 10.1.0.0/16, with commas; "
                               "empty: any")
    worker_key: str | None = row(None, "", "key shown to workers of earlier versions, which give none of their own",
                                 secret=True)
    worker_ca: Path | None = row(None, "", "CA certificates (PEM) that workers' certificates are checked against")


class Orchestrator:
    """The orchestrator's parts, and what its endpoints do."""

    def __init__(self, config: OrchestratorSettings, log: Log) -> None:
        """Raises StoreError, OSError or SettingsError when it cannot work with these settings."""
        self.config = config
        self.log = log
        self.began = time.monotonic()
        self.metrics = Metrics()
        self.store = Store(config.state)
        try:
            registry = Registry(self.store)
            blobs = Blobs(config.state, Bucket(config.artifacts) if config.artifacts else None)
            fetcher = Fetcher(hosts=config.fetch_hosts, networks=config.fetch_networks, limit_s=config.fetch_s,
                              limit_bytes=config.clip_mb << 20)
            catalogue = Catalogue(registry, blobs, fetcher, limit_bytes=config.clip_mb << 20,
                                  buckets=[name.strip() for name in config.fetch_buckets.split(",") if name.strip()])
            tokens = None if config.jwt_keys is None else Tokens(
                keys=config.jwt_keys, algorithm=config.jwt_algorithm, audience=config.jwt_audience,
                issuer=config.jwt_issuer)
            self.maintenance = Maintenance(self.store, registry, blobs, log, keep_days=config.keep_days,
                                           keep_gb=config.keep_gb, keep_unnamed_s=config.keep_unnamed_s,
                                           scrub_mb_s=config.scrub_mb_s, tokens=tokens)
            quotas = Quotas(registry, self.maintenance.retention,
                            Quota(config.quota_experiments, config.quota_runs, config.quota_gb))
            self.certificate = client_certificate(config)
            self.worker_networks = parse_networks(config.worker_networks, "worker_networks")
            sockets = listen_sockets()
            check_exposure(config.host, has_keys=self.maintenance.has_keys, insecure_bind=config.insecure_bind,
                           sockets=sockets)
            self.scheduler = Scheduler(
                self.store, lease_s=config.lease_s, heartbeat_s=config.heartbeat_s, make_client=self._client,
                secrets=AttemptSecrets(config.state), callback=lambda: config.url or self.server.url, log=log,
                metrics=self.metrics)
            self.views = ExperimentViews(self.store, self.scheduler)
            self.submissions = Submissions(self.store, self.scheduler, catalogue, self.views, quotas=quotas, log=log,
                                           metrics=self.metrics, draining=lambda: self.server.draining.is_set())
            self.files = Files(self.store, blobs, catalogue, self.scheduler, quotas, log)
            self.worker_api = WorkerApi(self.scheduler, blobs, self.worker_networks)
            self.results = Results(self.store, Plots(config.state / "matplotlib"))
            self.page = Page()
            self.routes = self._routes()
            authenticator = self.maintenance.authenticator if self.maintenance.has_keys else None
            self.server = Server(self.routes, config, log=log, metrics=self.metrics, authenticator=authenticator,
                                 sockets=sockets)
            self.metrics.gauge("nvc_state_free_bytes", "Room left where the state is.").track(
                lambda: shutil.disk_usage(config.state).free)
            self.metrics.gauge("nvc_damaged_files", "Stored files found to have other bytes than they should.").track(
                lambda: len(self.maintenance.scrubber.damaged))
            self.reporter = Reporter(self.metrics, log, "orchestrator")
        except BaseException:
            self.store.close()
            raise

    def start(self) -> None:
        """Listen, and take up what an earlier life left. Raises OSError, SettingsError."""
        self.server.start()
        self.scheduler.start()
        self.maintenance.start(self.server)
        self.reporter.start()
        self.views.analyses.warm()
        self.log.info("listening", url=self.server.url, state=str(self.config.state))

    def drain(self) -> None:
        """Take no new experiments and place nothing; results are still taken."""
        self.server.drain()
        self.scheduler.drain()

    def stop(self) -> None:
        """Finish the calls in progress, then close everything. Runs at workers go on; they report to the next life."""
        until = time.monotonic() + self.config.drain_s
        self.drain()
        self.maintenance.stop()
        self.reporter.stop()
        finished = self.server.stop(self.config.drain_s)
        calls = self.scheduler.stop(max(until - time.monotonic(), 1.0))
        self.store.close()
        self.log.info("stopped", requests_finished=finished, calls_finished=calls)

    def _routes(self) -> Routes:
        routes = Routes()
        config = self.config
        submissions, reading, files, workers = self.submissions, self.views, self.files, self.worker_api
        results = self.results
        read, write, work = {"client", "read"}, {"client"}, {"worker"}
        fetch = read | work         # what a worker reads: clips, and the files of segments that it joins

        def add(method: str, pattern: str, handler: Callable[[Request], Response], **options: Any) -> None:
            routes.add(method, pattern, with_problem_responses(handler), **options)

        add("GET", "/livez", self.get_livez, always=True)
        add("GET", "/readyz", self.get_readyz, query={"verbose"})
        add("GET", "/health", self.get_health)
        add("GET", "/", self.page.get, produces="text/html", query=set())
        add("GET", "/page/{name}", self.page.get, produces="*/*", query=set())
        add("POST", "/experiment", submissions.post_experiment, body=JSON, roles=write, waits="prefer",
            is_transfer=submissions.fetches)
        add("GET", "/experiment/{id}/status", reading.get_status, roles=read, waits="prefer")
        add("PATCH", "/experiment/{id}/tags", submissions.patch_tags, body=JSON, roles=write)
        add("DELETE", "/experiment/{id}", submissions.delete_experiment, roles=write)
        add("GET", "/experiment/{id}/events", reading.get_events, roles=read, waits=True, produces="text/event-stream")
        add("POST", "/experiment/{id}/cancel", submissions.post_cancel, body=JSON, roles=write)
        add("POST", "/experiment/{id}/rerun", submissions.post_rerun, body=JSON, roles=write, waits="prefer")
        add("POST", "/experiment/{id}/clone", submissions.post_clone, body=JSON, roles=write, waits="prefer",
            is_transfer=lambda request: True)    # the original's clips may be addresses
        add("GET", "/experiment/{id}/artifacts/{name}", files.get_artifact, roles=fetch, produces="*/*",
            query={"redirect"}, is_transfer=lambda request: config.artifacts != "")
        add("GET", "/experiment/{id}/pictures/{index}", files.get_picture, roles=read, produces="image/png", waits=True,
            query={"of", "against"})
        add("GET", "/experiment/{id}/pictures", files.get_pictures, roles=read, produces="*/*", waits=True,
            query={"of", "first", "count"})
        add("GET", "/experiment/{id}/plots/{name}", results.get_plot, roles=read, produces="*/*", waits=True,
            query={"rate", "clip"})
        add("GET", "/experiment/{id}/compressai", results.get_compressai, roles=read, query={"curve", "clip"})
        add("POST", "/experiment/{id}/bd_rate", results.post_bd_rate, body=BD_RATE_BODY, roles=read)
        add("GET", "/experiments", reading.get_experiments, roles=read,
            query={"state", "tag", "search", "limit", "cursor"})
        add("GET", "/clips", files.get_clips, roles=read)
        add("GET", "/clips/{name}", files.get_clip, roles=read)
        add("PUT", "/clips/{name}", files.put_clip, body=upload(config.clip_mb << 20), roles=write,
            query=RAW_FIELDS)
        add("DELETE", "/clips/{name}", files.delete_clip, roles=write)
        add("GET", "/clips/{name}/data", files.get_clip_data, roles=fetch, produces="*/*")
        add("GET", "/workers", workers.get_workers, roles=read)
        add("POST", "/workers", workers.post_workers, body=JSON, roles=work)
        add("POST", "/workers/{name}/drain", workers.post_drain, body=JSON, roles=set())
        add("POST", "/experiment_progress", workers.post_progress, body=JSON, roles=work)
        add("POST", "/experiment_result", workers.post_result, body=json_body(config.result_mb << 20),
            roles=work)
        add("PUT", "/artifacts/{sha256}", files.put_artifact, body=upload(config.artifact_mb << 20), roles=work)
        add("GET", "/conservation", reading.get_conservation, roles=read, query={"limit"})
        add("GET", "/metrics", self.get_metrics, roles=read, produces="text/plain")
        add("GET", "/openapi.json", self.get_openapi)
        return routes

    # --- health ----------------------------------------------------------------------------------------------------

    def get_livez(self, request: Request) -> Response:
        return Response(200, {"status": "alive"})

    def get_readyz(self, request: Request) -> Response:
        checks = {"draining": "no", "database": "writable", "placing": "alive", "maintenance": "alive"}
        if self.server.draining.is_set():
            checks["draining"] = "yes"
        for name, check in (("database", self.store.pulse), ("placing", self.scheduler.alive),
                            ("maintenance", self.maintenance.alive)):
            try:
                check()
            except (storage.StoreError, RuntimeError) as error:
                checks[name] = str(error)
        ready = set(checks.values()) == {"no", "writable", "alive"}
        if not ready:
            why = "; ".join(f"{name}: {value}" for name, value in checks.items())
            raise Problem(503, "not-ready", why, headers={"Retry-After": "1"}, checks=checks)
        return Response(200, {"status": "ready"} | ({"checks": checks} if "verbose" in request.query else {}))

    def get_health(self, request: Request) -> Response:
        queued, at_work = self.store.waiting()
        workers = [worker["state"] for worker in self.scheduler.view.workers()]
        return Response(200, {
            "status": "draining" if self.server.draining.is_set() else "ok", "version": VERSION,
            "uptime_s": round(time.monotonic() - self.began, 3),
            "workers": sum(state not in ("lost", "stopped", "expected") for state in workers),
            "queued": queued, "running": at_work,
        })

    def get_metrics(self, request: Request) -> Response:
        return Response(200, self.metrics.render(), {"Content-Type": METRICS_TYPE})

    def get_openapi(self, request: Request) -> Response:
        return Response(200, openapi.describe(self.routes), etag=True)

    def _client(self, url: str, dispatch_key: str) -> Client:
        """A worker's client: it is shown its own key, or `worker_key` where it is of a version that has none."""
        verify: bool | str = str(self.config.worker_ca) if self.config.worker_ca else True
        return Client(url, key=dispatch_key or self.config.worker_key, retries=0, verify=verify, cert=self.certificate,
                      networks=self.worker_networks)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["keys"]:
        return keys_command(arguments[1:], OrchestratorSettings)
    if arguments[:1] and arguments[0] in STATE_COMMANDS:
        return state_command(arguments, OrchestratorSettings)
    config = load(OrchestratorSettings, arguments, prog="orchestrator.py",
                  description="Accepts experiments and hands them to workers.")
    log = Log(service="orchestrator", level=config.log_level, emf=config.emf_namespace or None)
    log.adopt_libraries()
    signals = Signals()
    try:
        orchestrator = Orchestrator(config, log)
        orchestrator.start()
    except (storage.StoreError, SettingsError, S3Error, OSError) as error:
        print(f"orchestrator.py: {error}", file=sys.stderr)
        return 1
    print(f"orchestrator listening on {orchestrator.server.url}", flush=True)
    notifier = Notifier()
    watchdog = Watchdog(notifier, {"database": orchestrator.store.pulse, "http": orchestrator.server.self_check,
                                   "placing": orchestrator.scheduler.alive,
                                   "maintenance": orchestrator.maintenance.alive}, log)
    watchdog.start()
    notifier.ready(f"listening on {orchestrator.server.url}")
    signals.wait(reload=orchestrator.maintenance.reload)
    notifier.stopping("finishing calls in progress")
    orchestrator.stop()
    watchdog.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
