"""What workers say: that they live, how far a run is, how it ended; and what people say of workers."""

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from service.api import worker_messages as messages
from service.http.exchange import Request, Response
from service.http.fetching import Network
from service.http.parsing import Problem
from service.jobs.states import State
from service.scheduling.scheduler import Scheduler
from service.storage.blobs import Blobs


class WorkerApi:
    """The endpoints of workers."""

    def __init__(self, scheduler: Scheduler, blobs: Blobs, networks: Sequence[Network] = ()) -> None:
        """networks: that workers' URLs must be in; none: any."""
        self.scheduler, self.blobs = scheduler, blobs
        self._networks = tuple(networks)
        self._checked: set[str] = set()     # URLs

    def get_workers(self, request: Request) -> Response:
        return Response(200, {"workers": self.scheduler.view.workers()})

    def post_workers(self, request: Request) -> Response:
        beat = messages.read_heartbeat(request.document())
        self._check_network(beat.url)
        return Response(200, self.scheduler.heartbeat(
            beat.name, beat.url, beat.slots, beat.about, beat.running, boot_id=beat.boot_id, draining=beat.draining,
            dispatch_key=beat.dispatch_key, attempt_secrets=beat.attempt_secrets))

    def _check_network(self, url: str) -> None:
        """Raises Problem 403 for a worker at an address outside of `worker_networks`: its key may have been stolen."""
        if not self._networks or url in self._checked:
            return
        host = urlsplit(url).hostname or ""
        try:
            found = {ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, None)}
        except (OSError, ValueError):
            found = set()
        if not found or not all(any(address in network for network in self._networks) for address in found):
            raise Problem(403, "worker-not-allowed", f"url: {host} is not in worker_networks, "
                          f"{', '.join(map(str, self._networks))}", field="url")
        self._checked.add(url)

    def post_drain(self, request: Request) -> Response:
        wanted = request.document()
        if set(wanted) - {"drain"} or not isinstance(wanted.get("drain", True), bool):
            raise Problem(422, "invalid-field", 'drain: expected true or false, as in {"drain": true}', field="drain")
        name = request.params["name"]
        if not self.scheduler.drain_worker(name, wanted.get("drain", True)):
            raise Problem(404, "unknown-worker", f"no worker {name[:100]!r} is known")
        return Response(202, {"name": name, "drained": wanted.get("drain", True)})

    def post_progress(self, request: Request) -> Response:
        said = messages.read_progress(request.document())
        self.scheduler.checks.secret(said.run, said.attempt, said.secret)
        self.scheduler.progress(said.run, said.attempt, said.data)
        return Response(200, {"run": said.run, "attempt": said.attempt})

    def post_result(self, request: Request) -> Response:
        end = messages.read_end(request.document())
        self.scheduler.checks.secret(end.run, end.attempt, end.secret)
        if end.state is State.COMPLETED:
            for name, about in end.artifacts.items():
                if self.blobs.size(about["sha256"]) != about["bytes"]:
                    raise Problem(422, "missing-artifact", f"artifacts.{name}: {about['bytes']} bytes under "
                                  f"{about['sha256']} were expected to be stored before the result", field="artifacts")
        run = self.scheduler.finished(end.run, end.attempt, end.state, end.result, end.error, end.artifacts)
        return Response(200, {"run": run.id, "attempt": end.attempt, "status": run.state})
