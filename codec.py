"""The codecs by name, and the command line of the learned one.

    python codec.py encode IN OUT.nvc [--quality 32 | --bitrate-mbps X | --psnr-db X] [--effort 0]
                    [--structure random_access] [--intra-period 64] [--frames N] [--jobs 1] [--json]
    python codec.py decode IN.nvc OUT.y4m [--best-effort]
    python codec.py info IN.nvc [--json]
    python codec.py verify IN.nvc

`-` stands for standard input or output. Exit codes: 0 done, 1 failed (one line on standard error), 2 wrong usage.

Other codecs join under a name of their own: `register("mine", "package.module:factory")`, or an entry point in the
group `neural_codec.codecs`. A factory takes no arguments and gives an object with the methods of `coding.Codec`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, BinaryIO

from coding import BitstreamError, Codec, CodecError, Decoded, Encoded, Progress, Report, Settings, no_report
from nvc.allocator import keep_memory
from nvc.clip import encode_clip
from nvc.decode import StreamDecoder
from nvc.model import DEFAULT_MODEL, load_for, load_model, models
from nvc.ratecontrol import choose_quality
from nvc.reading import parse, recover
from picture import ClipInfo, Picture, VideoError

ENTRY_POINTS = "neural_codec.codecs"
_PEERS = {name: f"peers:{name}" for name in ("x264", "x265", "svtav1", "vp9")}
_factories: dict[str, str] = {"nvc": "codec:Nvc", **_PEERS}
_made: dict[str, Codec] = {}
_lock = threading.Lock()


def register(name: str, target: str) -> None:
    """Make `target` ("module:factory") known as codec `name`. CodecError for a target of another form."""
    if target.count(":") != 1 or not all(target.split(":")):
        raise CodecError(f"codec {name}: expected module:factory, got {target!r}")
    with _lock:
        _factories[name] = target
        _made.pop(name, None)


def names() -> list[str]:
    """Names of all codecs known here, sorted."""
    return sorted({*_factories, *(e.name for e in entry_points(group=ENTRY_POINTS))})


def target_of(name: str) -> str:
    """Where the codec of that name comes from, "module:factory". CodecError: unknown (lists the known ones)."""
    target = _factories.get(name) or next((e.value for e in entry_points(group=ENTRY_POINTS) if e.name == name), "")
    if not target:
        raise CodecError(f"codec: unknown name {name!r}, known are {', '.join(names())}")
    return target


def get(name: str) -> Codec:
    """The codec of that name, made once. CodecError: unknown (lists the known ones), or it cannot be imported."""
    with _lock:
        if name not in _made:
            target = target_of(name)
            module, factory = target.split(":")
            try:
                _made[name] = getattr(importlib.import_module(module), factory)()
            except (ImportError, AttributeError) as error:
                raise CodecError(f"codec {name}: cannot load {target}: {error}") from error
        return _made[name]


class Nvc:
    """The learned codec (nvc/) behind the common interface."""

    name = "nvc"

    def warm(self) -> None:
        """Load the default weights, prove the kernels exact on this machine, compile the integer loops."""
        from nvc import warm

        keep_memory()
        warm.compile_all()
        load_model(DEFAULT_MODEL)

    def encode(self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings,
               progress: Report = no_report) -> Encoded:
        """Code a clip; SettingsError names a setting out of its range. With a target rate or PSNR the clip is read
        into memory, since it is coded several times."""
        if settings.bitrate_mbps is not None or settings.psnr_db is not None:
            from metrics import frame_psnr

            return choose_quality(list(pictures), info, settings, progress, frame_psnr)
        return encode_clip(pictures, info, settings, progress)

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        """Decode from the bytes alone; BitstreamError for damaged or foreign bytes."""
        return _decode(data, progress, best_effort=False)

    def describe(self) -> dict[str, Any]:
        from nvc.cost import summary

        return {"codec": "nvc", "format": "NVC1", "models": {name: summary(name) for name in models()}}


def _decode(data: bytes, progress: Report, best_effort: bool) -> Decoded:
    stream = recover(data) if best_effort else parse(data)
    decoder = StreamDecoder(stream, load_for(stream.header.model))
    decoded = Decoded(stream.header.info, iter(()))

    def pictures() -> Iterator[Picture]:
        for number, picture in enumerate(decoder.pictures(), 1):
            progress(Progress("decode", number, stream.header.frames))
            yield picture
        decoded.details.update(decoder.details())

    decoded.pictures = pictures()
    return decoded


# --- Command line -----------------------------------------------------------------------------------------------------


@contextmanager
def _progress_bar(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    if quiet or not sys.stderr.isatty():
        yield no_report
        return
    from tqdm import tqdm

    with tqdm(unit="frame", leave=False) as bar:
        def show(p: Progress) -> None:
            bar.total, bar.n = p.frames, p.frame
            bar.set_description(p.phase, refresh=False)
            bar.update(0)
        yield show


def _read(path: str) -> bytes:
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


@contextmanager
def _writing(path: str) -> Iterator[BinaryIO]:
    """The file, complete or not there at all."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(path + ".part")
    try:
        with part.open("wb") as out:
            yield out
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _say(o: argparse.Namespace, facts: dict[str, Any]) -> None:
    out = sys.stderr if getattr(o, "out", None) == "-" else sys.stdout
    if o.json:
        print(json.dumps(facts), file=out)
    else:
        print("  ".join(f"{k} {v}" for k, v in facts.items() if not isinstance(v, list | dict)), file=out)


