"""The table that papers print of a sweep: BD-rates by class and over all clips, and how long coding took.

Made from the experiment's status document alone (`GET /experiment/{id}/status`).  BD-rates are means over the clips of
a class that have one (the number of clips is told where some have none); times are those of a curve over the anchor's,
the sum over a clip's points each, as the geometric mean over clips.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OVERALL = "Overall"
METRIC_NAMES = {"psnr_y": "PSNR-Y", "psnr": "PSNR-YUV", "ssim_db": "SSIM", "ms_ssim_db": "MS-SSIM", "vmaf": "VMAF",
                "vmaf_neg": "VMAF-NEG", "xpsnr": "XPSNR"}
TIMES = {"encode_s": "Enc. time", "decode_s": "Dec. time"}


class ReportError(ValueError):
    """The experiment cannot be reported; the text says why."""


@dataclass(frozen=True)
class Table:
    """One curve against the anchor: a row for each class and the last one for all; None where there is no figure."""

    curve: str
    anchor: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str | None, ...]], ...]


def tables_of(document: Mapping[str, Any], anchor: str | None = None, groups: Mapping[str, str] | None = None
              ) -> list[Table]:
    """A table for each curve but the anchor (without one, the last curve). groups: each clip's class. ReportError."""
    matrix = document.get("bd_rate")
    if matrix is None or len(matrix["curves"]) < 2:
        raise ReportError("a report compares curves: submit a sweep of several codecs, presets or efforts")
    names = matrix["curves"]
    anchor = names[-1] if anchor is None else anchor
    if anchor not in names:
        raise ReportError(f"--anchor: no curve {anchor!r}; there are {', '.join(names)}")
    known = groups or {}
    by_class: dict[str, list[str]] = {}
    for clip in matrix["clips"]:
        by_class.setdefault(known.get(clip, "All clips"), []).append(clip)
    sections = [*by_class.items(), *([(OVERALL, list(matrix["clips"]))] if len(by_class) > 1 else [])]
    metrics = [metric for metric in METRIC_NAMES if metric in matrix["metrics"]]
    seconds = _seconds(document)
    at = names.index(anchor)
    return [Table(curve, anchor, (*(f"BD-rate {METRIC_NAMES[metric]}" for metric in metrics), *TIMES.values()), tuple(
        (title, (*(_mean(matrix["metrics"][metric]["per_clip"][clip][at][test]["percent"] for clip in clips)
                   for metric in metrics),
                 *(_ratio(seconds, kind, clips, curve, anchor) for kind in TIMES)))
        for title, clips in sections)) for test, curve in enumerate(names) if curve != anchor]


def _mean(percents: Iterable[float | None]) -> str | None:
    found = list(percents)
    numbers = [value for value in found if value is not None]
    if not numbers:
        return None
    missing = f" ({len(numbers)}/{len(found)})" if len(numbers) < len(found) else ""
    return f"{statistics.fmean(numbers):+.1f} %{missing}"


def _seconds(document: Mapping[str, Any]) -> dict[tuple[str, str, str], float]:
    """Seconds by kind of time, clip and curve: the sum over the curve's points."""
    figures = {run["run"]: run["metrics"] or {} for run in document["runs"]}
    found: dict[tuple[str, str, str], float] = {}
    for curve in document["curves"]:
        for kind in TIMES:
            values = [value for point in curve["points"] if (value := figures[point["run"]].get(kind)) is not None]
            if values and len(values) == len(curve["points"]):
                found[kind, curve["clip"], curve["curve"]] = math.fsum(values)
    return found


def _ratio(seconds: Mapping[tuple[str, str, str], float], kind: str, clips: Sequence[str], curve: str, anchor: str
           ) -> str | None:
    pairs = [(seconds.get((kind, clip, curve)), seconds.get((kind, clip, anchor))) for clip in clips]
    ratios = [mine / theirs for mine, theirs in pairs if mine and theirs]
    return f"{100 * statistics.geometric_mean(ratios):.0f} %" if ratios else None


# --- as text ---------------------------------------------------------------------------------------------------------


def markdown(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        lines = [f"**{table.curve} against {table.anchor}**", "", f"| | {' | '.join(table.columns)} |",
                 f"|---|{'--:|' * len(table.columns)}"]
        lines += [f"| {title} | {' | '.join(value or '–' for value in values)} |" for title, values in table.rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def as_csv(tables: Sequence[Table]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for table in tables:
        if table is tables[0]:
            writer.writerow(["curve", "anchor", "class", *table.columns])
        writer.writerows([table.curve, table.anchor, title, *(value or "" for value in values)]
                         for title, values in table.rows)
    return out.getvalue().rstrip("\n")


def latex(tables: Sequence[Table]) -> str:
    """Tables for the package booktabs."""
    parts = []
    for table in tables:
        rows = [f"{_tex(title)} & {' & '.join(_tex(value or '--') for value in values)} \\\\"
                for title, values in table.rows]
        if len(rows) > 1:
            rows.insert(len(rows) - 1, "\\midrule")
        parts.append("\n".join([
            f"% {table.curve} against {table.anchor}", f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            "\\toprule", f" & {' & '.join(map(_tex, table.columns))} \\\\", "\\midrule", *rows, "\\bottomrule",
            "\\end{tabular}"]))
    return "\n\n".join(parts)


def _tex(text: str) -> str:
    for sign in "%&_#$":
        text = text.replace(sign, f"\\{sign}")
    return text


FORMATS = {"markdown": markdown, "csv": as_csv, "latex": latex}
