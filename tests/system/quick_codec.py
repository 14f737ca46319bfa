"""A codec process that needs no codec: it speaks the worker's protocol and does as the experiment's `model` says.

Everything around it is real: the worker that starts, supervises and kills it, the guard in its group, its exit status,
its files. Only what it writes to them is made up, in a millisecond, so that a trial can have hundreds of experiments.

    plain            a few bytes at once             sleep-0.2        the same, later
    gate             waits for the file $NVC_TEST_GATE
    spin-3           holds the interpreter's lock    chatter-50       reports progress so many times
    liar             tells another SHA-256 of its stream than it has
    segfault, exit   dies                            deaf             ignores SIGTERM, has a child, and never ends
    refuse, memory, disk-full                        fails in the words of a codec

Each start of an attempt is a line of the file $NVC_TEST_STARTS, and each result names the attempt that made it.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from service.processes.codec_process import Channel, leave_a_guard  # noqa: E402

ABOUT = {"codecs": {"quick": {"codec": "quick"}}, "known": ["quick"], "segmented": ["quick"], "device": "cpu"}
ERRORS = {
    "refuse": {"type": "codec-refused", "detail": "quality: 32 is not to my taste", "retry": False},
    "memory": {"type": "out-of-memory", "detail": "the codec ran out of memory", "retry": True},
    "disk-full": {"type": "disk-full", "detail": "the worker's disk is full", "retry": True},
}


def phase(name: str, frame: int = 0) -> dict[str, Any]:
    """A message of progress."""
    return {"progress": {"phase": name, "fraction": 0.0, "frame": frame, "frames": None, "fps": None}}


def carry_out(channel: Channel, job: dict[str, Any], folder: Path) -> None:
    """One run; its end is sent."""
    script, _, argument = job["experiment"]["model"].partition("-")
    attempt = int(folder.name.rpartition(".")[2])
    starts = os.open(os.environ["NVC_TEST_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(starts, f"{job['run']} {attempt}\n".encode())
    os.close(starts)
    if script == "gate":
        channel.send(phase("gate"))
        while not Path(os.environ["NVC_TEST_GATE"]).exists():
            time.sleep(0.01)
    elif script == "spin":
        channel.send(phase("spin"))
        ctypes.PyDLL(None).usleep(int(float(argument) * 1e6))  # PyDLL keeps the interpreter's lock
    elif script == "sleep":
        time.sleep(float(argument))
    elif script == "segfault":
        ctypes.string_at(0)
    elif script == "exit":
        os._exit(3)
    elif script == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        channel.send(phase("deaf"))
        while True:
            time.sleep(60)
    elif script == "chatter":
        for frame in range(int(argument)):
            channel.send(phase("encode", frame))
    if job["experiment"]["model"] in ERRORS:
        channel.send({"error": ERRORS[job["experiment"]["model"]], "replace": False})
        return
    data = f"{job['run']} coded by attempt {attempt}\n".encode()
    for files in job.get("segments", ()):
        data += Path(files["stream.quick"]).read_bytes()
    (folder / "stream.quick").write_bytes(data)
    about = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    told = about if script != "liar" else {**about, "sha256": "0" * 64}
    channel.send({"result": {
        "encoding_result": {"compressed_data": "", **told, "encode_s": 0.001},
        "decoding_result": {"reconstructed_video": None, "matches_encoder": True, "quality_metrics": {}},
        "metrics": {"bitrate_mbps": 0.1, "psnr_db": 40.0}, "frames": [{"index": 0, "type": "I", **about}],
        "provenance": {"attempt": attempt},
    }, "artifacts": {"stream.quick": about}})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int)
    parser.add_argument("--lifeline", type=int)
    options, _ = parser.parse_known_args()
    os.set_inheritable(options.socket, False)
    os.set_inheritable(options.lifeline, False)
    leave_a_guard(options.lifeline)
    channel = Channel(socket.socket(fileno=options.socket))
    while (message := channel.receive()) is not None:
        if message["command"] == "warm":
            channel.send({"ready": ABOUT})
        else:
            carry_out(channel, message["job"], Path(message["out_dir"]))


if __name__ == "__main__":
    main()
