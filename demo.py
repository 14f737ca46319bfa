"""Both services on free ports, the default experiment, and what it gave: `make demo`.

Prints progress and the result's JSON, and writes the worst picture beside its source into demo-output/. Stops both
services in the end; `KEEP=1 make demo` leaves them running until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from video import library
from video.files import open_clip
from video.rgb import rgb

HERE = Path(__file__).resolve().parent
OUT = HERE / "demo-output"
START_S = 120.0  # a service that has not said its address by then is broken
RUN_S = 600.0  # the experiment's own time-out, and then some
AMPLIFY = 8  # of the difference, which could not be seen otherwise


class DemoError(Exception):
    """What went wrong, fit for a user."""


@contextlib.contextmanager
def running(name: str, *arguments: str) -> Iterator[str]:
    """A service on a free port; gives its address, and stops it in the end."""
    log = OUT / f"{name}.log"
    state = OUT / "state" / name
    command = [sys.executable, str(HERE / f"{name}.py"), "--port", "0", "--state", str(state), *arguments]
    with log.open("wb") as file, (OUT / f"{name}.out").open("wb") as said:
        # A group of its own: Ctrl-C is for this program, which then stops the services in order.
        process = subprocess.Popen(command, stdout=said, stderr=file, cwd=HERE, start_new_session=True)
    try:
        yield _address(process, OUT / f"{name}.out", log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], said: Path, log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = re.search(r"listening on (http\S+)", said.read_text())
        if found:
            return found[1]
        if process.poll() is not None:
            raise DemoError(f"{log.stem} ended with exit code {process.returncode}:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)
    raise DemoError(f"{log.stem} said no address within {START_S:g} s; its log is {log}")


def events(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The experiment's events as they come: (kind, data)."""
    with requests.get(url, stream=True, timeout=(5, 60), headers={"Accept": "text/event-stream"}) as answer:
        answer.raise_for_status()
        kind = ""
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)


def follow(url: str) -> None:
    """Show progress until the experiment has ended."""
    deadline = time.monotonic() + RUN_S
    with tqdm(total=100, bar_format="{desc:<24}{bar:40}{n:4.0f} %  {elapsed}") as bar:
        for kind, data in events(url):
            if kind == "progress":
                frames = f" {data['frame']}/{data['frames']}" if data.get("frames") else ""
                bar.set_description_str(f"{data.get('phase', '')}{frames}")
                bar.n = 100 * (data.get("fraction") or 0.0)
            elif kind == "state":
                bar.set_description_str(str(data.get("status", "")))
            elif kind == "result":
                bar.n = 100
                bar.set_description_str(str(data.get("status", "")))
                bar.refresh()
                return
            bar.refresh()
            if time.monotonic() > deadline:
                raise DemoError(f"the experiment has not ended within {RUN_S:g} s")


def compare(source: Path, decoded: Path, index: int, out: Path) -> None:
    """Write one picture of both clips and their difference, side by side, small ones enlarged."""
    looks: list[NDArray[np.floating]] = []
    for path in (source, decoded):
        with open_clip(path) as clip:
            looks.append(rgb(next(islice(iter(clip), index, None)), clip.info))
    looks.append((128 + AMPLIFY * (looks[1] - looks[0])).clip(0, 255))
    times = max(1, 640 // looks[0].shape[1])
    Image.fromarray(np.hstack(looks).repeat(times, 0).repeat(times, 1).round().astype(np.uint8)).save(out)


def shortened(document: dict[str, Any]) -> str:
    """The result as JSON, of the pictures only the first two, one a line."""
    frames = document.get("frames") or []
    text = json.dumps({**document, "frames": "FRAMES"}, indent=2)
    lines = [f"    {json.dumps(frame)}," for frame in frames[:2]] + [f"    … {len(frames)} in all"]
    return text.replace('"FRAMES"', "[\n" + "\n".join(lines) + "\n  ]")


def demo() -> None:
    """The whole of it."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with running("orchestrator") as orchestrator, running("worker", "--orchestrator", orchestrator) as worker:
        print(f"orchestrator {orchestrator}\nworker       {worker}\n")
        print(f"$ curl -X POST {orchestrator}/experiment -d '{{}}'")
        accepted = requests.post(f"{orchestrator}/experiment", json={}, timeout=30)
        accepted.raise_for_status()
        experiment = f"{orchestrator}/experiment/{accepted.json()['experiment_id']}"
        print(f"{accepted.status_code} {accepted.text.strip()}\n")
        follow(f"{experiment}/events")
        document = requests.get(f"{experiment}/status", timeout=30).json()
        (OUT / "result.json").write_text(json.dumps(document, indent=2) + "\n")
        print(f"\n$ curl {experiment}/status\n{shortened(document)}\n")
        if document["status"] != "completed":
            raise DemoError(f"the experiment is {document['status']}: {document.get('error')}")
        for name in ("stream.nvc", "reconstruction.mkv"):
            with requests.get(f"{experiment}/artifacts/{name}", stream=True, timeout=30) as answer:
                answer.raise_for_status()
                with (OUT / name).open("wb") as file:
                    shutil.copyfileobj(answer.raw, file)
        worst = min(document["frames"], key=lambda frame: frame["psnr_db"])["index"]
        compare(library.find(document["clip"]["name"]), OUT / "reconstruction.mkv", worst, OUT / "comparison.png")
        print(f"Everything is in {OUT}, with comparison.png: picture {worst}, the worst, as source, decoded, and "
              f"their difference times {AMPLIFY}.")
        if os.environ.get("KEEP"):
            print(f"\nStill running, until Ctrl-C: {orchestrator} and {worker}")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
        else:
            print("Both services are stopped now; KEEP=1 make demo leaves them running.")


if __name__ == "__main__":
    try:
        demo()
    except (DemoError, requests.RequestException) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: stopped")
