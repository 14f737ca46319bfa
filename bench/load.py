"""Measure the service under load and after deaths: python -m bench.load [--others PYTHON] > bench/results/load.json

    submits     durable submissions a second (SQLite, synchronous=FULL, the commit before the answer), eight clients
    latency     health, status and submit as a client sees them: idle, and while two experiments use all cores
    strangers   the same latencies with 1,000 silent connections open and 300 that send a byte a second
    memory      of the orchestrator for each idle connection, plain and TLS
    recovery    from kill -9 of a side to its being ready again (started at once, as systemd does), and to a run's end
    redispatch  from a worker's last sign of life to its run being offered to another, all at once
    cancel      from POST cancel of a run that computes to "cancelled", and to its codec process being gone
    beside      the same no-op job with a result here, on rq, on Celery and on an SQS server with long polling (moto):
                submission to the job's first instruction, to the result in the submitter's hands, jobs a second

Here the no-op job is done twice: by a worker that does nothing else ("bare", what the others do), and by a real one,
whose codec does nothing while everything around it is real ("whole": a clip encoded, decoded, measured, stored).
--others is the Python of an environment with bench/requirements-others.txt; redis-server has to be on the PATH.
Times in milliseconds where not said otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.service import (
    END_S,
    ROOT,
    WANTED,
    Caller,
    Nothing,
    Played,
    machine,
    note,
    rate,
    running,
    spread,
    timed,
    upload_point,
    wait_for_one,
    wait_for_worker,
)
from coding.interface import Encoded, Progress, Report, Settings, no_report
from service.http.client import Client
from service.http.exchange import Request, Response
from service.http.listening import ServerSettings
from service.http.routes import JSON, Routes
from service.http.server import Server
from service.runtime.logs import Log
from service.runtime.version import VERSION
from video.picture import ClipInfo, Picture

CLIENTS = 8
TLS = ROOT / "tests" / "tls"


class Busy(Nothing):
    """A codec that keeps a core busy for as long as it is let."""

    def encode(
        self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, progress: Report = no_report
    ) -> Encoded:
        progress(Progress("encode", 0, None))  # shows that it is here
        until = time.monotonic() + 600
        while time.monotonic() < until:
            sum(range(10_000))
        return super().encode(pictures, info, settings, progress)


@contextmanager
def killable(name: str, folder: Path, port: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A service on a port of its own, once it listens; whatever becomes of it, it is gone at the end."""
    command = [sys.executable, str(ROOT / f"{name}.py"), "--port", str(port), "--state", str(folder / name), *arguments]
    with open(folder / f"{name}.log", "ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
    assert process.stdout is not None  # asked for by stdout=PIPE
    try:
        if "listening" not in process.stdout.readline():
            raise RuntimeError(f"{name} does not start:\n{(folder / f'{name}.log').read_text()[-2000:]}")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def until(what: Callable[[], Any]) -> None:
    """Come back once it is true; errors of connections count as false."""
    end = time.monotonic() + END_S
    while time.monotonic() < end:
        try:
            if what():
                return
        except (OSError, RuntimeError):
            pass
        time.sleep(0.002)
    raise RuntimeError("it did not happen")


# --- what is measured ----------------------------------------------------------------------------------------------


def submits(orchestrator: str, seconds: float) -> dict[str, Any]:
    """Accepted experiments a second, sustained."""
    over = time.monotonic() + seconds
    times: list[float] = []

    def client() -> None:
        call = Caller(orchestrator)
        while time.monotonic() < over:
            began = time.perf_counter()
            call("POST", "/experiment", WANTED)
            times.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"clients": CLIENTS, "seconds": seconds, "submits_per_s": round(len(times) / seconds, 1),
            "latency": spread(times)}


def latencies(orchestrator: str, count: int) -> dict[str, Any]:
    """Of calls one at a time, on a connection that is kept."""
    call = Caller(orchestrator)
    experiment = call("POST", "/experiment", WANTED)["experiment_id"]
    return {"health": timed(count, lambda: call("GET", "/health")),
            "status": timed(count, lambda: call("GET", f"/experiment/{experiment}/status")),
            "submit": timed(count, lambda: call("POST", "/experiment", WANTED))}