def _encode(o: argparse.Namespace) -> None:
    from itertools import islice

    from metrics import rate_metrics
    from video import open_clip

    settings = Settings(quality=o.quality, structure=o.structure, intra_period=o.intra_period, effort=o.effort,
                        bitrate_mbps=o.bitrate_mbps, psnr_db=o.psnr_db, model=o.model, threads=o.threads,
                        options={"jobs": o.jobs})
    began = time.monotonic()
    with open_clip(sys.stdin.buffer if o.input == "-" else o.input) as clip, _progress_bar(o.json) as show:
        encoded = get("nvc").encode(islice(clip, o.frames), clip.info, settings, show)
    seconds = time.monotonic() - began
    with _writing(o.out) as out:
        out.write(encoded.data)
    facts = {"bytes": len(encoded.data), "frames": encoded.info.frames, **rate_metrics(len(encoded.data), encoded.info),
             "seconds": round(seconds, 3), "pictures_sha256": encoded.pictures_sha256}
    _say(o, facts | ({"details": encoded.details} if o.json else {}))


def _decode_file(o: argparse.Namespace) -> None:
    from video import Y4MWriter

    began, count = time.monotonic(), 0
    with _progress_bar(o.json) as show:
        decoded = _decode(_read(o.input), show, o.best_effort)
        with _writing(o.out) as out:
            writer = Y4MWriter(out, decoded.info)
            for picture in decoded:
                writer.write(picture)
                count += 1
    _say(o, {"frames": count, "seconds": round(time.monotonic() - began, 3), **decoded.details})


def _info(o: argparse.Namespace) -> None:
    stream = parse(_read(o.input))
    h = stream.header
    facts: dict[str, Any] = {
        "format": "NVC1", "model": h.model.hex(), "width": h.width, "height": h.height, "fps": str(h.fps),
        "frames": h.frames, "matrix": h.matrix, "range": h.range, "structure": h.structure,
        "intra_period": h.intra_period, "bytes": len(stream.data), "gops": len(stream.gops)}
    rows = [{"number": p.number, "type": p.type, "references": list(p.references), "q": p.q, "bytes": p.size}
            for gop in stream.gops for p in stream.packets(gop)]
    _say(o, facts | {"pictures": rows})


def _verify(o: argparse.Namespace) -> None:
    began = time.monotonic()
    with _progress_bar(o.json) as show:
        decoded = _decode(_read(o.input), show, best_effort=False)
        count = sum(1 for _ in decoded)
    _say(o, {"valid": True, "frames": count, "seconds": round(time.monotonic() - began, 3), **decoded.details})


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="codec.py", description="The learned video codec nvc.")
    commands = top.add_subparsers(required=True, metavar="encode | decode | info | verify")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str,
                out: str = "") -> argparse.ArgumentParser:
        c = commands.add_parser(name, help=text, description=text)
        c.add_argument("input", metavar="IN")
        if out:
            c.add_argument("out", metavar=out)
        c.add_argument("--json", action="store_true", help="print one JSON object, no progress bar")
        c.set_defaults(run=run)
        return c

    e = command("encode", _encode, "code a clip into a stream", "OUT.nvc")
    target = e.add_mutually_exclusive_group()
    target.add_argument("--quality", type=int, default=32, help="0…63, higher is better (32)")
    target.add_argument("--bitrate-mbps", type=float, help="aim at this rate, 10^6 bits a second")
    target.add_argument("--psnr-db", type=float, help="aim at this PSNR (YUV 6:1:1)")
    e.add_argument("--effort", type=int, default=0, help="how much the encoder tries, 0 to 3")
    e.add_argument("--structure", default="random_access", help="intra, low_delay or random_access")
    e.add_argument("--intra-period", type=int, default=64, help="pictures from one I to the next (64)")
    e.add_argument("--frames", type=int, help="code only the first N")
    e.add_argument("--model", default=DEFAULT_MODEL, help="weights by name")
    e.add_argument("--threads", type=int, default=0, help="0: all cores")
    e.add_argument("--jobs", type=int, default=1, help="processes of one thread that code GOPs at a time; same bytes")
    d = command("decode", _decode_file, "decode a stream to Y4M", "OUT.y4m")
    d.add_argument("--best-effort", action="store_true", help="decode the groups of pictures that are whole")
    command("info", _info, "say what is in a stream, without decoding it")
    command("verify", _verify, "decode a stream and check everything, write nothing")
    return top


def main(argv: list[str] | None = None) -> int:
    o = _parser().parse_args(argv)
    keep_memory()
    try:
        o.run(o)
    except BrokenPipeError:
        return 1
    except (CodecError, BitstreamError, VideoError, OSError) as error:
        print(f"codec.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
