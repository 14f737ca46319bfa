"""The orchestrator: accepts experiments, remembers them, hands their runs to workers, tells how far they are.

    python orchestrator.py [--host H] [--port 8081] [--state DIR] [--config FILE] [--show-config]
    python orchestrator.py keys add --role worker [--label WORDS] | list | revoke ID

Which file does what, in the way of an experiment:

    orchestrator.py       takes it over HTTP, and tells of it
    jobs.py               what it may say, and what may happen to it
    store.py              keeps it
    control/conductor.py  carries it to its end: placement.py beside it chooses the worker, dispatch.py talks to it
    control/documents.py  is what clients read of it
"""

import argparse
import dataclasses
import errno
import hashlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jobs
import service
import store as storage
from control import documents, messages, openapi, page, probe, still
from control.blobs import SHA256, Blobs
from control.catalogue import Catalogue, NameReserved, NotFetched, UnknownClip
from control.conductor import Conductor, NameTaken
from control.curves import Analyses
from control.registry import Registry
from jobs import State
from service import Problem, Request, Response, row
from store import Store

KEYS_S = 1.0            # a key that was added or revoked is known to the service after this long
SWEEP_S = 3600.0        # between two removals of bytes that nothing names
JSON_TYPE = {"Content-Type": "application/json"}
CONTENT_TYPES = {".json": "application/json", ".mkv": "video/x-matroska", ".png": "image/png", ".svg": "image/svg+xml",
                 ".csv": "text/csv"}


@dataclass(frozen=True)
class OrchestratorSettings(service.ServerSettings):
    """Every limit and default of the orchestrator that is not of the HTTP layer."""

    port: int = row(8081, "", "port to listen on; 0 picks a free one and prints it", low=0, high=65535)
    state: Path = row(Path("state/orchestrator"), "", "folder of the database, clips and artifacts; one process each")
    url: str = row("", "", "address at which workers reach the orchestrator; none: the one listened on")
    lease_s: float = row(10.0, "s", "a worker silent for this long loses its attempts; five heartbeats may get lost",
                         low=0.2)
    heartbeat_s: float = row(2.0, "s", "how often workers are told to say that they live", low=0.05)
    clip_mb: int = row(2048, "MiB", "largest clip that may be uploaded", low=1)
    artifact_mb: int = row(16_384, "MiB", "largest artifact that a worker may store; a lossless film is that large",
                           low=1)
    result_mb: int = row(64, "MiB", "largest result document; one with 100,000 frames is a fifth of it", low=1)
    keep_unnamed_s: float = row(86_400.0, "s", "until stored bytes that no clip or result names are removed; a "
                                "worker's result may come late", low=60)
    drain_s: float = row(10.0, "s", "to finish calls in progress at SIGTERM; runs go on at the workers meanwhile",
                         low=0)
    log_level: str = row("info", "", "least level that is logged", choices=("debug", "info", "warning", "error"))
    emf_namespace: str = row("", "", "CloudWatch namespace; when given, latencies are logged as EMF lines too")
    worker_key: str | None = row(None, "", "key shown to workers", secret=True)
    worker_ca: Path | None = row(None, "", "CA certificates (PEM) that workers' certificates are checked against")


# What handlers may meet, and how it is told: (status, type). The first match counts.
ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (jobs.UnknownField, 422, "unknown-field"),
    (jobs.FieldError, 422, "invalid-field"),
    (messages.MessageError, 422, "invalid-field"),
    (UnknownClip, 404, "unknown-clip"),
    (NotFetched, 422, "clip-not-fetched"),
    (NameReserved, 409, "name-reserved"),
    (probe.NotAClip, 422, "not-a-video"),
    (still.NoPicture, 404, "unknown-picture"),
    (still.Busy, 503, "busy"),
    (NameTaken, 409, "name-taken"),
    (storage.UnknownExperiment, 404, "unknown-experiment"),
    (storage.KeyReused, 422, "idempotency-key-reused"),
    (storage.Finished, 409, "already-finished"),
    (storage.Stale, 409, "stale-attempt"),
    (storage.StoreFull, 507, "disk-full"),
    (storage.StoreError, 503, "storage-unavailable"),
)


