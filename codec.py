"""The command line of the learned codec.

    python codec.py encode IN OUT.nvc [--quality 32 | --bitrate-mbps X | --psnr-db X] [--effort 0]
                    [--structure random_access] [--intra-period 64] [--frames N] [--jobs 1] [--force] [--json]
    python codec.py decode IN.nvc OUT.y4m [--best-effort] [--force]
    python codec.py info IN.nvc [--json]
    python codec.py verify IN.nvc
    python codec.py --version

IN of `encode` is a file, or the name of a clip of the library (carphone). `-` stands for standard input or output.
A file that is there is only replaced with --force. What is not taken as the file has it (a conversion, a variable frame
rate) is said on standard error. Exit codes: 0 done, 1 failed (one line on standard error), 2 wrong usage, 130 Ctrl-C.

From Python, `codec.get("nvc")` gives a codec by its name, `codec.register` adds one of your own (coding/registry.py).
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    sys.exit("codec.py: Python 3.11 or newer is needed")


import argparse
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from coding.interface import BitstreamError, CodecError, Progress, Settings, no_report
from coding.registry import get, names, register
from nvc.codec import decode
from nvc.machine.allocator import keep_memory
from nvc.network.model import DEFAULT_MODEL
from nvc.stream.reading import parse
from service.runtime.version import VERSION
from video.picture import ClipInfo, VideoError

__all__ = ["get", "main", "names", "register"]


class UsageError(Exception):
    """The command line asks for what cannot be, or would lose something."""


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
            bar.set_description(f"{p.phase}, pass {p.pass_number}" if p.pass_number else p.phase, refresh=False)
            bar.update(0)
        yield show


def _read(path: str) -> bytes:
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


def _check_output(o: argparse.Namespace, suffixes: Collection[str] = ()) -> None:
    """Before any work: the output can be written, is not the input, and replaces nothing unasked. Raises UsageError."""
    if o.out == "-":
        return
    out = Path(o.out)
    if suffixes and out.suffix.lower() not in suffixes and not out.is_char_device():
        raise UsageError(f"{o.out}: a name that ends in {' or '.join(suffixes)} was expected, which is what is written")
    if not out.parent.is_dir():
        raise UsageError(f"{o.out}: there is no folder {out.parent}")
    if out.is_dir():
        raise UsageError(f"{o.out}: is a folder")
    if o.input != "-" and out.exists() and Path(o.input).exists() and out.samefile(o.input):
        raise UsageError(f"{o.out}: is the input as well, which would be lost")
    if out.is_file() and not o.force:
        raise UsageError(f"{o.out}: is there already; --force replaces it")


def _source_of(name: str) -> Any:
    """What `encode` reads: standard input, a file, or a clip of the library by its name."""
    from video import library

    if name == "-":
        return sys.stdin.buffer
    return library.find(name) if not Path(name).exists() and name in library.names() else name


def _say_what_differs(info: ClipInfo) -> None:
    """What the stream does not have as the file has it, a line each on standard error."""
    for note in [*([f"converted: {info.converted}"] if info.converted else []), *info.warnings,
                 *([f"the file ends too early: {info.cut}"] if info.cut else [])]:
        print(f"codec.py: note: {note}", file=sys.stderr)


@contextmanager
def _writing(path: str) -> Iterator[BinaryIO]:
    """The file, complete or not there at all."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(path).is_char_device():  # /dev/null
        with open(path, "wb") as out:
            yield out
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
    from video.files import open_clip

    _check_output(o)
    settings = Settings(quality=o.quality, structure=o.structure, intra_period=o.intra_period, effort=o.effort,
                        bitrate_mbps=o.bitrate_mbps, psnr_db=o.psnr_db, model=o.model, threads=o.threads,
                        options={"jobs": o.jobs})
    began = time.monotonic()
    with open_clip(_source_of(o.input)) as clip, _progress_bar(o.json) as show:
        _say_what_differs(clip.info)
        known = [count for count in (clip.info.frames, o.frames) if count is not None]
        info = replace(clip.info, frames=min(known, default=None))
        encoded = get("nvc").encode(islice(clip, o.frames), info, settings, show)
    seconds = time.monotonic() - began
    with _writing(o.out) as out:
        out.write(encoded.data)
    facts = {"bytes": len(encoded.data), "frames": encoded.info.frames, **rate_metrics(len(encoded.data), encoded.info),
             "seconds": round(seconds, 3), "pictures_sha256": encoded.pictures_sha256}
    _say(o, facts | ({"details": encoded.details} if o.json else {}))


