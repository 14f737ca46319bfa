"""Rate and quality of nvc beside what its users would take instead, and BD-rates between them.

    python -m bench.rd [--efforts 0 1 2] [--slower] [--cache FOLDER] [CLIP…] > bench/results/rd.json

video     each clip (default: the test clips) by nvc, with each effort and weight set, and by x264, x265, SVT-AV1 and
          VP9, as their users run them (bench/rates/points.py), at the same intra period
stills    each picture of a folder by nvc, at the first and the last effort, JPEG, WebP, x264 and x265
          (bench/rates/stills.py)

A codec that is missing here is left out, and ``left_out`` says why. ``--markdown FILE`` and ``--plots FOLDER`` make
tables and plots of the result; ``--result FILE`` makes them of one that is there already, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import codec
from bench.rates import plots, tables
from bench.rates.points import (
    ANCHOR_CRF,
    SLOWER_CRF,
    Point,
    against_each,
    anchor_points,
    at_hand,
    means_of,
    own_points,
    sha256_of,
)
from bench.rates.processes import each
from bench.rates.stills import pictures_of, stills
from coding.interface import CodecError, Settings
from nvc.network.model import DEFAULT_MODEL, load_model
from video import library
from video.picture import VideoError

TEST_CLIPS, PICTURES = Path("../shared/data/test"), Path("../shared/data/kodak")
SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".y4m", ".yuv"}


def paths_of(given: Iterable[Path]) -> list[Path]:
    """Clips, and the clips in folders, by name. VideoError for a folder that holds none."""
    found = []
    for path in given:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise VideoError(f"{path}: no clip in this folder (expected {', '.join(sorted(SUFFIXES))})")
            found += inside
        else:
            found.append(path)
    return found


def ours(clip: Path, options: argparse.Namespace, model: str, effort: int) -> list[Point]:
    """nvc's points on a clip."""
    runs = [Settings(q, effort=effort, intra_period=options.intra_period, model=model) for q in options.qualities]
    return own_points(clip, options.frames, runs, options.cache)


def report(clip: Path, anchors: Iterable[str], options: argparse.Namespace) -> dict[str, Any]:
    """Points of nvc and the anchors on one clip, and nvc's BD-rate against each by each metric.

    ``nvc`` and ``bd_rate`` are of the first weight set and effort, ``others`` has the rest by their names;
    ``against_before`` is the BD-rate against the next lower effort, of the same weights.
    """
    theirs = {name: anchor_points(name, clip, options.frames, options.intra_period, options.cache) for name in anchors}
    own = {name: ours(clip, options, model, effort) for name, (model, effort) in variants(options).items()}
    made: dict[str, dict[str, Any]] = {}
    for name, points in own.items():
        before = {other: own[other] for other in lower(options, name)}
        made[name] = {"nvc": points, "bd_rate": against_each(points, theirs),
                      "against_before": against_each(points, before)}
        row = "  ".join(f"{anchor} {_shown(by['psnr'])}" for anchor, by in made[name]["bd_rate"].items())
        print(f"{clip.stem:16s} {name}, BD-rate, PSNR-YUV: {row}", file=sys.stderr, flush=True)
    first = made.pop(next(iter(made)))
    return {"clip": clip.stem, "clip_sha256": sha256_of(clip), **first, **theirs, "others": made}


def ends(options: argparse.Namespace) -> list[int]:
    """The first and the last effort, which may be the same."""
    return sorted({options.efforts[0], options.efforts[-1]}, key=options.efforts.index)


def variants(options: argparse.Namespace) -> dict[str, tuple[str, int]]:
    """Weight set and effort by their name: the first weight set at all efforts, the others at the first and last."""
    first, *rest = options.models
    pairs = [*product([first], options.efforts), *product(rest, ends(options))]
    return {f"{model}, effort {effort}": (model, effort) for model, effort in pairs}


def lower(options: argparse.Namespace, name: str) -> list[str]:
    """The variant of the same weights at the next lower effort, if there is one."""
    model, effort = variants(options)[name]
    below = {own: other for other, (weights, own) in variants(options).items() if weights == model and own < effort}
    return [below[max(below)]] if below else []


def _shown(result: dict[str, Any]) -> str:
    return result["reason"] if result["percent"] is None else f"{result['percent']:+.1f} %"


