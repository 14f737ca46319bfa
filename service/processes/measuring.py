"""One run, measured: a clip is encoded to bytes on disk, those bytes are decoded, the pictures are compared.

Everything in the result document was observed here.  The encoder's word is taken for nothing but its own times and
frame types; sizes are those of the file that was written, quality is that of the pictures that came out of a decoder
which was given that file and nothing else.  The clip is streamed: no more than a few pictures are held, however long
it is.

`run` is called in the codec process of a worker (`service/processes/codec_process.py`); it needs no service around it.
Clips that are coded in segments are measured with the same parts (service/processes/segments.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import metrics
from coding import registry
from coding.interface import (
    Codec,
    Decoded,
    Encoded,
    FrameReport,
    Progress,
    Report,
    Settings,
    most_bits,
    no_report,
)
from service.processes.decoder_process import check_picture, decode_in_process
from service.processes.errors import MeasureError
from service.processes.json_values import plain
from service.processes.memory import needed_bytes
from service.processes.provenance import provenance, reset_peak_memory, seed_everything
from video import library
from video.containers import VideoWriter
from video.files import open_clip
from video.picture import MOST_BITS, ClipInfo, Picture, VideoError
from video.pixels import change_depth

__all__ = ["MeasureError", "plain", "run"]

OURS = ("nvc",)  # decoded in this process by a fresh codec object; all others in a process of their own
PEERS = ("peers.ffmpeg", "peers.program")
MAX_DETAIL_BYTES = 1 << 20  # of what a codec reports beside its bytes


class Source:
    """The chosen pictures of a clip, read anew each time it is iterated; counts them and the seconds it took."""

    def __init__(self, path: Path, first: int, count: int | None, most_bits: int = MOST_BITS) -> None:
        self.path, self.first, self.count, self.most_bits = path, first, count, most_bits
        with open_clip(path, most_bits=most_bits) as clip:
            whole = clip.info
        frames = None if whole.frames is None else max(0, whole.frames - first)
        if frames is not None and count is not None:
            frames = min(frames, count)
        if frames == 0:
            detail = f"first_frame: {first} is past the end of a clip of {whole.frames} pictures"
            raise MeasureError("bad-settings", detail)
        self.info: ClipInfo = replace(whole, frames=frames)
        self.read = 0
        self.read_s = 0.0

    def __iter__(self) -> Iterator[Picture]:
        self.read, self.read_s = 0, 0.0
        began = time.perf_counter()
        stop = None if self.count is None else self.first + self.count
        with open_clip(self.path, most_bits=self.most_bits) as clip:
            for picture in islice(clip, self.first, stop):
                self.read += 1
                self.read_s += time.perf_counter() - began
                yield picture
                began = time.perf_counter()
        if self.read == 0:
            raise MeasureError("bad-settings", f"first_frame: {self.first} is past the end of the clip")


def run(job: dict[str, Any], out_dir: Path, progress: Report = no_report) -> dict[str, Any]:
    """Carry out one run; returns {"result": document parts, "artifacts": {name: {"sha256", "bytes"}}}.

    ``job``: {"run": id, "experiment": the request with every field filled in, "clip": {"name", "sha256", "path"}
    (``path`` null for a clip of the library), "threads": n}.
    The artifacts are files of ``out_dir``, synced to disk.  ``progress`` hears of the phases "encode" and "decode".

    Raises MeasureError, coding.CodecError, OSError, MemoryError and whatever a codec raises.
    """
    experiment = job["experiment"]
    path, clip = find_clip(job["clip"])
    with naming_the_clip(path, clip):
        return _run(job, experiment, path, clip, out_dir, progress)


@contextmanager
def naming_the_clip(path: Path, clip: dict[str, Any]) -> Iterator[None]:
    """A VideoError, which names the file on this machine, becomes a MeasureError that names the clip."""
    try:
        yield
    except VideoError as error:
        raise MeasureError("bad-video", str(error).replace(str(path), clip["name"])) from error


def _run(job: dict[str, Any], experiment: dict[str, Any], path: Path, clip: dict[str, Any], out_dir: Path,
         progress: Report) -> dict[str, Any]:
    encoder = registry.get(experiment["codec"])
    source, given = open_sources(encoder, experiment, path)
    seed_everything()
    reset_peak_memory()
    stream_path = out_dir / f"stream.{experiment['codec']}"

    encoded, encode_s = encode(encoder, given, settings_from(experiment, job.get("threads", 0)), progress)
    write_synced(stream_path, encoded.data)
    if source.info.frames is None:  # a container that does not say; now it has been read
        source.info, given.info = (replace(each.info, frames=given.read) for each in (source, given))
    stream = {"sha256": hashlib.sha256(encoded.data).hexdigest(), "bytes": len(encoded.data)}
    encoded.data = b""  # from here on there are only the bytes on disk

    if encoder.name in OURS:
        decoded = type(encoder)().decode(stream_path.read_bytes(), no_report)  # get() would give the encoder again
    else:
        decoded = decode_in_process(registry.target_of(experiment["codec"]), stream_path)
    kept = out_dir / "reconstruction.mkv" if experiment["keep_reconstruction"] else None
    wanted = experiment.get("measures", metrics.OWN)  # an orchestrator of an earlier version does not say
    measured = measure(source, given.info, decoded, kept, encoded, progress, wanted, job.get("threads", 0))

    coded = Coded(encoder, encoded, encode_s, stream, decoded.details, measured)
    return document(job, clip, source.info, given.info, coded, stream_path.name, kept)


@dataclass
class Coded:
    """A clip as it was coded and decoded. stream: {"sha256", "bytes"} of the coded one; measured: what `measure`
    gives."""

    encoder: Codec
    encoded: Encoded
    encode_s: float
    stream: dict[str, Any]
    decoder_details: dict[str, Any]
    measured: dict[str, Any]


def document(job: dict[str, Any], clip: dict[str, Any], own: ClipInfo, given: ClipInfo, coded: Coded, stream_name: str,
             kept: Path | None) -> dict[str, Any]:
    """What `run` returns. own: the clip's; given: as the encoder was given it; kept: the reconstruction, if any."""
    experiment, encoder, encoded, measured = job["experiment"], coded.encoder, coded.encoded, coded.measured
    artifacts = {stream_name: coded.stream}
    if kept:
        artifacts[kept.name] = described(kept)
    info = replace(own, frames=measured["count"])
    rate_bytes = counted_bytes(encoder, encoded, coded.stream["bytes"])
    rates = metrics.rate_metrics(rate_bytes, info)
    quality, wanted = measured["summary"], experiment.get("measures", metrics.OWN)
    encode_s, address = coded.encode_s, f"/experiment/{job['run']}/artifacts/"
    result = {
        "encoding_result": {
            "compressed_data": address + stream_name,
            "bytes": coded.stream["bytes"],
            "rate_bytes": rate_bytes,
            "sha256": coded.stream["sha256"],
            "device_used": str(encoded.details.get("device", "cpu")),
            "encode_s": encode_s,
            "frames_per_s": info.frames / encode_s if encode_s and info.frames else None,
            "details": bounded(encoded.details),
        },
        "decoding_result": {
            "reconstructed_video": address + kept.name if kept else None,
            "decoded_sha256": measured["sha256"],
            "matches_encoder": measured["sha256"] == encoded.pictures_sha256 if encoded.pictures_sha256 else None,
            "decode_s": measured["decode_s"],
            "frames_per_s": info.frames / measured["decode_s"] if measured["decode_s"] and info.frames else None,
            "quality_metrics": quality,
            "details": bounded(coded.decoder_details),
        },
        "metrics": {**rates, "psnr_db": quality["psnr"], "ssim": quality["ssim"], "ms_ssim": quality["ms_ssim"],
                    **{name: quality[name] for name in metrics.PERCEPTUAL if name in wanted}},
        "frames": measured["rows"],
        "clip": {**clip, **info.document(), **coded_depth(own, given)},
        "settings": experiment,
        "provenance": {**provenance(encoder, encoded, job.get("threads", 0)),
                       **({"measures": measured["made_by"]} if measured["made_by"] else {})},
    }
    return {"result": plain(result), "artifacts": artifacts}


