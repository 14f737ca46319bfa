"""The orchestrator's interface as a table, from which its OpenAPI document is made."""

from typing import Any

from measures.bd_rate import METHODS
from service.api import worker_messages as messages
from service.clips.picture_png import MOST_PLAYED
from service.http import openapi
from service.http.routes import Routes
from service.jobs.fields import request_schema
from service.jobs.states import State
from service.results.bd_rate_matrix import MAX_CURVES, PERCEPTUAL, QUALITIES, RATES
from service.results.formats import MAX_ANCHORS
from video.picture import MATRICES, RANGES

ANY, COUNT, MAYBE_NUMBER, MAYBE_TEXT = openapi.ANY, openapi.COUNT, openapi.MAYBE_NUMBER, openapi.MAYBE_TEXT
NUMBER, TEXT, TIME = openapi.NUMBER, openapi.TEXT, openapi.TIME
Schema = openapi.Schema
Operation = openapi.Operation
_list, _named, _object = openapi.list_of, openapi.named, openapi.object_of

RUN: Schema = {"type": "string", "pattern": f"^{messages.RUN_NAME.pattern}$"}
ATTEMPT: Schema = {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
STATE: Schema = {"type": "string", "enum": [str(state) for state in State]}
PROGRESS = {"phase": MAYBE_TEXT, "fraction": MAYBE_NUMBER, "frame": MAYBE_NUMBER, "frames": MAYBE_NUMBER,
            "fps": MAYBE_NUMBER}

NOTHING: Schema = {"type": "object", "additionalProperties": False, "maxProperties": 0}
WORKER_NAME: Schema = {"type": "string", "pattern": f"^{messages.WORKER_NAME.pattern}$"}

SCHEMAS: dict[str, Schema] = {
    "Request": request_schema(),
    "Accepted": _object(("experiment_id", "status"), experiment_id=TEXT, status=STATE, url=TEXT, events=TEXT),
    "Status": _object(
        ("experiment_id", "status", "settings", "timeline"), experiment_id=TEXT, run=TEXT, status=STATE, label=TEXT,
        waits_for=_object(("reason", "next"), reason=TEXT, next=TEXT), clone_of=TEXT,
        rerun=_named("Rerun"), counts=_named("Counts"), runs=_list(_named("GridRun")),
        curves=_list(_named("Curve")), bd_rate=_named("BDRates"), encoding_result=ANY,
        decoding_result=ANY, metrics=ANY, frames=_list(ANY), clip=ANY, settings=ANY, provenance=ANY,
        artifacts={"type": "object", "additionalProperties": _object(("url", "sha256", "bytes"), url=TEXT, sha256=TEXT,
                                                                     bytes=COUNT)},
        segments=_list(_object(("index", "run", "status"), index=COUNT, run=TEXT, status=STATE, attempts=COUNT,
                               worker=MAYBE_TEXT, error=ANY, progress=ANY, first=COUNT, pictures=COUNT, bytes=COUNT)),
        removed_artifacts={"type": "object", "additionalProperties": _object(
            ("sha256", "bytes", "removed"), sha256=TEXT, bytes=COUNT, removed=TIME)},
        attempts=_list(_object(("attempt", "worker"), attempt=COUNT, worker=TEXT, dispatched=TIME, started=TIME,
                               ended=TIME, outcome=MAYBE_TEXT, detail=MAYBE_TEXT)),
        timeline=_object(accepted=TIME, dispatched=TIME, started=TIME, finished=TIME), error=ANY, progress=ANY),
    "Counts": _object(("total", *[str(state) for state in State]), total=COUNT,
                      **{str(state): COUNT for state in State}),
    "Rerun": _object(("of", "matches", "compared", "waiting", "differences"), of=TEXT,
                     matches={"type": ["boolean", "null"]}, compared=COUNT, waiting=COUNT,
                     differences=_list(_object(("run", "of", "what"), run=TEXT, of=TEXT, what=_list(
                         {"enum": ["status", "stream", "pictures"]})))),
    "GridRun": _object(("run", "status", "setting", "metrics"), run=TEXT, status=STATE, setting=ANY, attempts=COUNT,
                       worker=MAYBE_TEXT, metrics={"type": ["object", "null"]}, error=ANY, progress=ANY, url=TEXT),
    "Curve": _object(("clip", "curve", "codec", "points"), clip=TEXT, curve=TEXT, codec=TEXT, model=TEXT,
                     structure=TEXT, effort={"type": "integer"}, anchor={"type": "boolean"}, points=_list(_object(
                         (), run=TEXT, runs=_list(TEXT), quality=MAYBE_NUMBER, bitrate_mbps=NUMBER,
                         bpp=MAYBE_NUMBER, **dict.fromkeys(QUALITIES, MAYBE_NUMBER)))),
    "BDRate": _object(("percent", "overlap", "reason"), percent=MAYBE_NUMBER,
                      overlap={"type": "number", "minimum": 0, "maximum": 1}, reason=TEXT, clips=COUNT,
                      interval={"type": ["array", "null"], "items": NUMBER},
                      interval_95={"type": ["array", "null"], "items": NUMBER}),
    "BDRates": _object(("method", "rate", "curves", "clips", "metrics"), method=TEXT, rate=TEXT, curves=_list(TEXT),
                       left_out=_list(TEXT),
                       clips=_list(TEXT), metrics=_object(QUALITIES, **{name: _object(
                           ("per_clip", "mean", "median"), mean=_list(_list(_named("BDRate"))),
                           median=_list(_list(_named("BDRate"))),
                           per_clip={"type": "object", "additionalProperties": _list(_list(_named("BDRate")))})
                           for name in QUALITIES})),
    "Summary": _object(("experiment_id", "status", "runs"), experiment_id=TEXT, status=STATE, label=TEXT, tags=ANY,
                       accepted=TIME, finished=TIME, runs=_named("Counts"), attempts={"type": ["integer", "null"]},
                       worker=MAYBE_TEXT, metrics={"type": ["object", "null"]}, progress=ANY, url=TEXT),
    "Clip": _object(("name", "source"), name=TEXT, sha256=MAYBE_TEXT,
                    source={"enum": ["library", "uploaded", "fetched"]},
                    bytes=MAYBE_NUMBER, width=COUNT, height=COUNT, fps=TEXT, frames=MAYBE_NUMBER, data=MAYBE_TEXT,
                    converted=TEXT, matrix=TEXT, range=TEXT, sample_aspect=TEXT, rotation={"type": "integer"},
                    field_order=TEXT, primaries=TEXT, transfer=TEXT, chroma_location=TEXT,
                    variable_frame_rate={"type": ["object", "null"]}, warnings=_list(TEXT), wrapped_from=TEXT,
                    wrapped_sha256=SHA256),
    "Heartbeat": _object(("name", "url", "slots"), name=WORKER_NAME,
                         url={"type": "string", "pattern": "^https?://[A-Za-z0-9.-]{1,200}(:[0-9]{1,5})?/?$"},
                         slots={**COUNT, "maximum": messages.MAX_SLOTS}, device=TEXT, threads=COUNT,
                         running=_list(_object(("run", "attempt"), run=RUN, attempt=ATTEMPT, **PROGRESS)),
                         codecs=_list(TEXT), segmented=_list(TEXT), models=ANY, version=TEXT,
                         draining={"type": "boolean"}, boot_id=TEXT,
                         dispatch_key=TEXT, attempt_secrets={"type": "boolean"}),
    "Lease": _object(("lease_s", "heartbeat_s", "unknown"), lease_s=NUMBER, heartbeat_s=NUMBER,
                     unknown=_list(_object(("run", "attempt"), run=TEXT, attempt=COUNT))),
    "Worker": _object(("name", "url", "state"), name=TEXT, url=TEXT, state=TEXT, slots=COUNT, free=COUNT,
                      running=_list(ANY)),
    "Progress": _object(("run", "attempt"), run=RUN, attempt=ATTEMPT, secret=MAYBE_TEXT, **PROGRESS),
    "End": _object(("run", "attempt", "state"), run=RUN, attempt=ATTEMPT, secret=MAYBE_TEXT,
                   state={"enum": ["completed", "failed", "cancelled"]},
                   result={"type": ["object", "null"], "properties": {"metrics": ANY}},
                   error={"type": ["object", "null"]}, artifacts={
                       "type": "object", "propertyNames": {"pattern": f"^{messages.ARTIFACT_NAME.pattern}$"},
                       "additionalProperties": _object(("sha256", "bytes"), sha256=SHA256, bytes=COUNT)})
    | {"if": {"properties": {"state": {"const": "completed"}}},
       "then": {"properties": {"result": {"type": "object"}}, "required": ["result"]}},
    "Conservation": _object(
        ("accepted", "sum", "holds", *[str(state) for state in State], "deleted", "unfinished"), accepted=COUNT,
        segments=COUNT,
        sum=COUNT, holds={"const": True}, deleted=COUNT, **{str(state): COUNT for state in State},
        unfinished_total=COUNT,
        unfinished=_list(_object(("run", "status", "why", "next_action"), run=TEXT, status=STATE, attempt=COUNT,
                                 owner=TEXT, why=TEXT, lease_s_left=MAYBE_NUMBER, next_action=TEXT,
                                 next_action_at=TIME)), refused=_list(ANY)),
}


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation("All of this as a page for browsers", {200: None}),
    ("GET", "/page/{name}"): Operation("A script, style or picture of that page", {200: None}, (404,)),
    ("GET", "/livez"): Operation("The process answers", {200: _object(status=TEXT)}),
    ("GET", "/readyz"): Operation("It can accept work", {200: _object(status=TEXT, checks=ANY)}, (503,)),
    ("GET", "/health"): Operation("A few numbers, for people and old scripts", {200: _object(
        status=TEXT, version=TEXT, uptime_s=NUMBER, workers=COUNT, queued=COUNT, running=COUNT)}),
    ("GET", "/metrics"): Operation("Prometheus text format 0.0.4", {200: None}),
    ("GET", "/openapi.json"): Operation("This document", {200: ANY}),
    ("POST", "/experiment"): Operation(
        "Submit an experiment; with Prefer: wait=n, wait for its end",
        {200: _named("Status"), 202: _named("Accepted")}, (422, 503, 507), _named("Request"),
        ("Idempotency-Key", "Prefer")),
    ("GET", "/experiment/{id}/status"): Operation(
        "Everything about one experiment; with Prefer: wait=n, as soon as it changes", {200: _named("Status")}, (404,),
        None, ("Prefer", "If-None-Match")),
    ("DELETE", "/experiment/{id}"): Operation(
        "Delete an experiment that has ended, with its results and artifacts", {204: None}, (403, 404, 409)),
    ("GET", "/experiment/{id}/events"): Operation(
        "Its history and what happens from now on, as server-sent events: state, progress, result",
        {200: None, 204: None}, (404,), None, ("Last-Event-ID",)),
    ("POST", "/experiment/{id}/cancel"): Operation(
        "Stop it, all its runs", {202: _object(("experiment_id", "status"), experiment_id=TEXT, status=STATE)},
        (403, 404, 409, 422), NOTHING),
    ("POST", "/experiment/{id}/rerun"): Operation(
        "The same again, of the same bytes; its status says whether every hash matches",
        {200: _named("Status"), 202: _named("Accepted")}, (404, 422, 503, 507), NOTHING, ("Idempotency-Key", "Prefer")),
    ("POST", "/experiment/{id}/clone"): Operation(
        "Submit it again with changes: fields of a request, in place of the original's",
        {200: _named("Status"), 202: _named("Accepted")}, (404, 422, 503, 507), _named("Request"),
        ("Idempotency-Key", "Prefer")),
    ("GET", "/experiment/{id}/artifacts/{name}"): Operation(
        "A stream, reconstruction or plot; with redirect=1 and artifacts in S3, an address there",
        {200: None, 206: None, 307: None}, (404, 410, 416, 503), None, ("Range", "If-None-Match")),
    ("PATCH", "/experiment/{id}/tags"): Operation(
        "Change tags: an object of names and values, null to take one away (RFC 7396)", {200: _object(("tags",), tags={
            "type": "object", "additionalProperties": TEXT})}, (403, 404, 422), {
                "type": "object", "additionalProperties": {"type": ["string", "null"]}}),
    ("GET", "/experiment/{id}/pictures/{index}"): Operation(
        "One picture as PNG: of the reconstruction, the source, or their error (white from 32 levels of luma on)",
        {200: None}, (404,)),
    ("GET", "/experiment/{id}/pictures"): Operation(
        "Pictures from `first` on, `count` at most, as PNG files one after the other: "
        "`ffmpeg -f image2pipe -c:v png -i -` reads them", {200: None}, (404, 503)),
    ("GET", "/experiment/{id}/plots/{name}"): Operation(
        f"Rate-distortion curves as a file: {', '.join((*QUALITIES, *PERCEPTUAL))}, each .svg or .png; of one clip, "
        "or of all",
        {200: None}, (404, 501), None, ("If-None-Match",)),
    ("GET", "/experiment/{id}/compressai"): Operation(
        "One curve in CompressAI's layout, for its plot command: of one clip, or the mean of all", {200: _object(
            ("name", "description", "results"), name=TEXT, description=TEXT, results={
                "type": "object", "additionalProperties": _list(NUMBER)})}, (404,)),
    ("POST", "/experiment/{id}/bd_rate"): Operation(
        "Its BD-rates as asked for, also against other programs' result files: CompressAI's and DCVC's layouts",
        {200: _object(("curves", "bd_rate", "unmatched"), curves=_list(_named("Curve")), bd_rate=_named("BDRates"),
                      unmatched=_list(TEXT))}, (404, 422), _object(
            method={"enum": [*METHODS]}, curves={**_list(TEXT), "minItems": 1, "maxItems": MAX_CURVES},
            anchors={**_list(_object(("name", "document"), name=TEXT, document=ANY) | {"additionalProperties": False}),
                     "maxItems": MAX_ANCHORS}) | {"additionalProperties": False}),
    ("GET", "/experiments"): Operation("Experiments, newest first", {200: _object(
        ("experiments", "next_cursor"), experiments=_list(_named("Summary")), next_cursor=MAYBE_TEXT)}),
    ("GET", "/clips"): Operation("Clips of the library and uploaded ones",
                                 {200: _object(("clips",), clips=_list(_named("Clip")))}),
    ("GET", "/clips/{name}"): Operation("One clip, by name or sha256:…", {200: _named("Clip")}, (404,)),
    ("PUT", "/clips/{name}"): Operation("Upload a clip: a video, a picture, a ZIP or TAR of them, headerless video",
                                        {200: _named("Clip"), 201: _named("Clip")}, (409, 422, 507)),
    ("DELETE", "/clips/{name}"): Operation(
        "Delete an uploaded clip that no experiment is of", {204: None}, (404, 409)),
    ("GET", "/clips/{name}/data"): Operation("A clip's bytes", {200: None, 206: None}, (404, 416), None, ("Range",)),
    ("GET", "/workers"): Operation("Workers and what runs where",
                                   {200: _object(("workers",), workers=_list(_named("Worker")))}),
    ("POST", "/workers"): Operation("Of a worker: register, and say that it lives", {200: _named("Lease")},
                                    (409, 422, 503, 507), _named("Heartbeat")),
    ("POST", "/workers/{name}/drain"): Operation(
        "Give a worker nothing new, or something again", {202: _object(name=TEXT, drained={"type": "boolean"})},
        (404, 422), _object(drain={"type": "boolean", "default": True}) | {"additionalProperties": False}),
    ("POST", "/experiment_progress"): Operation("Of a worker: how far an attempt is", {200: ANY}, (403, 404, 409, 422),
                                                _named("Progress")),
    ("POST", "/experiment_result"): Operation("Of a worker: how an attempt ended; 409 is final", {200: ANY},
                                              (403, 404, 409, 422, 503, 507), _named("End")),
    ("PUT", "/artifacts/{sha256}"): Operation(
        "Of a worker: store bytes under their digest, before the result that names them",
        {200: _object(sha256=TEXT, bytes=COUNT), 201: _object(sha256=TEXT, bytes=COUNT)}, (400, 403, 422, 507)),
    ("GET", "/conservation"): Operation("Where everything is that was accepted, and why it waits",
                                        {200: _named("Conservation")}),
}
PATH: dict[str, Schema] = {
    "id": RUN, "sha256": SHA256, "index": {"type": "string", "pattern": "^[0-9]{1,8}$"},
    "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"},
}
HEADERS: dict[str, Schema] = {"Idempotency-Key": {"type": "string", "pattern": '^[!#-~][ !#-~]{0,253}[!#-~]?$'}}
QUERY: dict[str, Schema] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "of": {"enum": ["reconstruction", "source", "error"]}, "against": RUN,
    "width": COUNT, "height": COUNT, "fps": TEXT, "matrix": {"enum": [*MATRICES]}, "range": {"enum": [*RANGES]},
    "pixel_format": {"type": "string", "pattern": "^(yuv4(20|22|44)p|gray)((10|12|14|16)(le)?)?$"},
    "rate": {"enum": [*RATES]}, "clip": TEXT, "curve": TEXT,
    "cursor": {"type": "string", "pattern": "^[0-9]{1,17}$"}, "state": STATE, "tag": TEXT, "search": TEXT,
    "first": {"type": "integer", "minimum": 0, "maximum": 10**8}, "count": {"type": "integer", "minimum": 1,
                                                                          "maximum": MOST_PLAYED},
    "verbose": TEXT, "redirect": TEXT,
}


ORCHESTRATOR = openapi.Description("Neural video codec service: orchestrator", OPERATIONS, SCHEMAS, PATH, QUERY,
                                   HEADERS)


def describe(routes: Routes) -> dict[str, Any]:
    """The orchestrator's OpenAPI document. Raises ValueError when a route and the table do not match."""
    return openapi.describe(routes, ORCHESTRATOR)
