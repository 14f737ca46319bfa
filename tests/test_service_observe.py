"""Logs, metrics, and what systemd is told."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_rig import get, running

from service.http.exchange import Response
from service.http.routes import Routes
from service.runtime.logs import Log
from service.runtime.prometheus import METRICS_TYPE, Metrics
from service.runtime.systemd import Notifier, Watchdog, listen_sockets

ROOT = Path(__file__).resolve().parent.parent


def parsed(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample as the Prometheus project's own parser reads it."""
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(metrics.render()) for sample in family.samples}


# --- metrics --------------------------------------------------------------------------------------------------------


def test_a_counter() -> None:
    metrics = Metrics()
    counter = metrics.counter("nvc_runs_total", "Runs.", ("codec",))
    counter.inc(codec="nvc")
    counter.inc(2.5, codec="x264")
    assert parsed(metrics) == {("nvc_runs_total", (("codec", "nvc"),)): 1,
                               ("nvc_runs_total", (("codec", "x264"),)): 2.5}


def test_a_counter_only_goes_up() -> None:
    with pytest.raises(ValueError, match="lower"):
        Metrics().counter("a_total", "A.").inc(-1)


def test_a_gauge() -> None:
    metrics = Metrics()
    gauge = metrics.gauge("nvc_leases", "Leases.", ("worker",))
    gauge.set(3, worker="w1")
    gauge.inc(-1, worker="w1")
    gauge.set(float("inf"), worker="w2")
    gauge.set(1, worker="w3")
    gauge.remove(worker="w3")
    assert parsed(metrics) == {("nvc_leases", (("worker", "w1"),)): 2,
                               ("nvc_leases", (("worker", "w2"),)): float("inf")}


def test_a_gauge_that_is_asked() -> None:
    metrics = Metrics()
    metrics.gauge("nvc_a", "A.").track(lambda: 7)
    metrics.gauge("nvc_b", "B.", ("x",)).track(lambda: [({"x": "1"}, 1), ({"x": "2"}, 2)])
    assert parsed(metrics) == {("nvc_a", ()): 7, ("nvc_b", (("x", "1"),)): 1, ("nvc_b", (("x", "2"),)): 2}


def test_a_histogram_is_cumulative() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("nvc_s", "Seconds.", ("route",), buckets=(0.1, 1))
    for value in (0.05, 0.1, 0.5, 5):
        histogram.observe(value, route="/")
    route = ("route", "/")
    assert parsed(metrics) == {
        ("nvc_s_bucket", (("le", "0.1"), route)): 2, ("nvc_s_bucket", (("le", "1"), route)): 3,
        ("nvc_s_bucket", (("le", "+Inf"), route)): 4, ("nvc_s_sum", (route,)): 5.65, ("nvc_s_count", (route,)): 4}


def test_a_metric_without_labels_exists_before_its_first_event() -> None:
    metrics = Metrics()
    metrics.counter("a_total", "A.")
    metrics.histogram("b", "B.", buckets=(1,))
    assert parsed(metrics) == {("a_total", ()): 0, ("b_bucket", (("le", "1"),)): 0, ("b_bucket", (("le", "+Inf"),)): 0,
                               ("b_sum", ()): 0, ("b_count", ()): 0}


def test_labels_and_help_are_escaped() -> None:
    metrics = Metrics()
    nasty = 'a\\b"c\nd{}, é'
    metrics.gauge("nvc_a", "Back\\slash and\nline.", ("x",)).set(1, x=nasty)
    family = next(iter(text_string_to_metric_families(metrics.render())))
    assert family.documentation == "Back\\slash and\nline."
    assert family.samples[0].labels == {"x": nasty}


def test_the_same_name_is_the_same_metric() -> None:
    metrics = Metrics()
    assert metrics.counter("a_total", "A.") is metrics.counter("a_total", "A.")
    with pytest.raises(ValueError, match="exists as a counter"):
        metrics.gauge("a_total", "A.")
    with pytest.raises(ValueError, match="exists as a counter"):
        metrics.counter("a_total", "A.", ("x",))


@pytest.mark.parametrize(("name", "labels"), [("a-b", ()), ("1a", ()), ("", ()), ("a", ("le",)), ("a", ("__x",)),
                                              ("a", ("x y",))])
