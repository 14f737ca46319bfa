"""Both programs over TLS, each asking the other for a certificate and a key; and certificates that change meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_rig import Wire, get, wait_until

import orchestrator
from service.http import authentication
from service.http.client import Client, ClientError, Refused
from service.http.listening import ServerSettings, client_certificate
from service.runtime.settings import SettingsError

ROOT = Path(__file__).resolve().parent.parent
CERTIFICATES = ROOT / "tests" / "tls"
CA = str(CERTIFICATES / "ca.pem")
CLIENT = ["--client-cert", str(CERTIFICATES / "client.pem"), "--client-key", str(CERTIFICATES / "client.key")]
CALLER = (str(CERTIFICATES / "client.pem"), str(CERTIFICATES / "client.key"))
RAW = ["--warm", "raw", "--codec", "raw=tests.standin:Raw"]  # a codec that is ready at once
START_S = 60.0


@contextlib.contextmanager
def running(name: str, *arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A program and where it listens."""
    process = subprocess.Popen([sys.executable, f"{name}.py", "--port", "0", "--log-level", "warning", *arguments],
                               cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    assert process.stdout is not None
    try:
        found = re.search(r"listening on (\S+)", process.stdout.readline())
        assert found
        yield found[1], process
    finally:
        process.terminate()
        process.wait(START_S)
        process.stdout.close()


def served_by(folder: Path, name: str) -> list[str]:
    """Flags of TLS with certificate files that can be exchanged; callers must show a certificate."""
    exchange(folder, name)
    return ["--tls-cert", str(folder / "used.pem"), "--tls-key", str(folder / "used.key"), "--tls-client-ca", CA]


def exchange(folder: Path, name: str) -> None:
    for kind in ("pem", "key"):
        (folder / f"used.{kind}").write_bytes((CERTIFICATES / f"{name}.{kind}").read_bytes())


def new_key(state: Path, role: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert orchestrator.main(["keys", "--state", str(state), "add", "--role", role]) == 0
    return capsys.readouterr().out.strip()


def test_the_services_know_each_other_by_certificate_and_key(tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "orchestrator"
    worker_key, client_key = new_key(state, "worker", capsys), new_key(state, "client", capsys)
    accept_key, _ = authentication.new_key("admin")
    tls = served_by(tmp_path, "server")
    with running("orchestrator", "--state", str(state), "--worker-ca", CA, *tls, *CLIENT,
                 NVC_WORKER_KEY=accept_key) as (url, _), \
         running("worker", "--state", str(tmp_path / "worker"), "--orchestrator", url, "--ca", CA, *tls, *CLIENT,
                 *RAW, NVC_KEY=worker_key,
                 NVC_ACCEPT_KEY=accept_key) as (worker_url, _):
        assert url.startswith("https://")
        asking = Client(url, key=client_key, verify=CA, cert=CALLER, read_s=START_S)
        wait_until(lambda: any(worker["free"] for worker in asking.get("/workers").document["workers"]))
        done = asking.post("/experiment", {"codec": "raw", "clip": "carphone", "frames": 2},
                           headers={"Prefer": "wait=60"})
        assert done.document["status"] == "completed"
        for where in (url, worker_url):  # a key alone does not get as far as HTTP
            with pytest.raises(ClientError) as refused:
                Client(where, key=client_key, verify=CA, retries=0).get("/health")
            assert not isinstance(refused.value, Refused)
        with pytest.raises(Refused, match="401"):  # and neither does a certificate without a key
            Client(worker_url, verify=CA, cert=CALLER, retries=0).get("/status")


@pytest.mark.parametrize(("name", "flags"), [("orchestrator", []), ("worker", RAW)], ids=["orchestrator", "worker"])
def test_sighup_changes_the_certificate_and_drops_nobody(tmp_path: Path, name: str, flags: list[str]) -> None:
    context = ssl.create_default_context(cafile=CA)
    context.load_cert_chain(*CALLER)

    def connect(port: int) -> Wire:
        return Wire(("127.0.0.1", port), lambda sock: context.wrap_socket(sock, server_hostname="localhost"))

    def subject(wire: Wire) -> str:
        assert isinstance(wire.sock, ssl.SSLSocket)
        return dict(item[0] for item in (wire.sock.getpeercert() or {})["subject"])["commonName"]  # type: ignore[misc]

    def seen(port: int) -> str:
        with connect(port) as wire:
            return subject(wire)

    tls = served_by(tmp_path, "server")
    with running(name, "--state", str(tmp_path / "state"), *flags, *tls) as (url, process):
        port = int(url.rsplit(":", 1)[1])
        with connect(port) as old:
            exchange(tmp_path, "renewed")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: seen(port) == "test renewed")
            (tmp_path / "used.pem").write_text("nonsense")  # a mistake: what was read last goes on
            process.send_signal(signal.SIGHUP)
            for _ in range(2):
                old.send(get("/livez"))
                answer = old.answer()
                assert answer is not None
                assert (answer.status, subject(old), seen(port)) == (200, "test server", "test renewed")


@pytest.mark.parametrize("given", [{"client_cert": Path(CALLER[0])}, {"client_key": Path(CALLER[1])},
                                   {"client_cert": Path("/nowhere"), "client_key": Path("/nowhere")}])
def test_half_a_certificate_is_refused(given: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="client_cert and client_key"):
        client_certificate(ServerSettings(**given))  # type: ignore[arg-type]