def beside_strangers(orchestrator: str, count: int, silent: int, slow: int) -> dict[str, Any]:
    """Latencies while others hold connections and say nothing, or a byte a second."""
    address = orchestrator.removeprefix("http://").rsplit(":", 1)
    over = threading.Event()
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection((address[0], int(address[1])))) for _ in
                 range(silent + slow)]

        def trickle() -> None:
            for byte in b"GET /health HTTP/1.1\r\nX: " + b"y" * 600:
                for index, sock in enumerate(socks[silent:]):
                    try:
                        sock.send(bytes([byte]))
                    except OSError:  # it took too long to ask; another comes in its place
                        socks[silent + index] = stack.enter_context(
                            socket.create_connection((address[0], int(address[1]))))
                if over.wait(1.0):
                    return

        sender = threading.Thread(target=trickle)
        sender.start()
        try:
            return {"silent": silent, "slow": slow, **latencies(orchestrator, count)}
        finally:
            over.set()
            sender.join()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(folder: Path, count: int, tls: bool) -> dict[str, Any]:
    """Resident memory of the orchestrator before and with idle connections, each of which has asked once."""
    folder.mkdir()
    flags = ["--tls-cert", str(TLS / "server.pem"), "--tls-key", str(TLS / "server.key")] if tls else []
    port = free_port()
    context = ssl.create_default_context(cafile=TLS / "ca.pem") if tls else None

    def connect() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port))
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname="localhost")
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.recv(4096)
        return sock

    with killable("orchestrator", folder, port, *flags) as process, ExitStack() as stack:
        for _ in range(50):
            connect().close()
        before = resident_bytes(process.pid)
        for _ in range(count):
            stack.enter_context(connect())
        return {"connections": count, "bytes_each": round((resident_bytes(process.pid) - before) / count),
                "threads": len(os.listdir(f"/proc/{process.pid}/task"))}


def recovery(folder: Path, count: int) -> dict[str, Any]:
    """kill -9 of each side in turn, and started again at once."""
    folder.mkdir()
    port, worker_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    worker_flags = ("--orchestrator", url, "--codec", "nvc=bench.service:Nothing", "--threads", "1")
    times: dict[str, list[float]] = {"orchestrator_ready": [], "orchestrator_run_ended": [], "worker_ready": [],
                                     "worker_run_ended": []}
    with ExitStack() as stack:
        orchestrator = stack.enter_context(killable("orchestrator", folder, port))
        worker = stack.enter_context(killable("worker", folder, worker_port, *worker_flags))
        upload_point(url, folder)
        wait_for_worker(Caller(url))
        wait_for_one(Caller(url))
        for _ in range(count):
            began = time.perf_counter()
            orchestrator.kill()
            orchestrator.wait()
            orchestrator = stack.enter_context(killable("orchestrator", folder, port))
            until(lambda: Caller(url)("GET", "/readyz"))
            times["orchestrator_ready"].append(time.perf_counter() - began)
            wait_for_one(Caller(url))
            times["orchestrator_run_ended"].append(time.perf_counter() - began)
            began = time.perf_counter()
            worker.kill()
            worker.wait()
            worker = stack.enter_context(killable("worker", folder, worker_port, *worker_flags))
            until(lambda: Caller(f"http://127.0.0.1:{worker_port}")("GET", "/readyz"))
            times["worker_ready"].append(time.perf_counter() - began)
            wait_for_one(Caller(url))
            times["worker_run_ended"].append(time.perf_counter() - began)
    return {name: spread(values) for name, values in times.items()}


class Mortals:
    """Workers that take a run each and are never heard of again, and one survivor; all played here."""

    def __init__(self, orchestrator: str, count: int) -> None:
        self.last: dict[str, float] = {}  # run: when its first worker last gave a sign of life
        self.moved: dict[str, float] = {}
        self.changed = threading.Condition()
        self._client = Client(orchestrator)
        self._servers = [self._serve(self._take), self._serve(self._take_over)]
        for number in range(count):
            self.register(f"mortal{number}", 0, 1)

    def register(self, name: str, server: int, slots: int, running: Iterable[str] = ()) -> None:
        self._client.post("/workers", {
            "name": name, "url": self._servers[server].url, "slots": slots, "codecs": ["nvc"], "boot_id": name,
            "running": [{"run": run, "attempt": 2} for run in running]}, idempotent=True)

    def _serve(self, take: Callable[[Request], Response]) -> Server:
        routes = Routes()
        routes.add("POST", "/experiment", take, body=JSON)
        routes.add("POST", "/experiment/{run}/cancel", lambda request: Response(202, {}), body=JSON)
        server = Server(routes, ServerSettings(port=0), log=Log(level="error"))
        server.start()
        return server

    def _note(self, where: dict[str, float], request: Request) -> Response:
        with self.changed:
            where[request.document()["run"]] = time.perf_counter()
            self.changed.notify_all()
        return Response(202, {})

    def _take(self, request: Request) -> Response:
        return self._note(self.last, request)

    def _take_over(self, request: Request) -> Response:
        return self._note(self.moved, request)

    def stop(self) -> None:
        for server in self._servers:
            server.stop(1.0)