def open_sources(encoder: Codec, experiment: dict[str, Any], path: Path) -> tuple[Source, Source]:
    """The clip's pictures, and as the encoder is given them: of no more bits than it takes. Raises MeasureError where
    this process may not use the memory that it takes."""
    first, frames = experiment["first_frame"], experiment["frames"]
    source = Source(path, first, frames)
    check_memory(experiment["codec"], source.info)
    deep = source.info.bits > most_bits(encoder)
    return source, Source(path, first, frames, most_bits(encoder)) if deep else source


def coded_depth(own: ClipInfo, given: ClipInfo) -> dict[str, Any]:
    """What a clip's document says more where the encoder was given pictures of fewer bits than the clip's."""
    if own.bits == given.bits:
        return {}
    said = f"coded with {given.bits} bits; quality is measured against the {own.bits} bits of the clip"
    return {"coded_bits": given.bits, "warnings": [*own.warnings, said]}


def check_memory(codec: str, info: ClipInfo) -> None:
    """Raises MeasureError where coding pictures of this size takes more memory than this process may use."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_DATA)
    needed = needed_bytes(codec, info.width, info.height)
    if allowed != resource.RLIM_INFINITY and needed > allowed:
        raise MeasureError(
            "out-of-memory", f"codec_memory_mb: coding pictures of {info.width}x{info.height} with {codec} takes about "
            f"{needed >> 20} MiB, and a codec process of this worker may use {allowed >> 20}", retry=True)


def find_clip(clip: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Where the clip's file is, and {"name", "sha256"}, the digest being that of the very bytes that will be read."""
    path = Path(clip["path"]) if clip.get("path") else library.find(clip["name"])
    digest = file_sha256(path)
    if clip.get("sha256") and digest != clip["sha256"]:
        raise MeasureError("wrong-clip", f"clip {clip['name']}: its bytes have SHA-256 {digest}, not {clip['sha256']}",
                           retry=True)
    return path, {"name": clip["name"], "sha256": digest}


