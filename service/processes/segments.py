"""A clip coded in segments: what a worker does for one of them, and how all of them become one result.

    segment   find its GOPs, code them, decode and measure them    ─► stream, pictures.mkv, segment.json
    join      the files of all segments                            ─► stream, reconstruction.mkv, the result of one run

The stream, the pictures and the figures are those of a clip that one worker has coded, to the last bit; times are sums.
VMAF and XPSNR look at more than one picture, so the join measures them over the whole. docs/segments.md says more.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import metrics
from coding import registry
from coding.interface import (
    Codec,
    Encoded,
    FrameReport,
    Progress,
    Report,
    Segmented,
    no_report,
)
from service.processes.errors import MeasureError
from service.processes.json_values import plain
from service.processes.measuring import (
    OURS,
    Coded,
    Source,
    described,
    document,
    find_clip,
    frame_rows,
    measure,
    naming_the_clip,
    open_sources,
    settings_from,
    sync,
    write_synced,
)
from service.processes.provenance import provenance, reset_peak_memory, seed_everything
from video.containers import VideoWriter
from video.files import open_clip
from video.picture import ClipInfo, Picture
from video.pixels import change_depth

PICTURES, ABOUT = "pictures.mkv", "segment.json"


def can_be_cut(codec: Codec) -> bool:
    """Whether clips can be coded in segments by it: peers choose their bits by what came before, and no foreign codec
    is believed that its segments are those of one encoder."""
    return codec.name in OURS and isinstance(codec, Segmented)


def share(source: Source, index: int, of: int) -> tuple[int, int]:
    """A segment's share of the clip's pictures, from one to before another: it has the GOPs that begin there."""
    frames = source.info.frames or sum(1 for _ in source)
    return math.ceil(frames * index / of), math.ceil(frames * (index + 1) / of)


def run_segment(job: dict[str, Any], out_dir: Path, progress: Report = no_report) -> dict[str, Any]:
    """Carry out one segment; see measuring.run. ``job["segment"]``: {"index": k, "of": n}."""
    experiment, (path, clip) = job["experiment"], find_clip(job["clip"])
    with naming_the_clip(path, clip):
        return _run_segment(job, experiment, path, out_dir, progress)


def _run_segment(job: dict[str, Any], experiment: dict[str, Any], path: Path, out_dir: Path,
                 progress: Report) -> dict[str, Any]:
    codec = _codec_of(experiment)
    threads, settings = job.get("threads", 0), settings_from(experiment, job.get("threads", 0))
    _, given = open_sources(codec, experiment, path)
    seed_everything()
    reset_peak_memory()
    low, high = share(given, **job["segment"])
    progress(Progress("encode", 0, high - low))
    began = time.perf_counter()
    made = codec.encode_segment(given, replace(given.info, frames=high - low), settings, low, high, progress)
    encode_s = time.perf_counter() - began - given.read_s
    if made is None:    # all of its pictures belong to a GOP that began before
        return _outcome({**job["segment"], "first": low, "pictures": 0}, out_dir, [])
    first, encoded = made
    pictures = len(encoded.frames)
    about: dict[str, Any] = {**job["segment"], "first": first, "pictures": pictures}
    source, given = open_sources(codec, {
        **experiment, "first_frame": experiment["first_frame"] + first, "frames": pictures}, path)
    stream = out_dir / f"stream.{experiment['codec']}"
    write_synced(stream, encoded.data)
    decoded = type(codec)().decode_segment(stream.read_bytes(), first)
    kept = out_dir / PICTURES
    wanted = [name for name in experiment.get("measures", metrics.OWN) if name not in metrics.PERCEPTUAL]
    measured = measure(source, given.info, decoded, kept, encoded, progress, wanted, threads)
    about |= {
        **described(stream), "matches_encoder": measured["sha256"] == encoded.pictures_sha256, "encode_s": encode_s,
        "decode_s": measured["decode_s"], "encoder": encoded.details, "decoder": decoded.details,
        "frames": [asdict(report) for report in encoded.frames], "values": measured["values"],
        "provenance": provenance(codec, encoded, threads),
    }
    return _outcome(about, out_dir, [stream, kept])


def _outcome(about: dict[str, Any], out_dir: Path, files: list[Path]) -> dict[str, Any]:
    """What `run_segment` returns: for people and the join the same, but for what is long."""
    write_synced(out_dir / ABOUT, json.dumps(plain(about)).encode())
    short = {name: value for name, value in about.items() if name not in ("frames", "values", "encoder", "decoder")}
    return {"result": {"segment": plain(short)},
            "artifacts": {path.name: described(path) for path in [*files, out_dir / ABOUT]}}


def run_join(job: dict[str, Any], out_dir: Path, progress: Report = no_report) -> dict[str, Any]:
    """Make one result of all segments; see measuring.run. ``job["segments"]``: for each, in order, the paths of its
    files by name."""
    experiment, (path, clip) = job["experiment"], find_clip(job["clip"])
    codec = _codec_of(experiment)
    files = [{name: Path(found) for name, found in each.items()} for each in job["segments"]]
    abouts = [json.loads(each[ABOUT].read_text()) for each in files]
    filled = [(about, each) for about, each in zip(abouts, files, strict=True) if about["pictures"]]
    stream = out_dir / f"stream.{experiment['codec']}"
    reset_peak_memory()
    write_synced(stream, codec.join([each[stream.name].read_bytes() for _, each in filled]))
    with naming_the_clip(path, clip):
        source, given = open_sources(codec, experiment, path)
        kept = out_dir / "reconstruction.mkv" if experiment["keep_reconstruction"] else None
        if kept:
            with VideoWriter(kept, given.info) as writer:
                for _, each in filled:
                    writer.append(each[PICTURES])
            sync(kept)
        parts = [about for about, _ in filled]
        measured = _measured(experiment, source, given.info, parts, [each[PICTURES] for _, each in filled], progress,
                         job.get("threads", 0))
    encoded = _encoded(parts, measured["sha256"], given.info, stream.stat().st_size)
    coded = Coded(codec, encoded, sum(part["encode_s"] for part in parts), described(stream),
                  _added([part["decoder"] for part in parts]) | {"missing": []}, measured)
    made = document(job, clip, source.info, given.info, coded, stream.name, kept)
    made["result"]["segments"] = [_row(about) for about in abouts]
    return made


def _measured(experiment: dict[str, Any], source: Source, coded: ClipInfo, parts: Sequence[dict[str, Any]],
              pictures: Sequence[Path], progress: Report, threads: int) -> dict[str, Any]:
    """What measuring.measure gives, of segments that were measured each by itself."""
    info, wanted = source.info, experiment.get("measures", metrics.OWN)
    values = [one for part in parts for one in part["values"]]
    if info.frames is not None and info.frames != len(values):
        raise MeasureError("wrong-output", f"the segments have {len(values)} pictures, the clip has {info.frames}")
    total = metrics.ClipMetrics(wanted, info.bits)
    for one in values:
        total.add_values(one, f"{info.width}x{info.height}")
    digest, count = hashlib.sha256(), 0
    perceptual = metrics.PerceptualMeasures(wanted, info, threads)
    references = iter(source) if any(name in metrics.PERCEPTUAL for name in wanted) else None
    with closing(perceptual):
        for picture in _pictures(pictures):
            for plane in picture:
                digest.update(plane.data)
            if references is not None:
                perceptual.add(next(references), change_depth(picture, coded.bits, info.bits, info.range == "full"))
            count += 1
            progress(Progress("join", count, len(values)))
        found = perceptual.finish()
    if count != len(values):
        raise MeasureError("wrong-output", f"the segments' files have {count} pictures, {len(values)} were measured")
    return {
        "count": count,
        "sha256": digest.hexdigest(),
        "decode_s": sum(part["decode_s"] for part in parts),
        "rows": frame_rows(_reports(parts), values, found.rows),
        "summary": {**total.summary(), **found.summary},
        "made_by": perceptual.made_by,
    }


def _pictures(paths: Iterable[Path]) -> Iterator[Picture]:
    for path in paths:
        with open_clip(path) as clip:
            yield from clip


def _reports(parts: Iterable[Mapping[str, Any]]) -> list[FrameReport]:
    """The encoders' reports, numbered through."""
    return [FrameReport(part["first"] + row["index"], row["type"], row["bytes"]) for part in parts
            for row in part["frames"]]


