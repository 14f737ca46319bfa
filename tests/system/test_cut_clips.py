"""A clip cut over two workers: the same bytes as in one piece, also when a worker is killed in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from deployment import PATIENCE_S, Deployment
from synthetic import info_of, moving

from video.containers import VideoWriter

WANTED = {"clip": "pan.mkv", "codec": "nvc", "model": "nvc-1", "quality": 24, "intra_period": 8, "effort": 1}


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    clip = moving(48, 160, 96, cut=19)
    with VideoWriter(tmp_path / "pan.mkv", info_of(clip)) as writer:
        for picture in clip:
            writer.write(picture)
    with Deployment(tmp_path, 2, "--warm", "nvc") as made:
        made.upload("pan.mkv", (tmp_path / "pan.mkv").read_bytes())
        yield made


def same(document: dict[str, Any]) -> dict[str, Any]:
    """What a document says that does not depend on how the clip was coded."""
    return {"stream": document["encoding_result"]["sha256"], "pictures": document["decoding_result"]["decoded_sha256"],
            "metrics": document["metrics"], "frames": document["frames"], "matches":
            document["decoding_result"]["matches_encoder"], "artifacts":
            {name: about["sha256"] for name, about in document["artifacts"].items()}}


def test_the_document_is_that_of_one_piece_although_a_worker_is_killed_in_the_middle(deployment: Deployment) -> None:
    whole = same(deployment.wait_end(deployment.submit(**WANTED)))

    quiet = deployment.wait_end(deployment.submit(**WANTED, segments=4))
    assert same(quiet) == whole
    assert {row["worker"] for row in quiet["segments"]} == {"w1", "w2"}
    assert [row["attempts"] for row in quiet["segments"]] == [1, 1, 1, 1]

    name = deployment.submit(**WANTED, segments=4)
    seen = deployment.wait_for(name, lambda document: any(
        row["status"] == "running" and row["worker"] == "w1" for row in document["segments"]))
    hit = [row["index"] for row in seen["segments"] if row["status"] == "running" and row["worker"] == "w1"]
    deployment.worker_named("w1").kill()
    document = deployment.wait_end(name)
    assert same(document) == whole
    assert {row["index"] for row in document["segments"] if row["attempts"] > 1} <= set(hit)
    sums = requests.get(f"{deployment.orchestrator.url}/conservation", timeout=PATIENCE_S).json()
    assert (sums["holds"], sums["accepted"], sums["segments"]) == (True, 11, 8)