def settings_from(experiment: dict[str, Any], threads: int) -> Settings:
    """The codec's settings out of an experiment's fields."""
    same = ("structure", "intra_period", "effort", "bitrate_mbps", "psnr_db", "model", "device")
    quality = Settings.quality if experiment["quality"] is None else experiment["quality"]
    return Settings(quality=quality, threads=threads, preset=experiment.get("preset"),
                    **{name: experiment[name] for name in same})


def encode(encoder: Codec, source: Source, settings: Settings, progress: Report) -> tuple[Encoded, float]:
    """The coded clip and the encoder's seconds, in which the time that it waited for pictures is not counted."""
    progress(Progress("encode", 0, source.info.frames))
    began = time.perf_counter()
    encoded = encoder.encode(source, source.info, settings, progress)
    seconds = time.perf_counter() - began - source.read_s
    if not isinstance(encoded.data, bytes) or not encoded.data:
        kind = "no bytes" if isinstance(encoded.data, bytes) else type(encoded.data).__name__
        raise MeasureError("wrong-output", f"the encoder gave {kind}, expected bytes (at least one)")
    if [row.index for row in encoded.frames] != list(range(len(encoded.frames))):
        raise MeasureError("wrong-output", "the encoder's frame reports are not numbered 0, 1, 2, … in display order")
    return encoded, seconds


def counted_bytes(encoder: Codec, encoded: Encoded, stream_bytes: int) -> int:
    """The bytes that count as the codec's rate: all of the stream.

    The peers (peers/) put theirs into a container, whose own bytes say nothing of the codec; of them the
    packets and parameter sets count.  No other codec is believed in this.
    """
    said = encoded.details.get("rate_bytes")
    if type(encoder).__module__ in PEERS and isinstance(said, int) and 0 < said <= stream_bytes:
        return said
    return stream_bytes