def redispatch(folder: Path, count: int) -> dict[str, Any]:
    """Every worker dies with its run; how long until the survivor has each."""
    folder.mkdir()
    with running("orchestrator", folder) as url, ExitStack() as stack:
        upload_point(url, folder)
        mortals = Mortals(url, count)
        stack.callback(mortals.stop)
        call = Caller(url)
        for _ in range(count):
            call("POST", "/experiment", WANTED)
        with mortals.changed:
            mortals.changed.wait_for(lambda: len(mortals.last) == count, END_S)
        end = time.monotonic() + END_S
        while len(mortals.moved) < count and time.monotonic() < end:
            mortals.register("survivor", 1, count, list(mortals.moved))
            time.sleep(1.0)
    times = sorted(mortals.moved[run] - began for run, began in mortals.last.items() if run in mortals.moved)
    return {"deaths": count, "moved": len(times), "lease_s": 10.0, **spread(times)}


def busy(folder: Path, count: int) -> dict[str, Any]:
    """Latencies while two experiments use all cores; then those are cancelled."""
    folder.mkdir()
    cancelled, gone = [], []
    with ExitStack() as stack:
        url = stack.enter_context(running("orchestrator", folder))
        worker = stack.enter_context(running("worker", folder, "--orchestrator", url, "--slots", "2", "--codec",
                                             "nvc=bench.load:Busy", "--threads", "1"))
        upload_point(url, folder)
        call = Caller(url)
        until(lambda: any(found["free"] == 2 for found in call("GET", "/workers")["workers"]))
        made: dict[str, Any] = {}
        for index in range(count):
            runs = [call("POST", "/experiment", WANTED)["experiment_id"] for _ in range(2)]
            for run in runs:
                until(lambda: (call("GET", f"/experiment/{run}/status").get("progress") or {}).get(  # noqa: B023
                    "phase") == "encode")
            if not index:
                made = latencies(url, 200)
                for entry in call("GET", "/experiments?state=queued&limit=1000")["experiments"]:
                    call("POST", f"/experiment/{entry['experiment_id']}/cancel", {})
            processes = [slot["codec_process"] for slot in Caller(worker)("GET", "/status")["slots"]]
            began = time.perf_counter()
            call("POST", f"/experiment/{runs[0]}/cancel", {})
            until(lambda: call("GET", f"/experiment/{runs[0]}/status")["status"] == "cancelled")  # noqa: B023
            cancelled.append(time.perf_counter() - began)
            call("POST", f"/experiment/{runs[1]}/cancel", {})
            until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))  # noqa: B023
            gone.append(time.perf_counter() - began)
            until(lambda: any(found["free"] == 2 for found in call("GET", "/workers")["workers"]))
    return {"latency": made, "cancelled": spread(cancelled), "both_processes_gone": spread(gone)}


# --- beside others -------------------------------------------------------------------------------------------------


def ours_bare(folder: Path, count: int) -> dict[str, Any]:
    """The no-op job, by a worker that does nothing else."""
    folder.mkdir()
    with running("orchestrator", folder) as url, ExitStack() as stack:
        upload_point(url, folder)
        played = Played(url, 8)
        stack.callback(played.stop)
        began: dict[str, float] = {}
        ended = played.end

        def end(wanted: dict[str, Any]) -> None:
            began[wanted["run"]] = time.perf_counter()
            ended(wanted)

        played.end = end  # type: ignore[method-assign]
        wait_for_worker(Caller(url))
        wait_for_one(Caller(url))
        to_start, to_result = [], []
        call = Caller(url)
        for _ in range(count):
            sent = time.perf_counter()
            document = call("POST", "/experiment", WANTED, Prefer="wait=60")
            to_result.append(time.perf_counter() - sent)
            to_start.append(began[document["experiment_id"]] - sent)
        return {"to_start": spread(to_start), "to_result": spread(to_result),
                "jobs_per_s": rate(url, 5 * count, CLIENTS)["experiments_per_s"]}


def ours_whole(folder: Path, count: int) -> dict[str, Any]:
    """The same through a real worker: clip, codec process, stream, decoding, measuring, storing."""
    folder.mkdir()
    with running("orchestrator", folder) as url, running(
            "worker", folder, "--orchestrator", url, "--codec", "nvc=bench.service:Nothing", "--threads", "1"):
        upload_point(url, folder)
        call = Caller(url)
        wait_for_worker(call)
        wait_for_one(call)
        to_start, to_result = [], []
        for _ in range(count):
            sent, watch = time.time(), time.perf_counter()
            document = call("POST", "/experiment", WANTED, Prefer="wait=60")
            to_result.append(time.perf_counter() - watch)
            to_start.append(document["encoding_result"]["details"]["began"] - sent)
        return {"to_start": spread(to_start), "to_result": spread(to_result),
                "jobs_per_s": rate(url, count, CLIENTS)["experiments_per_s"]}


