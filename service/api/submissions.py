"""How experiments come in and are called off: a submission, a repetition, a copy with changes, a cancellation.

What is answered with 2xx is on the disk. A submission under an Idempotency-Key that was accepted before is answered
with that experiment, whatever has changed since.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from service.api.experiment_views import JSON_TYPE, ExperimentViews
from service.api.problems import refuse_fields
from service.api.quotas import Quotas
from service.clips.catalogue import Catalogue, NotFetched, UnknownClip
from service.http.exchange import Request, Response
from service.http.parsing import Problem
from service.jobs.fields import (
    FETCHED,
    MAX_RUNS,
    MAX_SEGMENTS,
    FieldError,
    changed,
    changed_tags,
    read_request,
    runs_of,
)
from service.jobs.states import TERMINAL, State
from service.runtime.logs import Log
from service.runtime.prometheus import Metrics
from service.scheduling.scheduler import Scheduler
from service.storage import store as storage
from service.storage.store import Store


class Submission(NamedTuple):
    """What is to be accepted: the filled-in request, each run's clip, and what it was made from."""

    document: dict[str, Any]
    clips: list[dict[str, Any]]
    segments: list[int]     # into how many each run is cut
    origin: dict[str, str] | None = None


class Submissions:
    """The endpoints under POST /experiment."""

    def __init__(self, store: Store, scheduler: Scheduler, catalogue: Catalogue, views: ExperimentViews, *,
                 quotas: Quotas, draining: Callable[[], bool], log: Log, metrics: Metrics) -> None:
        self.store, self.scheduler, self.catalogue, self.views = store, scheduler, catalogue, views
        self.quotas = quotas
        self.draining = draining
        self.log = log
        self._submit_s = metrics.histogram("nvc_submit_seconds", "From reading a submission to its commit.")

    def post_experiment(self, request: Request) -> Response:
        given = request.document()
        return self._accept(request, given, lambda: self._check(given))

    def post_clone(self, request: Request) -> Response:
        of, changes = request.params["id"], request.document()

        def prepare() -> Submission:
            document = changed(self._settings_of(of), changes)
            return self._check(document)._replace(origin={"clone_of": of})

        return self._accept(request, {"clone_of": of, "changes": changes}, prepare)

    def post_rerun(self, request: Request) -> Response:
        of = request.params["id"]
        refuse_fields(request, "a repetition has no fields (a clone has)")

        def prepare() -> Submission:
            document = self._settings_of(of)
            self._check_codecs(document)
            # The very bytes that were coded then, whatever its clips' names mean now.
            before = self.store.runs(of)
            return Submission(document, [run.clip for run in before],
                              [run.settings.get("segments") or 1 for run in before], {"rerun_of": of})

        return self._accept(request, {"rerun_of": of}, prepare)

    @staticmethod
    def fetches(request: Request) -> bool:
        """Whether a submission may have to fetch clips, which takes longer than a handler should."""
        addresses = any(start.encode() in request.body for start in FETCHED)
        if not addresses and b"\\u" not in request.body:    # which may spell it in another way
            return False
        try:
            clip = request.document().get("clip")
        except Problem:
            return False    # the handler says what is wrong
        return any(isinstance(name, str) and name.startswith(FETCHED) for name in
                   (clip if isinstance(clip, list) else [clip]))

    def post_cancel(self, request: Request) -> Response:
        experiment_id = request.params["id"]
        refuse_fields(request, "a cancellation has no fields")
        self._check_owner(request, experiment_id)
        self.scheduler.cancel(experiment_id, "asked by the client")
        return Response(202, {"experiment_id": experiment_id, "status": self.store.state(experiment_id)},
                        {"Location": f"/experiment/{experiment_id}/status"})

    def patch_tags(self, request: Request) -> Response:
        experiment_id, changes = request.params["id"], request.document()
        self._check_owner(request, experiment_id)
        tags = self.store.change_tags(experiment_id, lambda tags: changed_tags(tags, changes))
        self.log.info("tags-changed", experiment=experiment_id, tags=sorted(changes))
        self.scheduler.notifier.notify(experiment_id)
        return Response(200, {"tags": tags})

    def delete_experiment(self, request: Request) -> Response:
        experiment_id = request.params["id"]
        self._check_owner(request, experiment_id)
        runs = self.store.delete(experiment_id)
        self.log.info("experiment-deleted", experiment=experiment_id, runs=runs, why="asked by the client")
        return Response(204)

    def _check_owner(self, request: Request, experiment_id: str) -> None:
        """Raises Problem 403 where a client's key is not the one of the submission, UnknownExperiment."""
        owner = self.store.submitted_by(experiment_id)
        if request.principal.role == "client" and owner != request.principal.key:
            raise Problem(403, "not-yours", "a client's key changes only what it has submitted; an admin's changes all")

    def _accept(self, request: Request, given: dict[str, Any], prepare: Callable[[], Submission]) -> Response:
        """Answer a submission; `given` is what makes two requests under one Idempotency-Key the same."""
        if self.draining():
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
            with self.quotas.spending(request, experiments=1,
                                      runs=sum(1 + (n if n > 1 else 0) for n in made.segments)):
                experiment_id, new = self.scheduler.submit(
                    made.document, made.clips, principal=request.principal.key, key=key, body_sha256=digest,
                    trace=request.trace.traceparent, origin=made.origin, segments=made.segments)
        took_s = time.monotonic() - began
        self._submit_s.observe(took_s)
        self.log.emf({"SubmitLatency": (1000 * took_s, "Milliseconds")})
        headers = {"Location": f"/experiment/{experiment_id}/status"}
        if not new:
            headers["Idempotency-Replayed"] = "true"
        if request.wait_s:
            headers["Preference-Applied"] = f"wait={request.wait_s:g}"
            ended = self.views.wait(request, experiment_id,
                                    lambda: self.store.state(experiment_id) in TERMINAL or None)
            if ended:
                status = self.views.status_document(experiment_id)
                return Response(200, status.body, {**JSON_TYPE, **headers})
        state = State.QUEUED if new and not request.wait_s else self.store.state(experiment_id)
        return Response(202, {"experiment_id": experiment_id, "status": state, "url": headers["Location"],
                              "events": f"/experiment/{experiment_id}/events"}, {**headers, "Retry-After": "1"})

    def _check(self, given: dict[str, Any]) -> Submission:
        """The request filled in, each run's clip, and how many segments. Raises FieldError, Problem."""
        document = read_request(given)
        runs = runs_of(document)
        try:
            clips = self.catalogue.resolve(run["clip"] for run in runs)
        except (UnknownClip, NotFetched) as error:
            slug = "unknown-clip" if isinstance(error, UnknownClip) else "clip-not-fetched"
            raise Problem(422, slug, f"clip: {error}", field="clip") from error
        self._check_codecs(document)
        segments = [self._segments_of(run) for run in runs]
        if (total := sum(segments)) > MAX_RUNS:
            raise FieldError("segments", f"all runs have {total} segments; at most {MAX_RUNS} were expected")
        return Submission(document, [clips[run["clip"]] for run in runs], segments)

    def _segments_of(self, run: dict[str, Any]) -> int:
        """Into how many segments a run is cut; 1: not at all. Raises FieldError."""
        wanted, codec, clip = run["segments"], run["codec"], run["clip"]
        if wanted is None:
            return 1
        can, slots = self.scheduler.view.segmented(codec)
        if not can:
            if wanted == "auto":
                return 1
            raise FieldError("segments", f"no worker can cut a clip for codec {codec}; expected null or \"auto\"")
        frames = self.catalogue.get(clip)["frames"]
        if frames is None:
            if wanted == "auto":
                return 1
            raise FieldError("segments", f"how many pictures clip {clip} has is not known; expected null")
        frames = max(frames - run["first_frame"], 1) if run["frames"] is None else min(
            max(frames - run["first_frame"], 1), run["frames"])
        gops = -(-frames // (1 if run["structure"] == "intra" else run["intra_period"]))
        if wanted == "auto":
            return max(1, min(gops, slots, MAX_SEGMENTS))
        if wanted > gops:
            raise FieldError("segments", f"expected at most {gops}, the number of GOPs in {frames} pictures of clip "
                                         f"{clip} at intra_period {run['intra_period']}, got {wanted}")
        return int(wanted)

    def _check_codecs(self, document: dict[str, Any]) -> None:
        """Raises Problem for a codec that no worker has, where it is known which ones they have."""
        wanted = document["codec"] if isinstance(document["codec"], list) else [document["codec"]]
        offered = self.scheduler.view.codecs()
        for codec in wanted:
            if offered is not None and codec not in offered:
                raise Problem(422, "unknown-codec", f"codec: no worker has {codec}; there are "
                              f"{', '.join(sorted(offered))}", field="codec")

    def _settings_of(self, experiment_id: str) -> dict[str, Any]:
        """What an experiment, or a run of a grid, was asked with. Raises UnknownExperiment."""
        found = self.store.experiment(experiment_id)
        return found.document if found.id == experiment_id else found.runs[0].run.settings


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


def sort_keys(value: Any) -> Any:
    """The same JSON with names in order, so that two ways of writing one body are one body."""
    if isinstance(value, dict):
        return {name: sort_keys(value[name]) for name in sorted(value)}
    return [sort_keys(item) for item in value] if isinstance(value, list) else value