def video(paths: Iterable[Path], options: argparse.Namespace) -> dict[str, Any]:
    """The clips' part of the result."""
    here, left_out = at_hand([codec.get(name) for name in ANCHOR_CRF])
    slower = [name for name in SLOWER_CRF if name.split()[0] in here] if options.slower else []
    anchors = [*here, *slower]
    rows = each(partial(report, anchors=anchors, options=options), paths, options.processes)
    mean, counts = means_of([row["bd_rate"] for row in rows])
    first, *rest = variants(options)
    return {
        "frames": options.frames,
        "intra_period": options.intra_period,
        "effort": options.efforts[0],
        "variant": first,
        "mean_bd_rate": mean,
        "mean_bd_rate_clips": counts,
        "others": {name: means_of([row["others"][name]["bd_rate"] for row in rows])[0] for name in rest},
        "against_before": {first: means_of([row["against_before"] for row in rows])[0]} | {
            name: means_of([row["others"][name]["against_before"] for row in rows])[0] for name in rest},
        "left_out": left_out,
        "encoders": {name: here[name.split()[0]].describe() for name in anchors},
        "clips": rows,
    }


def measured(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """The whole result. CodecError for an unknown weight set, VideoError for clips that cannot be read."""
    parts = options.only.split(",")
    for model in options.models:
        load_model(model)  # an unknown one is refused at once, not after the anchors
    result: dict[str, Any] = {
        "command": command,
        "model_sha256": {name: about["sha256"] for name, about in codec.get("nvc").describe()["models"].items()},
    }
    if "video" in parts:
        own = [library.find("carphone"), library.find("bikes")]
        result |= video(paths_of(options.clips or ([TEST_CLIPS] if TEST_CLIPS.is_dir() else own)), options)
    if "stills" in parts:
        if pictures := pictures_of(options.stills):
            extremes = {name: way for name, way in variants(options).items() if way[1] in ends(options)}
            result["stills"] = stills(pictures, extremes, options.processes)
        else:
            result["stills"] = {"left_out": {"all": f"{options.stills}: no pictures there (--stills)"}}
    return result


def command_of(arguments: Sequence[str]) -> str:
    """The command that gives this result, without what changes no number: where things are kept."""
    words = ["python -m bench.rd"]
    given = iter(arguments)
    for word in given:
        if word in ("--cache", "--markdown", "--plots", "--processes"):
            next(given, None)
        else:
            words.append(word)
    return " ".join(words)


def parser() -> argparse.ArgumentParser:
    """What this bench can be asked."""
    parser = argparse.ArgumentParser(prog="bench.rd", description="nvc beside other codecs, as JSON.")
    parser.add_argument("clips", metavar="CLIP", type=Path, nargs="*",
                        help="clips, folders of clips; default: the test clips, or the library's")
    parser.add_argument("--only", default="video,stills", help="parts (video,stills)")
    parser.add_argument("--stills", metavar="FOLDER", type=Path, default=PICTURES, help=f"pictures ({PICTURES})")
    parser.add_argument("--cache", metavar="FOLDER", type=Path,
                        help="folder that keeps what was measured: a bench that was stopped goes on")
    parser.add_argument("--frames", type=int, default=33, help="pictures of each clip (33)")
    parser.add_argument("--intra-period", type=int, default=64)
    parser.add_argument("--efforts", type=int, nargs="+", default=[0], help="nvc's, the first leads (0)")
    parser.add_argument("--models", nargs="+", default=[DEFAULT_MODEL],
                        help="nvc's weight sets: the first leads, the others take the first and the last effort")
    parser.add_argument("--processes", type=int, default=1, help="clips and pictures measured at a time (1)")
    parser.add_argument("--qualities", type=int, nargs="+", default=[8, 20, 32, 44, 56])
    parser.add_argument("--slower", action="store_true", help="beside x265 slower and SVT-AV1 preset 4, too")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables there")
    parser.add_argument("--plots", metavar="FOLDER", type=Path, help="write the plots there, as SVG")
    parser.add_argument("--result", metavar="FILE", type=Path, help="tables and plots of this result")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if unknown := set(options.only.split(",")) - {"video", "stills"}:
        parser().error(f"--only: expected video, stills or both, got {', '.join(sorted(unknown))}")
    if options.result:
        result = json.loads(options.result.read_text())
    else:
        try:
            result = measured(options, command_of(sys.argv[1:] if arguments is None else arguments))
        except (CodecError, VideoError) as error:
            print(f"bench.rd: {error}", file=sys.stderr)
            return 1
        print(json.dumps(result, indent=1))
    drawn = plots.write(result, options.plots) if options.plots else []
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(tables.page(result, options.markdown, drawn), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
