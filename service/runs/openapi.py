"""The worker's interface as a table, from which its OpenAPI document is made."""

from __future__ import annotations

from typing import Any

from service.http import openapi
from service.http.routes import Routes
from service.jobs.fields import request_schema
from service.runs.assignment import MAX_TIMEOUT_S, RUN_NAME, SHA256
from service.runs.attempts import ARTIFACT_NAME

ANY, COUNT, MAYBE_TEXT, NUMBER, TEXT, TIME = (
    openapi.ANY, openapi.COUNT, openapi.MAYBE_TEXT, openapi.NUMBER, openapi.TEXT, openapi.TIME)
Operation = openapi.Operation

RUN: openapi.Schema = {"type": "string", "pattern": f"^{RUN_NAME.pattern}$"}
MAYBE_RUN: openapi.Schema = {"type": ["string", "null"], "pattern": f"^({RUN_NAME.pattern})?$"}
ATTEMPT: openapi.Schema = {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}

DISPATCH = openapi.object_of(
    ("experiment",), run=MAYBE_RUN, attempt=ATTEMPT, experiment=openapi.named("Request"),
    callback={"type": "string", "pattern": "^https?://[A-Za-z0-9.-]{1,200}(:[0-9]{1,5})?$"}, lease_s=NUMBER,
    timeout_s={"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
    clip={"type": ["object", "null"], "properties": {
        "name": MAYBE_TEXT, "url": MAYBE_TEXT,
        "sha256": {"type": ["string", "null"], "pattern": f"^{SHA256.pattern}$"}}})

SCHEMAS: dict[str, openapi.Schema] = {
    "Request": request_schema(),
    # What an orchestrator sends, or an experiment by itself from whoever uses a worker alone.
    "Dispatch": {"anyOf": [openapi.named("Request"), DISPATCH | {"additionalProperties": False}]},
    "Run": openapi.object_of(
        ("run", "attempt", "status"), experiment_id=TEXT, run=TEXT, attempt=COUNT, status=TEXT, state=TEXT,
        phase=MAYBE_TEXT, fraction=openapi.MAYBE_NUMBER, frame=openapi.MAYBE_NUMBER, frames={},
        fps=openapi.MAYBE_NUMBER, error={"type": ["object", "null"]}, accepted=TIME, ended=TIME),
    "Health": openapi.object_of(("status", "version"), status=TEXT, reason=TEXT, version=TEXT, uptime_s=NUMBER,
                                slots=COUNT, running=COUNT, outbox=COUNT),
    "State": openapi.object_of(("name", "slots", "outbox"), name=TEXT, boot_id=TEXT, version=TEXT,
                               draining={"type": "boolean"}, orchestrator=MAYBE_TEXT, slots=openapi.list_of(ANY),
                               outbox=openapi.list_of(ANY), device=MAYBE_TEXT, threads=COUNT,
                               codecs=openapi.list_of(TEXT), models=ANY),
}

OPERATIONS: dict[tuple[str, str], openapi.Operation] = {
    ("GET", "/livez"): Operation("The process answers", {200: openapi.object_of(status=TEXT)}),
    ("GET", "/readyz"): Operation("An experiment would start at once if a slot is free",
                                  {200: openapi.object_of(status=TEXT, checks=ANY)}, (503,)),
    ("GET", "/health"): Operation("A few numbers, for people and old scripts", {200: openapi.named("Health")}),
    ("GET", "/status"): Operation("Slots and what runs in them, what waits to be delivered, codecs",
                                  {200: openapi.named("State")}),
    ("GET", "/metrics"): Operation("Prometheus text format 0.0.4", {200: None}),
    ("GET", "/openapi.json"): Operation("This document", {200: ANY}),
    ("POST", "/experiment"): Operation("Start an attempt; the same one again is not started twice",
                                       {202: openapi.named("Run")}, (409, 422, 503), openapi.named("Dispatch")),
    ("GET", "/experiment/{run}"): Operation("What this worker knows of a run", {200: openapi.named("Run")}, (404,)),
    ("POST", "/experiment/{run}/cancel"): Operation(
        "Stop it; its codec process is gone within seconds", {202: openapi.named("Run")}, (404, 409),
        openapi.object_of(attempt=ATTEMPT)),
    ("GET", "/experiment/{run}/artifacts/{name}"): Operation(
        "Bytes of a run whose result is kept here", {200: None, 206: None}, (404, 416), None,
        ("Range", "If-None-Match")),
}

WORKER = openapi.Description(
    "Neural video codec service: worker", OPERATIONS, SCHEMAS, query={"verbose": TEXT}, headers={},
    path={"run": RUN, "name": {"type": "string", "pattern": f"^{ARTIFACT_NAME.pattern}$"}})


def describe(routes: Routes) -> dict[str, Any]:
    """The worker's OpenAPI document. Raises ValueError when a route and the table do not match."""
    return openapi.describe(routes, WORKER)
