"""Pictures of the page in a browser: the README's, a sweep of nvc beside x264 and x265.

    python -m bench.readme.page [docs/pictures/page.png] [--clip bikes --frames 33] [--browser firefox-esr]

Starts both services, runs the sweep, and has a Firefox without a screen look at it. Prints the BD-rates as JSON.
"""

from __future__ import annotations

import argparse
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench.service import both_running, wait_end

QUALITIES = [12, 20, 28, 36, 44]
LOOK_S = 6.0                # until the page has drawn its data
SIZE = "1200,1060"


class Slow(http.server.BaseHTTPRequestHandler):
    """Hands everything on to the orchestrator, with an image in the page that takes LOOK_S: a browser takes its picture
    when a page has loaded, and the data comes after that."""

    orchestrator = ""

    def do_GET(self) -> None:
        if self.path == "/slow.png":
            time.sleep(LOOK_S)
            self.send_error(404)
            return
        fields = {name: value for name, value in self.headers.items() if name.lower() in ("accept", "prefer")}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(f"{self.orchestrator}{self.path}", headers=fields))
        except urllib.error.HTTPError as error:
            answer = error
        data = answer.read()
        if self.path == "/":
            data = data.replace(b"</body>", b'<img src="slow.png" alt="" hidden></body>')
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/octet-stream"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""


def picture_of(orchestrator: str, view: str, out: Path, browser: str) -> None:
    """A view of the page, as the browser draws it."""
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Slow,), {"orchestrator": orchestrator}))
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run([browser, "--headless", "--profile", profile, "--screenshot", str(out.resolve()),
                        f"--window-size={SIZE}", f"http://127.0.0.1:{proxy.server_address[1]}/#/{view}"],
                       check=True, capture_output=True, timeout=120)
    proxy.shutdown()
    proxy.server_close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/pictures/page.png"))
    parser.add_argument("--clip", default="bikes")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--browser", default="firefox-esr")
    o = parser.parse_args()
    if shutil.which(o.browser) is None:
        parser.error(f"--browser: {o.browser!r} is not here; Debian's package firefox-esr has it")
    with tempfile.TemporaryDirectory() as name, both_running(Path(name)) as (orchestrator, call):
        made = call("POST", "/experiment", {"clip": o.clip, "codec": ["nvc", "x264", "x265"], "quality": QUALITIES,
                                            "frames": o.frames, "label": f"nvc beside x264 and x265 on {o.clip}"})
        document = wait_end(call, made["experiment_id"])
        picture_of(orchestrator, f"experiment/{made['experiment_id']}", o.out, o.browser)
    print(json.dumps({"command": "python -m bench.readme.page", "curves": document["bd_rate"]["curves"],
                      "psnr_y": document["bd_rate"]["metrics"]["psnr_y"]["mean"]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