def test_names_that_cannot_be_written(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name"):
        Metrics().gauge(name, "A.", labels)


@pytest.mark.parametrize("labels", [{}, {"y": "1"}, {"x": "1", "y": "1"}])
def test_wrong_labels_are_a_mistake_of_the_program(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics().counter("a_total", "A.", ("x",)).inc(**labels)


def test_counting_from_many_threads_loses_nothing() -> None:
    counter = Metrics().counter("a_total", "A.")
    threads = [threading.Thread(target=lambda: [counter.inc() for _ in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.samples() == ["a_total 16000"]


def test_the_server_counts_its_requests() -> None:
    def add(routes: Routes, rig: object) -> None:
        routes.add("GET", "/metrics", lambda request: Response(
            200, rig.metrics.render(), {"Content-Type": METRICS_TYPE}), produces="text/plain")  # type: ignore

    with running(add) as rig:
        for path in ("/echo", "/nowhere"):
            rig.lines_of(rig.ask(get(path)).headers["x-request-id"])  # counted once it is in the log
        answer = rig.ask(get("/metrics", "Accept: application/openmetrics-text;version=1.0.0;q=0.5,"
                             "text/plain;version=0.0.4;q=0.3,*/*;q=0.1"))
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        samples = {(sample.name, *sample.labels.values()): sample.value
                   for family in text_string_to_metric_families(answer.body.decode()) for sample in family.samples}
        assert samples["nvc_http_requests_total", "GET", "/echo", "200"] == 1
        assert samples["nvc_http_requests_total", "GET", "none", "404"] == 1
        assert samples["nvc_http_request_seconds_count", "/echo"] == 1
        assert samples["nvc_http_connections",] >= 1


# --- the log --------------------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    log = Log(stream, service="worker")
    log.info("run-started", run="exp_1", path=Path("a\nb"), text="é\u2028")
    line, rest = stream.getvalue().split("\n")
    document = json.loads(line)
    assert (rest, line.isascii()) == ("", True)
    assert document.pop("time").endswith("Z")
    assert document == {"level": "info", "event": "run-started", "service": "worker", "run": "exp_1", "path": "a\nb",
                        "text": "é\u2028"}


def test_levels_below_are_left_out() -> None:
    stream = io.StringIO()
    log = Log(stream, level="warning")
    log.info("a")
    log.debug("b")
    log.warning("c")
    log.error("d", error=ValueError("why"))
    documents = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [document["event"] for document in documents] == ["c", "d"]
    assert documents[1]["error"] == "ValueError: why"


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        Log(io.TextIOWrapper(full, write_through=True)).info("a")
    closed = io.StringIO()
    closed.close()
    Log(closed).info("a")


def test_a_reader_that_has_stopped_reading_stops_nothing() -> None:
    code = ("from service.runtime.logs import Log\nlog = Log()\n"
            "for _ in range(20_000):\n    log.info('x', text='y' * 100)\nprint('done', flush=True)\n")
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as child:  # whose standard error nobody reads
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        try:
            assert child.wait(20) == 0
        finally:
            child.kill()


def test_the_last_lines_are_written_at_the_end_of_the_process() -> None:
    code = "from service.runtime.logs import Log\nlog = Log()\nfor n in range(500):\n    log.info('x', n=n)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=20, check=True)
    assert [json.loads(line)["n"] for line in done.stderr.splitlines()] == list(range(500))


def test_lines_of_libraries_have_the_same_form() -> None:
    code = ("import logging\nfrom service.runtime.logs import Log\nLog(service='worker').adopt_libraries()\n"
            "logging.getLogger('urllib3').warning('connection %s', 'lost')\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=20, check=True)
    line = json.loads(done.stderr)
    assert (line["level"], line["event"], line["service"]) == ("warning", "connection lost", "worker")


def test_cloudwatch_lines_only_when_asked() -> None:
    stream = io.StringIO()
    Log(stream).emf({"Latency": (12.5, "Milliseconds")}, Route="/")
    assert stream.getvalue() == ""
    Log(stream, emf="NVC").emf({"Latency": (12.5, "Milliseconds")}, Route="/")
    document = json.loads(stream.getvalue())
    assert document["_aws"]["CloudWatchMetrics"] == [
        {"Namespace": "NVC", "Dimensions": [["Route"]], "Metrics": [{"Name": "Latency", "Unit": "Milliseconds"}]}]
    assert (document["Latency"], document["Route"], document["_aws"]["Timestamp"] > 0) == (12.5, "/", True)


# --- systemd --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """A notification socket and its NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/notify" if request.param == "file" else f"@nvc-test-{os.getpid()}"
        sock.bind(path.replace("@", "\0"))
        sock.settimeout(10)
        yield sock, path


def test_messages_to_systemd(systemd: tuple[socket.socket, str]) -> None:  # sd_notify(3)
    sock, path = systemd
    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())})
    notifier.ready("listening on\n8081")
    notifier.status("2 runs")
    notifier.watchdog()
    notifier.extend(2.5)
    notifier.stopping()
    notifier.reloading()
    got = [sock.recv(1000).decode() for _ in range(6)]
    assert got[:5] == ["READY=1\nSTATUS=listening on 8081", "STATUS=2 runs", "WATCHDOG=1",
                       "EXTEND_TIMEOUT_USEC=2500000", "STOPPING=1"]
    assert got[5].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert notifier.watchdog_s == 10.0


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "1000000"},
                                     {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}])
def test_no_watchdog_where_nobody_watches(environ: dict[str, str]) -> None:
    assert Notifier(environ).watchdog_s is None


def test_without_systemd_nothing_happens() -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": "/nowhere/notify"}).ready()


def test_the_ping_is_sent_only_when_every_check_passed(systemd: tuple[socket.socket, str]) -> None:
    sock, path = systemd
    stream = io.StringIO()
    calls: list[str] = []

    def database() -> None:
        calls.append("database")
        if len(calls) == 1:
            raise OSError("disk full")

    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"})
    watchdog = Watchdog(notifier, {"database": database, "http": lambda: calls.append("http")},
                                Log(stream))
    watchdog.start()
    assert sock.recv(100) == b"WATCHDOG=1"
    watchdog.stop()
    assert calls[:3] == ["database", "database", "http"]
    assert json.loads(stream.getvalue().splitlines()[0])["check"] == "database"


ACTIVATED = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from service.runtime.systemd import listen_sockets
found = listen_sockets()
print([(sock.getsockname()[0], sock.get_inheritable()) for sock in found])
"""


def test_sockets_that_systemd_passes() -> None:  # sd_listen_fds(3): from descriptor 3 on
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def pass_on() -> None:
            os.dup2(listener.fileno(), 3)

        done = subprocess.run([sys.executable, "-c", ACTIVATED], capture_output=True, text=True, timeout=20,
                              cwd=Path(__file__).parent.parent, env={**os.environ, "LISTEN_FDS": "1"},
                              pass_fds=(3,), preexec_fn=pass_on, check=True)
    assert done.stdout == "[('127.0.0.1', False)]\n"


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
                                     {"LISTEN_FDS": "x", "LISTEN_PID": "7"}])
def test_sockets_for_someone_else(environ: dict[str, str]) -> None:
    assert listen_sockets(environ, pid=7) == []