def told(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """The handler, with every error of the layers below translated once, here at the border."""

    def answer(request: Request) -> Response:
        try:
            return handler(request)
        except tuple(kind for kind, *_ in ERRORS) as error:
            status, slug = next((status, slug) for kind, status, slug in ERRORS if isinstance(error, kind))
            headers = {"Retry-After": "1"} if status == 503 else {}
            raise Problem(status, slug, str(error), field=getattr(error, "field", None) or None,
                          headers=headers) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Problem(507, "disk-full", "no space left to keep the bytes; nothing was kept") from error

    return answer


class Told(NamedTuple):
    """The status document of an experiment as it is sent."""

    state: State
    body: bytes

    @property
    def tag(self) -> str:
        """Its ETag."""
        return hashlib.sha256(self.body).hexdigest()[:32]


class Submission(NamedTuple):
    """What is to be accepted: the filled-in request, each run's clip, and what it was made from."""

    document: dict[str, Any]
    clips: list[dict[str, Any]]
    origin: dict[str, str] | None = None


class Orchestrator:
    """The orchestrator's parts, and what its endpoints do."""

    def __init__(self, config: OrchestratorSettings, log: service.Log) -> None:
        """Raises StoreError, OSError or SettingsError when it cannot work with these settings."""
        self.config = config
        self.log = log
        self.began = time.monotonic()
        self.metrics = service.Metrics()
        self.store = Store(config.state)
        try:
            self.registry = Registry(self.store)
            self.blobs = Blobs(config.state)
            self.catalogue = Catalogue(self.registry, self.blobs)
            self.analyses = Analyses()
            self.page = page.Page()
            self.conductor = Conductor(
                self.store, lease_s=config.lease_s, heartbeat_s=config.heartbeat_s, make_client=self._client,
                callback=lambda: config.url or self.server.url, log=log, metrics=self.metrics)
            self.keys: dict[str, service.Key] = {}
            has_keys = self._read_keys()
            service.check_exposure(config.host, has_keys=has_keys, insecure_bind=config.insecure_bind)
            self.authenticator = service.Authenticator(lambda: self.keys)
            self.routes = self._routes()
            self.server = service.Server(self.routes, config, log=log, metrics=self.metrics,
                                         authenticator=self.authenticator if has_keys else None,
                                         sockets=service.listen_sockets())
        except BaseException:
            self.store.close()
            raise
        self._submit_s = self.metrics.histogram("nvc_submit_seconds", "From reading a submission to its commit.")
        self._stopping = threading.Event()
        self.reload = threading.Event()     # set by SIGHUP
        self._keeper = threading.Thread(target=self._keep_house, name="house", daemon=True)

    def start(self) -> None:
        """Listen, and take up what an earlier life left. Raises OSError, SettingsError."""
        self.server.start()
        self.conductor.start()
        self._keeper.start()
        self.log.info("listening", url=self.server.url, state=str(self.config.state))

    def drain(self) -> None:
        """Take no new experiments and place nothing; results are still taken."""
        self.server.drain()
        self.conductor.drain()

    def stop(self) -> None:
        """Finish the calls in progress, then close everything. Runs at workers go on; they report to the next life."""
        self.drain()
        self._stopping.set()
        finished = self.server.stop(self.config.drain_s)
        calls = self.conductor.stop(self.config.drain_s)
        self.store.close()
        self.log.info("stopped", requests_finished=finished, calls_finished=calls)

    def _routes(self) -> service.Routes:
        routes = service.Routes()
        config = self.config
        read, write, work = {"client", "read", "worker"}, {"client"}, {"worker"}

        def add(method: str, pattern: str, handler: Callable[[Request], Response], **options: Any) -> None:
            routes.add(method, pattern, told(handler), **options)

        add("GET", "/livez", self.get_livez, always=True)
        add("GET", "/readyz", self.get_readyz, query={"verbose"})
        add("GET", "/health", self.get_health)
        add("GET", "/", self.get_page, produces="text/html", query=set())
        add("GET", "/page/{name}", self.get_page, produces="*/*", query=set())
        add("POST", "/experiment", self.post_experiment, body=service.JSON, roles=write, waits="prefer")
        add("GET", "/experiment/{id}/status", self.get_status, roles=read, waits="prefer")
        add("GET", "/experiment/{id}/events", self.get_events, roles=read, waits=True, produces="text/event-stream")
        add("POST", "/experiment/{id}/cancel", self.post_cancel, body=service.JSON, roles=write)
        add("POST", "/experiment/{id}/rerun", self.post_rerun, body=service.JSON, roles=write, waits="prefer")
        add("POST", "/experiment/{id}/clone", self.post_clone, body=service.JSON, roles=write, waits="prefer")
        add("GET", "/experiment/{id}/artifacts/{name}", self.get_artifact, roles=read, produces="*/*")
        add("GET", "/experiment/{id}/pictures/{index}", self.get_picture, roles=read, produces="image/png", waits=True,
            query={"of", "against"})
        add("GET", "/experiments", self.get_experiments, roles=read, query={"state", "tag", "limit", "cursor"})
        add("GET", "/clips", self.get_clips, roles=read)
        add("GET", "/clips/{name}", self.get_clip, roles=read)
        add("PUT", "/clips/{name}", self.put_clip, body=service.upload(config.clip_mb << 20), roles=write)
        add("GET", "/clips/{name}/data", self.get_clip_data, roles=read, produces="*/*")
        add("GET", "/workers", self.get_workers, roles=read)
        add("POST", "/workers", self.post_workers, body=service.JSON, roles=work)
        add("POST", "/workers/{name}/drain", self.post_drain, body=service.JSON, roles=set())
        add("POST", "/experiment_progress", self.post_progress, body=service.JSON, roles=work)
        add("POST", "/experiment_result", self.post_result, body=service.json_body(config.result_mb << 20), roles=work)
        add("PUT", "/artifacts/{sha256}", self.put_artifact, body=service.upload(config.artifact_mb << 20), roles=work)
        add("GET", "/conservation", self.get_conservation, roles=read, query={"limit"})
        add("GET", "/metrics", self.get_metrics, roles=read, produces="text/plain")
        add("GET", "/openapi.json", self.get_openapi)
        return routes

    # --- health ----------------------------------------------------------------------------------------------------

    def get_livez(self, request: Request) -> Response:
        return Response(200, {"status": "alive"})

    def get_readyz(self, request: Request) -> Response:
        checks = {"draining": "no", "database": "writable", "placing": "alive"}
        if self.server.draining.is_set():
            checks["draining"] = "yes"
        for name, check in (("database", self.store.pulse), ("placing", self.conductor.alive)):
            try:
                check()
            except (storage.StoreError, RuntimeError) as error:
                checks[name] = str(error)
        ready = checks == {"draining": "no", "database": "writable", "placing": "alive"}
        if not ready:
            why = "; ".join(f"{name}: {value}" for name, value in checks.items())
            raise Problem(503, "not-ready", why, headers={"Retry-After": "1"}, checks=checks)
        return Response(200, {"status": "ready"} | ({"checks": checks} if "verbose" in request.query else {}))

    def get_health(self, request: Request) -> Response:
        queued, at_work = self.store.waiting()
        workers = [worker["state"] for worker in self.conductor.workers()]
        return Response(200, {
            "status": "draining" if self.server.draining.is_set() else "ok", "version": service.VERSION,
            "uptime_s": round(time.monotonic() - self.began, 3),
            "workers": sum(state not in ("lost", "expected") for state in workers),
            "queued": queued, "running": at_work,
        })

    def get_metrics(self, request: Request) -> Response:
        return Response(200, self.metrics.render(), {"Content-Type": service.METRICS_TYPE})

    def get_openapi(self, request: Request) -> Response:
        return Response(200, openapi.describe(self.routes), etag=True)

    # --- experiments -----------------------------------------------------------------------------------------------

    def post_experiment(self, request: Request) -> Response:
        given = request.document()
        return self._accept(request, given, lambda: Submission(*self._check(given)))

    def post_clone(self, request: Request) -> Response:
        of, changes = request.params["id"], request.document()

        def prepare() -> Submission:
            document = jobs.changed(self._settings_of(of), changes)
            return Submission(*self._check(document), {"clone_of": of})

        return self._accept(request, {"clone_of": of, "changes": changes}, prepare)

    def post_rerun(self, request: Request) -> Response:
        of = request.params["id"]
        refuse_fields(request, "a repetition has no fields (a clone has)")

        def prepare() -> Submission:
            document = self._settings_of(of)
            self._check_codecs(document)
            # The very bytes that were coded then, whatever its clips' names mean now.
            return Submission(document, [run.clip for run in self.store.runs(of)], {"rerun_of": of})

        return self._accept(request, {"rerun_of": of}, prepare)

    def _accept(self, request: Request, given: dict[str, Any], prepare: Callable[[], "Submission"]) -> Response:
        """Answer a submission; `given` is what makes two requests under one Idempotency-Key the same."""
        if self.server.draining.is_set():
            raise Problem(503, "draining", "no new experiments are taken; try again in a moment",
                          headers={"Retry-After": "2"})
        began = time.monotonic()
        key = idempotency_key(request)
        digest = hashlib.sha256((storage.dump(sort_keys(given)) or "").encode()).hexdigest()
        # What was accepted once under this key is accepted still, whatever clips and codecs there are today.
        experiment_id = None if key is None else self.store.earlier(request.principal.key, key, digest)
        new = False
        if experiment_id is None:
            made = prepare()
            experiment_id, new = self.conductor.submit(
                made.document, made.clips, principal=request.principal.key, key=key, body_sha256=digest,
                trace=request.trace.traceparent, origin=made.origin)
        took_s = time.monotonic() - began
        self._submit_s.observe(took_s)
        self.log.emf({"SubmitLatency": (1000 * took_s, "Milliseconds")})
        headers = {"Location": f"/experiment/{experiment_id}/status"}
        if not new:
            headers["Idempotency-Replayed"] = "true"
        if request.wait_s:
            headers["Preference-Applied"] = f"wait={request.wait_s:g}"
            if self._wait(request, experiment_id, lambda: self.store.state(experiment_id) in jobs.TERMINAL or None):
                told = self._tell(experiment_id)
                return Response(200, told.body, {**JSON_TYPE, **headers})
        state = State.QUEUED if new and not request.wait_s else self.store.state(experiment_id)
        return Response(202, {"experiment_id": experiment_id, "status": state, "url": headers["Location"],
                              "events": f"/experiment/{experiment_id}/events"}, {**headers, "Retry-After": "1"})

    def _check(self, given: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The request filled in, and each run's clip. Raises FieldError, Problem."""
        document = jobs.read_request(given)
        runs = jobs.runs_of(document)
        try:
            clips = {name: self.catalogue.resolve(name) for name in dict.fromkeys(run["clip"] for run in runs)}
        except (UnknownClip, NotFetched) as error:
            slug = "unknown-clip" if isinstance(error, UnknownClip) else "clip-not-fetched"
            raise Problem(422, slug, f"clip: {error}", field="clip") from error
        self._check_codecs(document)
        return document, [clips[run["clip"]] for run in runs]

    def _check_codecs(self, document: dict[str, Any]) -> None:
        """Raises Problem for a codec that no worker has, where it is known which ones they have."""
        wanted = document["codec"] if isinstance(document["codec"], list) else [document["codec"]]
        offered = self.conductor.codecs()
        for codec in wanted:
            if offered is not None and codec not in offered:
                raise Problem(422, "unknown-codec", f"codec: no worker has {codec}; there are "
                              f"{', '.join(sorted(offered))}", field="codec")

    def _settings_of(self, experiment_id: str) -> dict[str, Any]:
        """What an experiment, or a run of a grid, was asked with. Raises UnknownExperiment."""
        found = self.store.experiment(experiment_id)
        return found.document if found.id == experiment_id else found.runs[0].run.settings

    def get_status(self, request: Request) -> Response:
        experiment_id = request.params["id"]
        told = self._tell(experiment_id)
        headers = {}
        if request.wait_s and told.state not in jobs.TERMINAL:
            known = request.headers.get("if-none-match", f'"{told.tag}"')
            headers["Preference-Applied"] = f"wait={request.wait_s:g}"

            def changed() -> Told | None:
                fresh = self._tell(experiment_id)
                return None if f'"{fresh.tag}"' in known else fresh

            told = self._wait(request, experiment_id, changed) or told
        if told.state not in jobs.TERMINAL:
            headers["Retry-After"] = "1"
        return Response(200, told.body, {**JSON_TYPE, **headers}, etag=told.tag)

    def get_events(self, request: Request) -> Response:
        experiment_id = request.params["id"]
        since = request.headers.get("last-event-id", "")
        last = int(since) if since.isascii() and since.isdigit() and len(since) < 19 else 0
        events, state = self.store.events(experiment_id, last)
        if not events and state in jobs.TERMINAL:
            return Response(204)    # what makes a browser stop coming back (HTML standard, section 9.2.3)
        follower = Follower(self.store, experiment_id, last)
        stream = service.event_stream(request, follower.wait)

        def pieces() -> Iterator[bytes]:
            with self.conductor.hub.changes(experiment_id) as follower.changed:
                yield from stream.body

        return dataclasses.replace(stream, body=pieces())

    def post_cancel(self, request: Request) -> Response:
        experiment_id = request.params["id"]
        refuse_fields(request, "a cancellation has no fields")
        self.conductor.cancel(experiment_id, "asked by the client")
        return Response(202, {"experiment_id": experiment_id, "status": self.store.state(experiment_id)},
                        {"Location": f"/experiment/{experiment_id}/status"})

    def get_experiments(self, request: Request) -> Response:
        state = request.query.get("state")
        if state is not None and state not in list(State):
            raise Problem(400, "invalid-parameter", f"state: expected one of {', '.join(State)}, got {state[:60]!r}",
                          field="state")
        limit = integer_of(request, "limit", 50, 1, 1000)
        found, following = self.store.page(state=None if state is None else State(state), tag=request.query.get("tag"),
                                           limit=limit, before=cursor_of(request))
        cursor = None if following is None else str(following)
        return Response(200, {"experiments": [documents.summary(experiment, self.conductor.live_progress)
                                              for experiment in found], "next_cursor": cursor})

    def get_page(self, request: Request) -> Response:
        name = request.params.get("name", page.INDEX)
        found = self.page.file(name)
        if found is None:
            raise Problem(404, "not-found", f"the page has no file {name[:100]!r}")
        return Response(200, found[0], found[1], etag=True)

    def get_artifact(self, request: Request) -> Response:
        run, name = request.params["id"], request.params["name"]
        about = self.store.artifact(run, name)
        if about is None:
            raise Problem(404, "unknown-artifact", f"run {run} has no artifact {name[:100]!r}")
        return service.file_response(self.blobs.path(about["sha256"]), about["sha256"], name=f"{run}-{name}",
                                     content_type=CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream"))

    def get_picture(self, request: Request) -> Response:
        """One picture of a run's reconstruction or source, or the error of its reconstruction against the source or
        against the reconstruction of another run of the same clip."""
        text, of = request.params["index"], request.query.get("of", "reconstruction")
        other = request.query.get("against")
        if not text.isascii() or not text.isdigit() or len(text) > 8:
            raise Problem(404, "unknown-picture", f"index: expected a number from 0 on, got {text[:60]!r}")
        if of not in ("reconstruction", "source", "error"):
            raise Problem(400, "invalid-parameter", f"of: expected reconstruction, source or error, got {of[:60]!r}",
                          field="of")
        run, index = request.params["id"], int(text)
        first = self._source_of(run, index) if of == "source" else self._reconstruction_of(run, index)
        second = None
        if of == "error":
            second = self._source_of(run, index) if other is None else self._reconstruction_of(other, index)
        return Response(200, still.make(first, second), {"Content-Type": "image/png"}, etag=True)

    def _reconstruction_of(self, run: str, index: int) -> tuple[Path, int]:
        about = self.store.artifact(run, "reconstruction.mkv")
        if about is None:
            raise Problem(404, "unknown-artifact", f"run {run[:100]} has kept no reconstruction")
        return self.blobs.path(about["sha256"]), index

    def _source_of(self, run: str, index: int) -> tuple[Path, int]:
        found = self.store.run(run)
        name = f"sha256:{found.clip['sha256']}" if found.clip.get("sha256") else found.clip["name"]
        return self.catalogue.file(name)[0], index + found.settings["first_frame"]

    def get_conservation(self, request: Request) -> Response:
        found = self.store.conservation(integer_of(request, "limit", 1000, 1, 1000))
        return Response(200, documents.conservation(found, self.conductor.why, time.time()))

    # --- clips -----------------------------------------------------------------------------------------------------

    def get_clips(self, request: Request) -> Response:
        return Response(200, {"clips": self.catalogue.all()}, etag=True)

    def get_clip(self, request: Request) -> Response:
        return Response(200, self.catalogue.get(request.params["name"]), etag=True)

    def put_clip(self, request: Request) -> Response:
        name = request.params["name"]
        clip, new = self.catalogue.add(name, request.save)
        self.log.info("clip-stored", clip=name, sha256=clip["sha256"], bytes=clip["bytes"])
        return Response(201 if new else 200, clip, {"Location": f"/clips/{name}"})

    def get_clip_data(self, request: Request) -> Response:
        path, sha256 = self.catalogue.file(request.params["name"])
        return service.file_response(path, sha256)

    # --- workers ---------------------------------------------------------------------------------------------------

    def get_workers(self, request: Request) -> Response:
        return Response(200, {"workers": self.conductor.workers()})

    def post_workers(self, request: Request) -> Response:
        beat = messages.read_heartbeat(request.document())
        return Response(200, self.conductor.heartbeat(
            beat.name, beat.url, beat.slots, beat.about, beat.running, boot_id=beat.boot_id, draining=beat.draining))

    def post_drain(self, request: Request) -> Response:
        wanted = request.document()
        if set(wanted) - {"drain"} or not isinstance(wanted.get("drain", True), bool):
            raise Problem(422, "invalid-field", 'drain: expected true or false, as in {"drain": true}', field="drain")
        name = request.params["name"]
        if not self.conductor.drain_worker(name, wanted.get("drain", True)):
            raise Problem(404, "unknown-worker", f"no worker {name[:100]!r} is known")
        return Response(202, {"name": name, "drained": wanted.get("drain", True)})

    def post_progress(self, request: Request) -> Response:
        said = messages.read_progress(request.document())
        self.conductor.progress(said.run, said.attempt, said.data)
        return Response(200, {"run": said.run, "attempt": said.attempt})

    def post_result(self, request: Request) -> Response:
        end = messages.read_end(request.document())
        if end.state is State.COMPLETED:
            for name, about in end.artifacts.items():
                if self.blobs.size(about["sha256"]) != about["bytes"]:
                    raise Problem(422, "missing-artifact", f"artifacts.{name}: {about['bytes']} bytes under "
                                  f"{about['sha256']} were expected to be stored before the result", field="artifacts")
        run = self.conductor.finished(end.run, end.attempt, end.state, end.result, end.error, end.artifacts)
        return Response(200, {"run": run.id, "attempt": end.attempt, "status": run.state})

    def put_artifact(self, request: Request) -> Response:
        sha256 = request.params["sha256"]
        if not SHA256.fullmatch(sha256):
            raise Problem(422, "invalid-name", "sha256: expected 64 hexadecimal digits in lower case", field="sha256")
        with self.blobs.receiving("artifact") as part:
            with open(part, "wb") as out:
                size, found = request.save(out)
            if found != sha256:
                raise Problem(422, "digest-mismatch", f"the {size} bytes that arrived have SHA-256 {found}; send them "
                              "again", field="sha256")
            new = self.blobs.keep(part, sha256)
        return Response(201 if new else 200, {"sha256": sha256, "bytes": size})

    # --- small parts -----------------------------------------------------------------------------------------------

    def _tell(self, experiment_id: str) -> "Told":
        """The whole document of an experiment, or of a run of a grid. Raises UnknownExperiment."""
        found = self.store.experiment(experiment_id)
        document = (documents.grid if found.grid else documents.status)(found, self.conductor.live_progress)
        of = (found.origin or {}).get("rerun_of")
        if of is not None and found.id == experiment_id:
            document["rerun"] = documents.repetition(of, self.store.grid(found.id), self.store.grid(of))
        body = storage.dump(document) or ""
        if found.grid:
            body = f"{body[:-1]},{self.analyses.of(found.id, found.document, found.grid)[1:]}"
        return Told(document["status"], f"{body}\n".encode())

    def _wait(self, request: Request, experiment_id: str, look: Callable[[], Any]) -> Any:
        """What `look` gives once it gives something, or None when the client's patience, or the client, is gone."""
        until = time.monotonic() + (request.wait_s or 0.0)
        with self.conductor.hub.changes(experiment_id.partition(".")[0]) as changed:    # a run's changes are its grid's
            while True:
                changed.clear()
                found = look()
                left = until - time.monotonic()
                if found is not None or left <= 0 or request.stopping.is_set() or request.disconnected():
                    return found
                changed.wait(min(left, 1.0))    # at most 1 s: a drain or a client that left is noticed

    def _client(self, url: str) -> service.Client:
        verify: bool | str = str(self.config.worker_ca) if self.config.worker_ca else True
        return service.Client(url, key=self.config.worker_key, retries=0, verify=verify)

    def _read_keys(self) -> bool:
        """Take the keys in force into memory. Whether there has ever been one: the last key that is revoked must not
        open the service to everyone."""
        found = self.registry.list_keys()
        self.keys = {key["id"]: service.Key(key["id"], key["sha256"], key["role"], key["expires_s"])
                     for key in found if key["revoked_s"] is None}
        return bool(found)

    def _keep_house(self) -> None:
        """The thread that does what nobody waits for."""
        swept = time.monotonic()
        while not self._stopping.wait(KEYS_S):
            try:
                if self._read_keys() and self.server.authenticator is None:
                    self.server.authenticator = self.authenticator
                    self.log.info("keys-required")
                if self.reload.is_set():
                    self.reload.clear()
                    self.server.reload_tls()
                    self.log.info("certificates-reloaded")
                if time.monotonic() - swept > SWEEP_S:
                    swept = time.monotonic()
                    removed = self.blobs.sweep(self.registry.referenced, self.config.keep_unnamed_s)
                    self.log.info("swept", removed=removed)
            except (storage.StoreError, service.SettingsError, OSError) as error:
                self.log.error("housekeeping-failed", error=error)


class Follower:
    """Where one event stream is in an experiment's history."""

    def __init__(self, store: Store, experiment_id: str, last: int) -> None:
        self._store, self._id, self._last = store, experiment_id, last
        self.changed = threading.Event()

    def wait(self, timeout_s: float) -> list[service.Event] | None:
        """The events since the last call, at once or when there are some; [] after `timeout_s`; None at the end."""
        self.changed.clear()
        found, state = self._store.events(self._id, self._last)
        if not found and state not in jobs.TERMINAL and self.changed.wait(timeout_s):
            found, state = self._store.events(self._id, self._last)
        if not found:
            return None if state in jobs.TERMINAL else []
        self._last = found[-1].seq
        return [service.Event(event.kind, {"experiment_id": self._id, "at": jobs.timestamp(event.at_s), **event.data},
                              str(event.seq)) for event in found]


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, with or without the quotes of a structured field. Raises Problem 400."""
    if "idempotency-key" not in request.headers:
        return None
    key = request.headers["idempotency-key"].strip()
    if len(key) > 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise Problem(400, "invalid-idempotency-key", "expected 1 to 255 printable ASCII characters",
                      field="Idempotency-Key")
    return key


def refuse_fields(request: Request, why: str) -> None:
    """Raises Problem 422 where a request without fields has some."""
    if given := request.document():
        raise Problem(422, "unknown-field", f"{why}; an empty body or {{}} was expected", field=next(iter(given)))


def integer_of(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A query parameter. Raises Problem 400."""
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not low <= int(text) <= high:
        raise Problem(400, "invalid-parameter", f"{name}: expected an integer from {low} to {high}, got {text[:60]!r}",
                      field=name)
    return int(text)


def cursor_of(request: Request) -> int | None:
    return integer_of(request, "cursor", 0, 0, 10**17) if "cursor" in request.query else None


def sort_keys(value: Any) -> Any:
    """The same JSON with names in order, so that two ways of writing one body are one body."""
    if isinstance(value, dict):
        return {name: sort_keys(value[name]) for name in sorted(value)}
    return [sort_keys(item) for item in value] if isinstance(value, list) else value


def keys_command(argv: Sequence[str]) -> int:
    """`orchestrator.py keys …`, beside a running orchestrator or without one."""
    parser = argparse.ArgumentParser(prog="orchestrator.py keys", description="Keys of clients and workers.")
    service.add_flags(parser, OrchestratorSettings)
    actions = parser.add_subparsers(dest="action", required=True)
    adding = actions.add_parser("add", help="make a key and print it; it is shown only now")
    adding.add_argument("--role", choices=service.ROLES, required=True)
    adding.add_argument("--label", default="", help="words by which people know it")
    actions.add_parser("list", help="every key, without its secret")
    actions.add_parser("revoke", help="end a key").add_argument("id")
    args = parser.parse_args(list(argv))
    try:
        store = Store(service.from_args(OrchestratorSettings, args).state, exclusive=False)
    except (storage.StoreError, service.SettingsError) as error:
        print(f"orchestrator.py keys: {error}", file=sys.stderr)
        return 1
    registry = Registry(store)
    try:
        if args.action == "add":
            token, key = service.new_key(args.role)
            registry.add_key(key.id, key.sha256, key.role, args.label)
            print(token)
        elif args.action == "revoke":
            registry.revoke_key(args.id)
            print(f"{args.id} is revoked")
        else:
            for found in registry.list_keys():
                until = f"revoked {jobs.timestamp(found['revoked_s'])}" if found["revoked_s"] else "in force"
                print(f"{found['id']}  {found['role']:7}  {jobs.timestamp(found['created_s'])}  {until}  "
                      f"{found['label']}")
    except storage.StoreError as error:
        print(f"orchestrator.py keys: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["keys"]:
        return keys_command(arguments[1:])
    config = service.load(OrchestratorSettings, arguments, prog="orchestrator.py",
                          description="Accepts experiments and hands them to workers.")
    log = service.Log(service="orchestrator", level=config.log_level, emf=config.emf_namespace or None)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    signal.signal(signal.SIGINT, lambda number, frame: asked.set())
    try:
        orchestrator = Orchestrator(config, log)
        signal.signal(signal.SIGHUP, lambda number, frame: orchestrator.reload.set())
        orchestrator.start()
    except (storage.StoreError, service.SettingsError, OSError) as error:
        print(f"orchestrator.py: {error}", file=sys.stderr)
        return 1
    print(f"orchestrator listening on {orchestrator.server.url}", flush=True)
    notifier = service.Notifier()
    watchdog = service.Watchdog(notifier, {"database": orchestrator.store.pulse, "http": orchestrator.server.self_check,
                                           "placing": orchestrator.conductor.alive}, log)
    watchdog.start()
    notifier.ready(f"listening on {orchestrator.server.url}")
    asked.wait()
    notifier.stopping("finishing calls in progress")
    orchestrator.stop()
    watchdog.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
