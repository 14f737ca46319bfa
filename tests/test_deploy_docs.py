"""docs/deploy.md, "More hosts", followed word for word on this machine: it gives a worker the least rights."""
from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60


def blocks(heading: str) -> list[str]:
    """The code blocks of a section of docs/deploy.md."""
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    return re.findall(r"```\n(.*?)```", text.split(f"## {heading}\n")[1].split("\n## ")[0], re.S)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Machine:
    """Both hosts, below a folder; what the text says of their addresses holds for loopback ones."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, {"orchestrator": free_port(), "worker": free_port()}

    def here(self, text: str) -> str:
        for words, instead in (
                ("sudo -u nvc ", ""), ("sudo ", ""),
                ("systemd/install.sh", f"{ROOT}/systemd/install.sh --root {self.folder}"),
                ("/opt/nvc/.venv/bin/python", sys.executable), ("systemctl enable --now nvc-worker\n", ""),
                ("/opt/nvc/", f"{self.folder}/opt/nvc/"), ("/var/lib/", f"{self.folder}/var/lib/"),
                ("/etc/nvc/", f"{self.folder}/etc/nvc/"), ("10.0.0.0/16", "127.0.0.0/8"), ("0.0.0.0", "127.0.0.1"),
                ("10.0.0.5:8081", f"127.0.0.1:{self.ports['orchestrator']}"),
                ("10.0.0.6:8080", f"127.0.0.1:{self.ports['worker']}")):
            text = text.replace(words, instead)
        return text

    def run(self, commands: str) -> None:
        done = subprocess.run(["bash", "-e", "-c", self.here(commands)], cwd=self.folder, capture_output=True,
                              text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def started(self, program: str) -> Iterator[None]:
        """The program as its unit starts it: settings of its file, credentials that the installation has laid there."""
        settings = dict(line.split("=", 1) for line in (self.folder / f"etc/nvc/{program}.env").read_text().splitlines()
                        if line.startswith("NVC_"))
        credentials = self.folder / f"credentials-{program}"
        credentials.mkdir()
        for conf in (self.folder / f"etc/systemd/system/nvc-{program}.service.d").glob("credential-*.conf"):
            [(name, path)] = re.findall(r"LoadCredential=(\w+):(\S+)", conf.read_text())
            (credentials / name).write_bytes((self.folder / path.lstrip("/")).read_bytes())
        process = subprocess.Popen(
            [sys.executable, str(self.folder / f"opt/nvc/{program}.py")], cwd=self.folder, stderr=subprocess.DEVNULL,
            env={**os.environ, **settings, "CREDENTIALS_DIRECTORY": str(credentials), "NVC_WARM": "x264",
                 "NVC_PORT": str(self.ports[program]), "NVC_STATE": str(self.folder / f"var/lib/nvc-{program}")})
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def until_registered(url: str, key: str) -> list[dict[str, object]]:
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        try:
            answer = requests.get(f"{url}/workers", headers={"Authorization": f"Bearer {key}"}, timeout=5)
            if found := answer.json()["workers"]:
                return list(found)
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    raise AssertionError("no worker registered")


def test_following_the_text_for_more_hosts_gives_a_worker_the_least_rights(tmp_path: Path) -> None:
    machine, (orchestrator, worker) = Machine(tmp_path), blocks("More hosts")
    machine.run(orchestrator)
    [settings] = re.findall(r"^# /etc/nvc/worker.env: (.*)$", worker, re.M)
    machine.run(worker)
    with open(tmp_path / "etc/nvc/worker.env", "a", encoding="utf-8") as file:
        file.write(machine.here("\n".join(settings.split())) + "\n")
    keys = orchestrator.splitlines()[1]
    machine.run(f"{keys}\n$keys add --role admin --label test > admin.key")
    own, admin = ((tmp_path / f"{name}.key").read_text().strip() for name in ("worker", "admin"))
    url = f"http://127.0.0.1:{machine.ports['orchestrator']}"
    with ExitStack() as stack:
        stack.enter_context(machine.started("orchestrator"))
        stack.enter_context(machine.started("worker"))
        [registered] = until_registered(url, admin)
        assert registered["url"] == f"http://127.0.0.1:{machine.ports['worker']}"

        def answer(method: str, path: str, key: str | None, document: object = None) -> int:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            return requests.request(method, f"{url}{path}", headers=headers, json=document, timeout=10).status_code

        assert answer("POST", "/experiment", own, {}) == 403           # a worker's key submits nothing
        assert answer("GET", "/experiments", own) == 403                    # and reads nothing
        assert answer("GET", "/experiments", None) == 401                   # nobody does without a key
        made = {"name": "w2", "url": "http://192.0.2.1:8080"}
        assert answer("POST", "/workers", own, made) in (403, 422)     # a worker outside the networks
        assert answer("GET", "/experiments", admin) == 200
    assert (tmp_path / "etc/nvc/credentials/nvc-worker.key").stat().st_mode & 0o077 == 0