def measure(source: Source, coded: ClipInfo, decoded: Decoded, kept: Path | None, encoded: Encoded, progress: Report,
            wanted: Collection[str] = metrics.OWN, threads: int = 0) -> dict[str, Any]:
    """Compare each decoded picture with its source as it comes, by the measures ``wanted``; write it to ``kept``.
    coded: what the encoder was given, and the decoder must give.

    Returns {"count", "sha256" (over y, u, v of all pictures), "decode_s", "rows", "values" (metrics.frame_metrics of
    each picture), "summary", "made_by" (the program of perceptual measures, and their models)}.
    """
    info = source.info
    if (decoded.info.width, decoded.info.height) != (info.width, info.height):
        raise MeasureError("wrong-output", f"the decoder gave {decoded.info.width}×{decoded.info.height}, "
                                           f"the clip is {info.width}×{info.height}")
    total = metrics.ClipMetrics(wanted, info.bits)
    perceptual = metrics.PerceptualMeasures(wanted, info, threads)
    digest = hashlib.sha256()
    values: list[dict[str, float | None]] = []
    decode_s = 0.0
    references, pictures = iter(source), iter(decoded)
    writer = VideoWriter(kept, coded) if kept else None
    progress(Progress("decode", 0, info.frames))
    try:
        while True:
            began = time.perf_counter()
            picture = next(pictures, None)
            decode_s += time.perf_counter() - began
            if picture is None:
                break
            reference = next(references, None)
            if reference is None:
                raise MeasureError("wrong-output", f"the decoder gave more than the clip's {len(values)} pictures")
            picture = check_picture(picture, coded, len(values))
            for plane in picture:
                digest.update(plane.data)
            same_depth = change_depth(picture, coded.bits, info.bits, info.range == "full")
            values.append(total.add(reference, same_depth))
            perceptual.add(reference, same_depth)
            if writer:
                writer.write(picture)
            progress(Progress("decode", len(values), info.frames))
        count = len(values) + sum(1 for _ in references)
        found = perceptual.finish()
    finally:
        perceptual.close()
        if writer:
            writer.close()
    if len(values) != count:
        raise MeasureError("wrong-output", f"the decoder gave {len(values)} pictures, the clip has {count}")
    if len(encoded.frames) != count:
        raise MeasureError("wrong-output", f"the encoder reported {len(encoded.frames)} frames, the clip has {count}")
    if kept:
        sync(kept)
    return {
        "count": count,
        "sha256": digest.hexdigest(),
        "decode_s": decoded.details.pop("decode_s", decode_s),  # a decoder in another process has its own clock
        "rows": frame_rows(encoded.frames, values, found.rows),
        "values": values,
        "summary": {**total.summary(), **found.summary},
        "made_by": perceptual.made_by,
    }


def frame_rows(reports: Sequence[FrameReport], values: Sequence[Mapping[str, Any]],
               perceptual: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each picture: as the encoder reports it, and as it was measured. perceptual: [] where none was asked
    for."""
    return [{**asdict(report), "psnr_db": one["psnr"], **{name: one[name] for name in ("psnr_y", "ssim", "ms_ssim")},
             **more} for report, one, more in zip(reports, values, perceptual or [{}] * len(values), strict=True)]


# --- files and JSON --------------------------------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(path: Path) -> dict[str, Any]:
    """A file as an artifact: {"sha256", "bytes"}."""
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def bounded(details: dict[str, Any]) -> dict[str, Any]:
    """A codec's own report, as JSON, unless it is absurdly long."""
    said = plain(details)
    length = len(json.dumps(said))
    return said if length <= MAX_DETAIL_BYTES else {"dropped": f"{length} bytes, more than {MAX_DETAIL_BYTES}"}
