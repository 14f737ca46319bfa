"""A Firefox without a screen that looks at the page, and scripts of tests that run in it.

No driver is needed: the page comes through a proxy that adds one script to it (steps.js). That asks the proxy for what
to do next, loads it as a module, as the page's policy wants, and says what it returned, or what went wrong.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
START_S, STEP_S = 60.0, 40.0
HERE = Path(__file__).resolve().parent
KEPT = ("etag", "content-security-policy", "location", "retry-after", "x-content-type-options")


class Proxy(ThreadingHTTPServer):
    """Between the browser and an orchestrator, whose `target` may change."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = ""
        self.modules: dict[str, str] = {}
        self.next: queue.Queue[dict[str, Any]] = queue.Queue()
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()


    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser leaves in the middle of answers."""


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def pass_on(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.path == "/next":
            try:
                self.answer(200, "application/json", json.dumps(self.server.next.get(timeout=20)).encode())
            except queue.Empty:
                self.answer(204, "application/json", b"")
        elif self.path == "/said":
            self.server.said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(204, "application/json", b"")
        elif name == "steps.js":
            self.answer(200, "text/javascript", (HERE / name).read_bytes())
        elif name in self.server.modules:
            self.answer(200, "text/javascript", self.server.modules[name].encode())
        else:
            self.hand_on()

    def hand_on(self) -> None:
        there = http.client.HTTPConnection(urlsplit(self.server.target).netloc, timeout=STEP_S)
        fields = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        there.request(self.command, self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))) or None,
                      fields | {"Origin": self.server.target} if "Origin" in self.headers else fields)
        found = there.getresponse()
        data = found.read()
        if self.path == "/":
            data = data.replace(b"</body>", b'<script type="module" src="page/steps.js"></script></body>')
        kept = {name: value for name, value in found.getheaders() if name.lower() in KEPT}
        self.answer(found.status, found.getheader("Content-Type") or "", data, kept)

    def answer(self, status: int, kind: str, data: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(fields or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on


class Browser:
    """`look(view, script)`: what the script, the body of an async function, returns in that view of the page."""

    def __init__(self, target: str, width: int = 1200) -> None:
        assert FIREFOX is not None
        self.proxy, self.count, self.started = Proxy(), 0, False
        self.proxy.target = target
        self.profile = tempfile.mkdtemp()
        self.process = subprocess.Popen(
            [FIREFOX, "--headless", "--profile", self.profile, f"--window-size={width},900",
             f"http://127.0.0.1:{self.proxy.server_address[1]}/"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def look(self, view: str, script: str) -> Any:
        """Raises AssertionError with what the page says where the script fails, or anything went wrong unseen."""
        self.count += 1
        name = f"script-{self.count}.js"
        self.proxy.modules[name] = ("export default async function ({ $, $$, until, button, fill, press, wait }) {\n"
                                    f"{script}\n}}\n")
        self.proxy.next.put({"view": view, "script": name})
        try:
            said = self.proxy.said.get(timeout=STEP_S if self.started else START_S)
        except queue.Empty:
            raise AssertionError(f"the browser said nothing within {STEP_S:g} s") from None
        self.started = True
        assert said["error"] is None, said["error"]
        assert said["wrong"] == [], said["wrong"]
        return said["value"]

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.proxy.shutdown()
        self.proxy.server_close()
        shutil.rmtree(self.profile, ignore_errors=True)