def _encoded(parts: Sequence[dict[str, Any]], decoded_sha256: str, info: ClipInfo,
             stream_bytes: int) -> Encoded:
    """What one encoder would have said: seconds and bits are sums, what only segments have stays in their rows."""
    details = _added([part["encoder"] for part in parts])
    details.pop("rate_control", None)
    if bits := details.get("bits"):
        bits["headers"] = 8 * stream_bytes - sum(count for part, count in bits.items() if part != "headers")
    matches = all(part["matches_encoder"] for part in parts)
    return Encoded(b"", _reports(parts), decoded_sha256 if matches else "differs", info, details)


def _added(details: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first one's details, with the sums of all in place of its seconds and bits."""
    made = dict(details[0])
    for name in ("seconds", "bits"):
        if isinstance(made.get(name), dict):
            sums: Counter[str] = Counter()
            for each in details:
                sums.update(each[name])
            made[name] = {part: round(value, 4) for part, value in sums.items()}
    return made


def _row(about: Mapping[str, Any]) -> dict[str, Any]:
    """One segment in the whole's result."""
    row = {name: about[name] for name in ("index", "first", "pictures")}
    if not about["pictures"]:
        return row
    row |= {name: about[name] for name in ("bytes", "encode_s", "decode_s")}
    made_by = about["provenance"]
    row |= {name: made_by[name] for name in ("cpu", "threads", "peak_memory_bytes", "version")}
    if "rate_control" in about["encoder"]:
        row["rate_control"] = about["encoder"]["rate_control"]
    return row


def _codec_of(experiment: Mapping[str, Any]) -> Any:  # both a Codec and Segmented
    """The codec, which must be one that `can_be_cut`. Raises MeasureError."""
    codec: Codec = registry.get(experiment["codec"])
    if not can_be_cut(codec):
        raise MeasureError("bad-settings", f"segments: codec {experiment['codec']} cannot be cut into segments")
    return codec