@contextmanager
def redis(folder: Path, flushes: str) -> Iterator[int]:
    """A Redis server that flushes "always", "everysec", or "never" keeps anything."""
    folder.mkdir()
    port = free_port()
    keeps = ["--appendonly", "no"] if flushes == "never" else ["--appendonly", "yes", "--appendfsync", flushes]
    process = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir",
                                str(folder), *keeps], stdout=subprocess.DEVNULL)
    try:
        until(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
        yield port
    finally:
        process.terminate()
        process.wait()


DURABILITY = {
    "always": "flushed to the disk at every write, as here",
    "everysec": "flushed once a second: a power cut takes up to a second of accepted jobs",
    "memory": "none: in the server's memory",
}


def others(python: str | None, folder: Path, count: int) -> dict[str, Any]:
    """What the others take for the same."""
    if python is None or not Path(python).exists():
        return {"left_out": "no environment with bench/requirements-others.txt (--others)"}
    made: dict[str, Any] = {}

    def one(kind: str, port: int, durability: str) -> None:
        name = f"{kind}, {durability}"
        note(f"beside: {name}")
        done = subprocess.run([python, str(ROOT / "bench/others/queues.py"), kind, "--count", str(count), "--redis",
                               str(port)], capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            made[name] = {"left_out": done.stderr.strip().splitlines()[-1:]}
            return
        seen = json.loads(done.stdout)
        made[name] = {"durability": DURABILITY[durability], "to_start": spread(seen["to_start_s"]),
                      "to_result": spread(seen["to_result_s"]), "submit": spread(seen["submit_s"]),
                      "submits_per_s": seen["submits_per_s"], "jobs_per_s": seen["jobs_per_s"]}

    if shutil.which("redis-server") is None:
        made["redis"] = {"left_out": "redis-server is not installed here"}
    else:
        for flushes in ("always", "everysec"):
            for kind in ("rq", "rq-simple", "celery"):
                with redis(folder / f"{kind}-{flushes}", flushes) as port:
                    one(kind, port, flushes)
    one("sqs", free_port(), "memory")
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="experiments measured one by one (200)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of sustained submissions (20)")
    parser.add_argument("--connections", type=int, default=1000, help="idle ones (1000)")
    parser.add_argument("--deaths", type=int, default=100, help="of workers, and a tenth of it of processes (100)")
    parser.add_argument("--others", default=str(ROOT / ".venv-others/bin/python"), help="Python with the other systems")
    options = parser.parse_args()
    made: dict[str, Any] = {}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))  # this process holds the other ends
    with tempfile.TemporaryDirectory(dir=ROOT / "bench" / "results", prefix=".state-") as name:
        folder = Path(name)  # beside the repository: /tmp may be in memory, where a durable write costs nothing
        few = max(2, options.deaths // 10)
        about = machine(folder)
        parts: dict[str, Callable[[], Any]] = {
            "memory_per_idle_connection": lambda: {
                "plain": memory(folder / "plain", options.connections, False),
                "tls": memory(folder / "tls", options.connections, True)},
            "while_two_experiments_use_all_cores": lambda: busy(folder / "busy", few),
            "recovery_after_kill_9": lambda: recovery(folder / "recovery", few),
            "redispatch_after_a_workers_death": lambda: redispatch(folder / "deaths", options.deaths),
            "beside": lambda: {
                "this, bare": {"durability": DURABILITY["always"], **ours_bare(folder / "bare", options.count)},
                "this, whole": {"durability": DURABILITY["always"], **ours_whole(folder / "whole", options.count)},
                **others(options.others, folder, options.count)},
        }
        with running("orchestrator", folder) as url:
            upload_point(url, folder)
            note("idle")
            made["idle"] = latencies(url, 5 * options.count)
            note("strangers")
            made["beside_strangers"] = beside_strangers(url, 5 * options.count, options.connections,
                                                        3 * options.connections // 10)
            made["durable_submits"] = submits(url, options.seconds)
        for part, measure in parts.items():
            note(part)
            made[part] = measure()
            note(json.dumps(made[part]))
        about["load_average_at_end"] = os.getloadavg()
    said = {"command": "python -m bench.load", "version": VERSION, "machine": about, **made}
    print(json.dumps(said, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
