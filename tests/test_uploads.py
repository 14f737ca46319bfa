"""What researchers upload, over HTTP: headerless video, archives of pictures, single pictures."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Any

import pytest
import requests
from PIL import Image

from tests.orchestrator_rig import PATIENCE_S, FakeWorker, Orchestrator


def put(running: Orchestrator, path: str, data: bytes) -> tuple[int, dict[str, Any]]:
    answer = requests.put(f"{running.url}/clips/{path}", data=data, timeout=PATIENCE_S)
    return answer.status_code, answer.json()


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 10, 10)).save(out, "png")
    return out.getvalue()


def archive(**entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in entries.items():
            made.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("path", ["grey_16x8_25fps_10bit_444.yuv",
                                  "grey?width=16&height=8&fps=25&pixel_format=yuv444p10le&range=limited"])
def test_headerless_video_is_kept_with_a_header(running: Orchestrator, path: str) -> None:
    data = bytes(2 * 16 * 8 * 3 * 2)
    status, clip = put(running, path, data)
    assert status == 201
    assert {name: clip[name] for name in ("width", "height", "fps", "frames", "converted")} == {
        "width": 16, "height": 8, "fps": "25/1", "frames": 2, "converted": "yuv444p10le to yuv420p10le"}
    assert (clip["wrapped_from"], clip["wrapped_sha256"]) == ("yuv444p10le", hashlib.sha256(data).hexdigest())
    kept = running.get(f"/clips/{clip['name']}/data").content
    assert kept.startswith(b"YUV4MPEG2 W16 H8 F25:1 Ip A1:1 C444p10 ")
    assert hashlib.sha256(kept).hexdigest() == clip["sha256"]


def test_a_picture_of_headerless_video_can_be_looked_at(running: Orchestrator) -> None:
    put(running, "dark_16x8_25fps.yuv", bytes(16 * 8 * 3 // 2))
    worker = FakeWorker(running, "looker")
    name = running.submit(clip="dark_16x8_25fps.yuv")
    worker.end(worker.next_offer())
    worker.stop()
    answer = running.get(f"/experiment/{name}/pictures/0?of=source")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")


def test_pictures_in_an_archive_and_alone_are_clips(running: Orchestrator) -> None:
    status, clip = put(running, "many.zip", archive(**{"2.png": png(), "1.png": png()}))
    assert (status, clip["frames"], clip["width"], clip["converted"]) == (201, 2, 16, "rgb24 to yuv420p")
    status, clip = put(running, "one.png", png())
    assert (status, clip["frames"]) == (201, 1)


@pytest.mark.parametrize(("path", "data", "slug", "words"), [
    ("up.zip", archive(**{"../../up.png": png()}), "not-a-video", "up.zip: entry '../../up.png' leads out"),
    ("short_16x8_25fps.yuv", bytes(100), "not-a-video", "short_16x8_25fps.yuv: 100 bytes are not a whole number"),
    ("unsaid.yuv", bytes(192), "invalid-field", "unsaid.yuv: a .yuv file has no header: expected a size in its name"),
    ("half?width=16", bytes(192), "invalid-field", "height: headerless video needs width, height, fps"),
])
def test_what_cannot_be_read_is_refused_and_not_kept(running: Orchestrator, path: str, data: bytes, slug: str,
                                                     words: str) -> None:
    status, told = put(running, path, data)
    assert (status, told["type"].rpartition("/")[2]) == (422, slug)
    assert told["detail"].startswith(words)
    assert running.get(f"/clips/{path.partition('?')[0]}").status_code == 404


def test_an_unknown_parameter_of_an_upload_is_refused(running: Orchestrator) -> None:
    assert put(running, "x?frames=3", b"x")[0] == 400