def _decode_file(o: argparse.Namespace) -> None:
    from video.planar import Y4MWriter

    _check_output(o, (".y4m",))
    began, count = time.monotonic(), 0
    with _progress_bar(o.json) as show:
        decoded = decode(_read(o.input), show, best_effort=o.best_effort)
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
        "format": "NVC1", "version": h.version, "model": h.model.hex(), "width": h.width, "height": h.height,
        "fps": str(h.fps), "frames": h.frames, "matrix": h.matrix, "range": h.range,
        "sample_aspect": f"{h.sample_aspect.numerator}:{h.sample_aspect.denominator}", "rotation": h.rotation,
        "field_order": h.field_order, "primaries": h.primaries, "transfer": h.transfer,
        "chroma_location": h.chroma_location, "structure": h.structure, "intra_period": h.intra_period,
        "bytes": len(stream.data), "gops": len(stream.gops)}
    rows = [{"number": p.number, "type": p.type, "references": list(p.references), "q": p.q, "bytes": p.size}
            for gop in stream.gops for p in stream.packets(gop)]
    _say(o, facts | {"pictures": rows})


def _verify(o: argparse.Namespace) -> None:
    began = time.monotonic()
    with _progress_bar(o.json) as show:
        decoded = decode(_read(o.input), show)
        count = sum(1 for _ in decoded)
    _say(o, {"valid": True, "frames": count, "seconds": round(time.monotonic() - began, 3), **decoded.details})


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of pictures from 1 on, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="codec.py", description="The learned video codec nvc.")
    top.add_argument("--version", action="version", version=f"codec.py {VERSION}")
    commands = top.add_subparsers(required=True, metavar="encode | decode | info | verify")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str,
                out: str = "") -> argparse.ArgumentParser:
        c = commands.add_parser(name, help=text, description=text)
        c.add_argument("input", metavar="IN")
        if out:
            c.add_argument("out", metavar=out)
            c.add_argument("--force", action="store_true", help="replace OUT where it exists")
        c.add_argument("--json", action="store_true", help="print one JSON object, no progress bar")
        c.set_defaults(run=run)
        return c

    e = command("encode", _encode, "code a clip into a stream", "OUT.nvc")
    target = e.add_mutually_exclusive_group()
    target.add_argument("--quality", type=int, default=32, help="0…63, higher is better (32)")
    target.add_argument("--bitrate-mbps", type=float, help="aim at this rate, 10^6 bits a second")
    target.add_argument("--psnr-db", type=float, help="aim at this PSNR (YUV 6:1:1)")
    e.add_argument("--effort", type=int, default=0, help="how much the encoder tries, -1 to 3")
    e.add_argument("--structure", default="random_access", help="intra, low_delay or random_access")
    e.add_argument("--intra-period", type=int, default=64, help="pictures from one I to the next (64)")
    e.add_argument("--frames", type=_positive, metavar="N", help="code only the first N")
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would fail again at exit
        return 1
    except KeyboardInterrupt:
        print("codec.py: stopped by Ctrl-C; nothing was written", file=sys.stderr)
        return 130
    except UsageError as error:
        print(f"codec.py: {error}", file=sys.stderr)
        return 2
    except (CodecError, BitstreamError, VideoError, OSError) as error:
        print(f"codec.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
