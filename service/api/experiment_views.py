"""How clients follow what they submitted: the status of one, its events, lists, and what is conserved."""

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from service.api import documents
from service.api.problems import integer_of
from service.http.exchange import Event, Request, Response, event_stream
from service.http.parsing import Problem
from service.jobs.states import TERMINAL, State, timestamp
from service.results.curves import Analyses
from service.scheduling.scheduler import Scheduler
from service.storage.store import Store, dump

JSON_TYPE = {"Content-Type": "application/json"}


class StatusDocument(NamedTuple):
    """The status document of an experiment as it is sent."""

    state: State
    body: bytes

    @property
    def tag(self) -> str:
        """Its ETag."""
        return hashlib.sha256(self.body).hexdigest()[:32]


class ExperimentViews:
    """The endpoints that only read."""

    def __init__(self, store: Store, scheduler: Scheduler) -> None:
        self.store, self.scheduler = store, scheduler
        self.analyses = Analyses(store.folder / "analyses")

    def get_status(self, request: Request) -> Response:
        experiment_id = request.params["id"]
        status = self.status_document(experiment_id)
        headers = {}
        if request.wait_s and status.state not in TERMINAL:
            known = request.headers.get("if-none-match", f'"{status.tag}"')
            headers["Preference-Applied"] = f"wait={request.wait_s:g}"

            def changed() -> StatusDocument | None:
                fresh = self.status_document(experiment_id)
                return None if f'"{fresh.tag}"' in known else fresh

            status = self.wait(request, experiment_id, changed) or status
        if status.state not in TERMINAL:
            headers["Retry-After"] = "1"
        return Response(200, status.body, {**JSON_TYPE, **headers}, etag=status.tag)

    def get_events(self, request: Request) -> Response:
        experiment_id = request.params["id"]
        since = request.headers.get("last-event-id", "")
        last = int(since) if since.isascii() and since.isdigit() and len(since) < 19 else 0
        events, state = self.store.events(experiment_id, last)
        if not events and state in TERMINAL:
            return Response(204)    # what makes a browser stop coming back (HTML standard, section 9.2.3)
        cursor = EventCursor(self.store, experiment_id, last)
        stream = event_stream(request, cursor.wait)

        def pieces() -> Iterator[bytes]:
            with self.scheduler.notifier.changes(whole_of(experiment_id)) as cursor.changed:
                yield from stream.body

        return dataclasses.replace(stream, body=pieces())

    def get_experiments(self, request: Request) -> Response:
        state = request.query.get("state")
        if state is not None and state not in list(State):
            raise Problem(400, "invalid-parameter", f"state: expected one of {', '.join(State)}, got {state[:60]!r}",
                          field="state")
        limit = integer_of(request, "limit", 50, 1, 1000)
        found, next_number = self.store.page(state=None if state is None else State(state),
                                             tag=request.query.get("tag"), search=request.query.get("search"),
                                             limit=limit, before=cursor_of(request))
        cursor = None if next_number is None else str(next_number)
        return Response(200, {"experiments": [documents.summary(experiment, self.scheduler.view.live_progress)
                                              for experiment in found], "next_cursor": cursor})

    def get_conservation(self, request: Request) -> Response:
        found = self.store.conservation(integer_of(request, "limit", 1000, 1, 1000))
        return Response(200, documents.conservation(found, self.scheduler.view.why, time.time()))

    def status_document(self, experiment_id: str) -> StatusDocument:
        """The whole document of an experiment, or of a run of a grid. Raises UnknownExperiment."""
        found = self.store.experiment(experiment_id)
        view = self.scheduler.view
        document = (documents.grid(found, view.live_progress) if found.grid
                    else documents.status(found, view.live_progress, view.why))
        of = (found.origin or {}).get("rerun_of")
        if of is not None and found.id == experiment_id:
            document["rerun"] = documents.repetition(of, self.store.grid(found.id), self.store.grid(of))
        body = dump(document) or ""
        if found.grid:
            body = f"{body[:-1]},{self.analyses.of(found.id, found.document, found.grid)[1:]}"
        return StatusDocument(document["status"], f"{body}\n".encode())

    def wait(self, request: Request, experiment_id: str, look: Callable[[], Any]) -> Any:
        """What `look` gives once it gives something, or None when the client's patience, or the client, is gone."""
        until = time.monotonic() + (request.wait_s or 0.0)
        with self.scheduler.notifier.changes(whole_of(experiment_id)) as changed:
            while True:
                changed.clear()
                found = look()
                left = until - time.monotonic()
                if found is not None or left <= 0 or request.stopping.is_set() or request.disconnected():
                    return found
                changed.wait(min(left, 1.0))    # at most 1 s: a drain or a client that left is noticed


class EventCursor:
    """Where one event stream is in an experiment's history."""

    def __init__(self, store: Store, experiment_id: str, last: int) -> None:
        self._store, self._id, self._last = store, experiment_id, last
        self.changed = threading.Event()

    def wait(self, timeout_s: float) -> list[Event] | None:
        """The events since the last call, at once or when there are some; [] after `timeout_s`; None at the end."""
        self.changed.clear()
        found, state = self._store.events(self._id, self._last)
        if not found and state not in TERMINAL and self.changed.wait(timeout_s):
            found, state = self._store.events(self._id, self._last)
        if not found:
            return None if state in TERMINAL else []
        self._last = found[-1].seq
        whole = whole_of(self._id)
        return [Event(event.kind, {"experiment_id": whole, "at": timestamp(event.at_s), **event.data},
                              str(event.seq)) for event in found]


def whole_of(experiment_id: str) -> str:
    """The experiment that a run of a grid belongs to; its waiters are woken by changes of any of its runs."""
    return experiment_id.partition(".")[0]


def cursor_of(request: Request) -> int | None:
    return integer_of(request, "cursor", 0, 0, 10**17) if "cursor" in request.query else None
