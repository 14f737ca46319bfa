"""A program's interface as OpenAPI 3.1, made from the routes that are served and a table that describes them.

A route without a row, or a row without a route, is an error (`describe` raises it, and a test of each program calls
it): the document cannot fall behind the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.http.routes import Route, Routes
from service.runtime.version import VERSION

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_NUMBER: Schema = {"type": ["number", "null"]}
ANY: Schema = {"type": "object"}
TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
# What the HTTP layer itself may answer to any request, as problem documents (RFC 9457).
COMMON = (400, 401, 403, 405, 406, 408, 411, 413, 415, 417, 421, 429, 431, 500, 503)


def object_of(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object; properties that are not `required` may be missing."""
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


def list_of(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def named(name: str) -> Schema:
    """One of Description.schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


PROBLEM = object_of(("type", "title", "status", "detail", "instance", "request_id"), type=TEXT, title=TEXT,
                    status=COUNT, detail=TEXT, instance=TEXT, request_id=TEXT, field=TEXT)


@dataclass(frozen=True)
class Operation:
    """One row: `answers` maps a status to the schema of its body (None: no JSON); `body` is the request's schema;
    `problems` are the statuses of the handler's own refusals, besides those that any request may meet."""

    summary: str
    answers: dict[int, Schema | None]
    problems: tuple[int, ...] = ()
    body: Schema | None = None
    headers: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Description:
    """The table of a program: its operations by method and pattern, and the schemas that they name; `path`, `query` and
    `headers` give a schema to each parameter of that name (headers: only to those that are more than text)."""

    title: str
    operations: Mapping[tuple[str, str], Operation]
    schemas: Mapping[str, Schema]
    path: Mapping[str, Schema]
    query: Mapping[str, Schema]
    headers: Mapping[str, Schema]


def describe(routes: Routes, description: Description) -> dict[str, Any]:
    """The OpenAPI document of these routes. Raises ValueError when a route and the table do not match."""
    served = {(route.method, route.pattern): route for route in routes.table}
    if served.keys() != description.operations.keys():
        raise ValueError("routes and their descriptions differ in "
                         f"{sorted(served.keys() ^ description.operations.keys())}")
    paths: dict[str, dict[str, Any]] = {}
    for (method, pattern), operation in description.operations.items():
        paths.setdefault(pattern, {})[method.lower()] = _operation(served[method, pattern], operation, description)
    return {
        "openapi": "3.1.0",
        "info": {"title": description.title, "version": VERSION},
        "paths": paths,
        "components": {
            "schemas": {**description.schemas, "Problem": PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "nck_…"}},
        },
    }


def _operation(route: Route, operation: Operation, description: Description) -> dict[str, Any]:
    parameters = [{"name": name, "in": "path", "required": True, "schema": description.path[name]}
                  for name in re.findall(r"\{(\w+)\}", route.pattern)]
    parameters += [{"name": name, "in": "query", "schema": description.query[name]}
                   for name in sorted(route.query or ())]
    parameters += [{"name": name, "in": "header", "schema": description.headers.get(name, TEXT)}
                   for name in operation.headers]
    responses: dict[str, Any] = {}
    for status, schema in operation.answers.items():
        media = "application/json" if schema is not None else route.produces
        responses[str(status)] = {"description": operation.summary}
        if status != 204:
            responses[str(status)]["content"] = {media: {"schema": {} if schema is None else schema}}
    problem = {"description": "problem", "content": {"application/problem+json": {"schema": named("Problem")}}}
    responses |= {str(status): problem for status in sorted({*COMMON, *operation.problems} - {*operation.answers})}
    made: dict[str, Any] = {"summary": operation.summary, "responses": responses}
    if parameters:
        made["parameters"] = parameters
    if route.body is not None:
        media = "application/octet-stream" if route.body.stream else "application/json"
        schema = operation.body or {}
        fields = description.schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
        made["requestBody"] = {"required": route.body.stream or "required" in fields,
                               "content": {media: {"schema": schema}}}
    if "Prefer" in operation.headers or operation.answers.keys() & {200}:
        responses["304"] = {"description": "not changed"}
    if route.roles is not None:
        made["security"] = [{"key": []}, {}]
        made["x-roles"] = sorted(route.roles)
    return made
