"""Codecs for the tests of the services: one that is honest and plain, one that misbehaves as it is told.

    worker.py --codec raw=tests.standin:Raw --codec scripted=tests.standin:Scripted --warm raw

`Scripted` reads its script from the experiment's ``model``: "sleep-2.5", "spin-3" (holds the interpreter's lock),
"segfault", "exit", "killed", "deaf" (ignores SIGTERM and never ends), "chatter" (reports progress without end),
"memory", "hungry" (takes memory until there is none), "disk-full", "refuse", "bug", "wrong-size", "wrong-count",
"wrong-kind", "wrong-many" (a picture too many), "wrong-info" (says another size), "wrong-nothing" (no bytes),
"remember" (its decoder needs the encoder's memory), "decoder-segfault", "decoder-hang", "decoder-hungry", "children"
(starts processes of its own, then never ends), "gate" (waits until the file named by $NVC_TEST_GATE exists).  Anything
else codes as Raw does.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import signal
import subprocess
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from coding.interface import Decoded, Encoded, FrameReport, Progress, Report, Settings, SettingsError, no_report
from video.picture import ClipInfo, Picture


class Raw:
    """Lossless: a line of JSON, then the pictures' bytes through zlib."""

    name = "raw"

    def warm(self) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"codec": self.name, "model_sha256": None}

    def encode(
        self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, progress: Report = no_report
    ) -> Encoded:
        digest, packed, reports = hashlib.sha256(), [], []
        for index, picture in enumerate(pictures):
            data = b"".join(plane.tobytes() for plane in picture)
            digest.update(data)
            packed.append(zlib.compress(data, 1))
            reports.append(FrameReport(index, "I", len(packed[-1])))
            progress(Progress("encode", index + 1, info.frames))
        head = {"width": info.width, "height": info.height, "fps": str(info.fps), "sizes": [len(p) for p in packed]}
        data = json.dumps(head).encode() + b"\n" + b"".join(packed)
        details = {"quality": settings.quality}
        return Encoded(data, reports, digest.hexdigest(), replace(info, frames=len(packed)), details)

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        line, _, rest = data.partition(b"\n")
        head = json.loads(line)
        info = ClipInfo(head["width"], head["height"], Fraction(head["fps"]), len(head["sizes"]))
        return Decoded(info, self._pictures(info, head["sizes"], rest))

    def _pictures(self, info: ClipInfo, sizes: list[int], rest: bytes) -> Iterator[Picture]:
        rows, columns = info.chroma_shape
        luma, chroma, at = info.width * info.height, rows * columns, 0
        for size in sizes:
            flat = np.frombuffer(zlib.decompress(rest[at : at + size]), np.uint8)
            at += size
            yield Picture(
                flat[:luma].reshape(info.height, info.width),
                flat[luma : luma + chroma].reshape(rows, columns),
                flat[luma + chroma :].reshape(rows, columns),
            )


class Scripted(Raw):
    """Misbehaves while it encodes, or in what it gives; see above."""

    name = "scripted"
    remembered: bytes | None = None

    def encode(
        self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, progress: Report = no_report
    ) -> Encoded:
        script, _, argument = settings.model.partition("-")
        if settings.model == "remember":
            Scripted.remembered = super().encode(pictures, info, settings).data
            return Encoded(b"look in your memory", [], "", info)
        if script == "sleep":
            time.sleep(float(argument))
        elif script == "spin":
            ctypes.PyDLL(None).usleep(int(float(argument) * 1e6))  # PyDLL keeps the interpreter's lock
        elif script == "segfault":
            ctypes.string_at(0)
        elif script == "exit":
            os._exit(3)
        elif script == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif script == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            progress(Progress("deaf", 0, None))
            while True:
                time.sleep(60)
        elif script == "chatter":
            count = 0
            while True:
                count += 1
                progress(Progress(f"chatter {count}", 0, None))
        elif script == "children":
            subprocess.Popen(["sleep", "1000"])
            subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 1000 & wait"])
            subprocess.Popen(["sleep", "1000"], start_new_session=True)
            progress(Progress("children", 0, None))
            time.sleep(1000)
        elif script == "gate":
            progress(Progress("gate", 0, None))
            gate = Path(os.environ["NVC_TEST_GATE"])
            while not gate.exists():
                time.sleep(0.01)
        elif script == "memory":
            raise MemoryError("cannot allocate 8 EiB")
        elif script == "hungry":
            eat()
        elif settings.model == "disk-full":
            raise OSError(errno.ENOSPC, "No space left on device")
        elif script == "refuse":
            raise SettingsError("quality: 32 is not to my taste")
        elif script == "bug":
            raise ZeroDivisionError("division by zero")
        encoded = super().encode(pictures, info, settings, progress)
        if settings.model == "wrong-nothing":
            encoded.data = b""
        elif settings.model.startswith(("wrong", "decoder")):
            encoded.data = settings.model.encode() + b"\n" + encoded.data
        return encoded

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        if data == b"look in your memory":
            if Scripted.remembered is None:
                raise ValueError("nothing is remembered here")
            data = Scripted.remembered
        line, _, rest = data.partition(b"\n")
        script = line.decode() if line.startswith((b"wrong", b"decoder")) else ""
        if not script:
            return super().decode(data)
        if script == "decoder-segfault":
            ctypes.string_at(0)
        elif script == "decoder-hang":
            time.sleep(1000)
        elif script == "decoder-hungry":
            eat()
        decoded = super().decode(rest)
        if script == "wrong-info":
            decoded.info = replace(decoded.info, width=decoded.info.width + 2)
        decoded.pictures = self._wrong(script, decoded.pictures)
        return decoded

    def _wrong(self, script: str, pictures: Iterator[Picture]) -> Iterator[Picture]:
        if script == "wrong-count":
            next(pictures)
        for picture in pictures:
            if script == "wrong-size":
                yield Picture(picture.y[:, 2:], picture.u, picture.v)
            elif script == "wrong-kind":
                yield Picture(*(plane.astype(np.float32) for plane in picture))
            else:
                yield picture
        if script == "wrong-many":
            yield picture


def eat() -> None:
    """Take memory until there is none left to take; it is never touched, so that the machine does not suffer."""
    taken = []
    while True:
        taken.append(np.empty(64 << 20, np.uint8))
