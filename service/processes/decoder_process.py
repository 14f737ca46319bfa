"""Decode in a process of its own: a decoder that is given the bytes and cannot remember the encoder.

Codecs that are not ours are decoded this way. A decoder that leans on something its encoder left in memory fails here,
as it would on another machine.  The child is started for one stream, reads it from its file, and writes to its parent:

    {"info": {…}}                       one message (framed as in messages.py)
    "P" y u v                           for each picture: one byte, then the planes' bytes
    "E" {"seconds", "details"}          the end: seconds spent decoding (writing and starting up not counted), or
    "E" {"error": {…}}                  what went wrong
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # modules are named from the top folder

from coding.interface import Codec, Decoded
from service.processes.errors import MeasureError, explain
from service.processes.json_values import plain
from service.processes.messages import LENGTH, MAX_MESSAGE_BYTES, MessageBuffer, frame_message
from video.picture import ClipInfo, Picture, kind_of


def check_picture(picture: Any, info: ClipInfo, index: int) -> Picture:
    """The picture as it came, if it is one of ``info``'s size. Raises MeasureError saying what is wrong with it."""
    if not isinstance(picture, tuple) or len(picture) != 3:
        detail = f"the decoder's picture {index} is no (y, u, v) but {type(picture).__name__}"
        raise MeasureError("wrong-output", detail)
    expected = ((info.height, info.width), info.chroma_shape, info.chroma_shape)
    for name, plane, shape in zip("yuv", picture, expected, strict=True):
        if not isinstance(plane, np.ndarray) or plane.dtype != kind_of(info.bits):
            kind = plane.dtype if isinstance(plane, np.ndarray) else type(plane).__name__
            raise MeasureError("wrong-output", f"the decoder's picture {index}: plane {name} is {kind}, expected "
                                               f"{np.dtype(kind_of(info.bits)).name}")
        if plane.shape != shape:
            raise MeasureError("wrong-output", f"the decoder's picture {index}: plane {name} is {plane.shape}, "
                                               f"expected {shape} (rows, columns)")
    return Picture(*(np.ascontiguousarray(plane) for plane in picture))


def decode_in_process(target: str, stream: Path) -> Decoded:
    """Decode ``stream`` by the codec that ``target`` ("module:factory") makes, in a new process.

    ``details["decode_s"]`` holds the seconds afterwards.  Raises MeasureError, at once or while the pictures are read,
    when the decoder refuses, crashes or sends nonsense.
    """
    command = [sys.executable, str(Path(__file__).resolve()), target, str(stream)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert child.stdout is not None  # asked for by stdout=PIPE
    pipe = child.stdout
    try:
        first = _read_message(pipe, child)
        info = _info_from(first) if "info" in first else _fail(first)
    except BaseException:
        _end(child)
        raise
    decoded = Decoded(info, iter(()))
    decoded.pictures = _pictures(pipe, child, info, decoded.details)
    return decoded


def _pictures(
    pipe: IO[bytes], child: subprocess.Popen[bytes], info: ClipInfo, details: dict[str, Any]
) -> Iterator[Picture]:
    rows, columns = info.chroma_shape
    luma, chroma = info.width * info.height, rows * columns
    try:
        while (tag := _read(pipe, 1, child)) == b"P":
            data = np.frombuffer(_read(pipe, info.picture_bytes, child), kind_of(info.bits))
            yield Picture(
                data[:luma].reshape(info.height, info.width),
                data[luma : luma + chroma].reshape(rows, columns),
                data[luma + chroma :].reshape(rows, columns),
            )
        if tag != b"E":
            raise MeasureError("wrong-output", f"the decoder's process sent {tag!r} where a picture or the end was due")
        end = _read_message(pipe, child)
        if "error" in end:
            _fail(end)
        details.update(end["details"], decode_s=end["seconds"])
    finally:
        _end(child)


def _read(pipe: IO[bytes], count: int, child: subprocess.Popen[bytes]) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        status = child.wait()
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        raise MeasureError("decoder-crashed", f"the decoder's process {how} before the last picture", retry=True)
    return data


def _read_message(pipe: IO[bytes], child: subprocess.Popen[bytes]) -> dict[str, Any]:
    head = _read(pipe, LENGTH.size, child)
    (length,) = LENGTH.unpack(head)
    if length > MAX_MESSAGE_BYTES:
        raise MeasureError("wrong-output", f"the decoder's process sent a message of {length} bytes")
    buffer = MessageBuffer()
    buffer.feed(head + _read(pipe, length, child))
    message = buffer.next()
    return {} if message is None else message


def _fail(message: dict[str, Any]) -> Any:
    error = message.get("error") or {"type": "wrong-output", "detail": "the decoder's process sent no clip info"}
    whose = "" if error["type"] == "wrong-output" else "decoder: "  # which says so itself
    raise MeasureError(error["type"], whose + error["detail"], retry=bool(error.get("retry")))


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
    child.wait()
    if child.stdout:
        child.stdout.close()


def _info_message(info: ClipInfo) -> dict[str, Any]:
    return {"info": {"width": info.width, "height": info.height, "fps": str(info.fps), "frames": info.frames,
                     "matrix": info.matrix, "range": info.range, "bits": info.bits}}


def _info_from(message: dict[str, Any]) -> ClipInfo:
    said = dict(message["info"])
    return ClipInfo(**{**said, "fps": Fraction(said["fps"])})


def _load(target: str) -> Codec:
    """The codec "module:factory" alone: the others would take seconds to load."""
    sys.path.append(os.getcwd())
    module, _, factory = target.partition(":")
    made: Codec = getattr(importlib.import_module(module), factory)()
    return made


def main(arguments: list[str]) -> int:
    """The child: TARGET STREAM. Standard output carries the pictures; what a codec prints goes elsewhere."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    target, stream = arguments
    tag = b""
    try:
        decoder = _load(target)
        data = Path(stream).read_bytes()
        began = time.perf_counter()
        decoded = decoder.decode(data)
        pictures = iter(decoded)
        seconds = time.perf_counter() - began
        out.write(frame_message(_info_message(decoded.info)))
        tag = b"E"
        index = 0
        while True:
            began = time.perf_counter()
            picture = next(pictures, None)
            seconds += time.perf_counter() - began
            if picture is None:
                break
            checked = check_picture(picture, decoded.info, index)
            out.write(b"P" + b"".join(plane.tobytes() for plane in checked))
            index += 1
        out.write(b"E" + frame_message({"seconds": seconds, "details": plain(decoded.details)}))
    except Exception as error:  # the border: it becomes an answer, as in codec_process.py
        described, _ = explain(error)
        out.write(tag + frame_message({"error": described}))
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
