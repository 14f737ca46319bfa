"""Curves of a grid and the BD-rate of each against each, from runs as the store gives them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metrics import bd_rate
from service.jobs.fields import read_request, runs_of
from service.jobs.states import State
from service.results import curves
from service.storage.records import GridRun

RATES = {8: 0.1, 16: 0.2, 24: 0.4, 32: 0.8}


def figures(rate: float, quality: int) -> dict[str, Any]:
    decibels = 28 + quality / 4
    return {"bitrate_mbps": rate, "bpp": rate / 2, "psnr_y": decibels, "psnr_db": decibels + 1, "ssim": 0.99,
            "ms_ssim": None}


def grid(factors: dict[str, float], **fields: Any) -> tuple[dict[str, Any], list[GridRun]]:
    """A grid in which a codec takes its factor times the usual rate."""
    document = read_request({"codec": list(factors), "quality": list(RATES), **fields})
    runs = [GridRun(f"exp.{n}", State.COMPLETED, 1, "w", settings,
                    figures(factors[settings["codec"]] * RATES[settings["quality"]], settings["quality"]), None)
            for n, settings in enumerate(runs_of(document))]
    return document, runs


def test_each_clip_and_codec_has_a_curve_with_points_by_rate() -> None:
    document, runs = grid({"a": 1.0, "b": 2.0}, clip=["bikes", "carphone"])
    found = curves.analyse(document, runs[::-1])["curves"]
    assert [(curve["clip"], curve["curve"]) for curve in found] == [
        ("carphone", "b"), ("carphone", "a"), ("bikes", "b"), ("bikes", "a")]
    assert found[1]["points"][0] == {
        "run": "exp.8", "quality": 8, "psnr_db": None, "bitrate_mbps": 0.1, "bpp": 0.05, "psnr_y": 30.0, "psnr": 31.0,
        "ssim_db": pytest.approx(20.0), "ms_ssim_db": None}
    assert [point["quality"] for point in found[1]["points"]] == [8, 16, 24, 32]


def test_what_varies_besides_the_codec_is_in_the_curves_name() -> None:
    document, runs = grid({"a": 1.0}, structure=["intra", "low_delay"], effort=[0, 3], model=["m"])
    assert [curve["curve"] for curve in curves.analyse(document, runs)["curves"]] == [
        "a intra effort 0", "a intra effort 3", "a low_delay effort 0", "a low_delay effort 3"]


def test_runs_that_did_not_complete_leave_the_others_points() -> None:
    document, runs = grid({"a": 1.0})
    runs[1] = GridRun("exp.1", State.FAILED, 3, "w", runs[1].settings, None, {"type": "crashed"})
    runs[2] = GridRun("exp.2", State.RUNNING, 1, "w", runs[2].settings, None, None)
    found = curves.analyse(document, runs)
    assert [point["run"] for point in found["curves"][0]["points"]] == ["exp.0", "exp.3"]
    assert found["bd_rate"]["metrics"]["psnr"]["mean"][0][0] == {
        "percent": None, "overlap": 0.0, "clips": 0, "interval_95": None,
        "reason": "anchor: 2 points, at least 4 are needed"}


def test_the_matrix_has_row_anchor_and_column_test() -> None:
    document, runs = grid({"a": 1.0, "b": 2.0})
    found = curves.analyse(document, runs)["bd_rate"]
    table = found["metrics"]["psnr_y"]["per_clip"]["carphone"]
    assert (found["curves"], found["clips"], found["method"]) == (["a", "b"], ["carphone"], "pchip")
    assert [[round(cell["percent"], 9) for cell in row] for row in table] == [[0.0, 100.0], [-50.0, 0.0]]
    assert (table[0][1]["overlap"], table[0][1]["interval"], table[0][1]["reason"]) == (1.0, [30.0, 36.0], "")


def test_a_cell_is_what_bd_rate_says() -> None:
    anchor = [(0.1, 30.0), (0.2, 32.5), (0.4, 34.5), (0.8, 36.0)]
    test = [(0.11, 30.2), (0.19, 32.1), (0.37, 34.8), (0.85, 36.3)]
    made = [{"clip": "c", "curve": name, "points": [
        {"bitrate_mbps": rate, **dict.fromkeys(curves.QUALITIES, quality)} for rate, quality in points]}
        for name, points in (("a", anchor), ("t", test))]
    assert curves.matrix(made)["metrics"]["psnr"]["per_clip"]["c"][0][1]["percent"] == bd_rate(anchor, test).percent


def test_a_metric_that_small_clips_do_not_have_is_not_available_and_says_why() -> None:
    document, runs = grid({"a": 1.0, "b": 2.0})
    cell = curves.analyse(document, runs)["bd_rate"]["metrics"]["ms_ssim_db"]["median"][0][1]
    assert (cell["percent"], cell["reason"]) == (None, "a has no ms_ssim_db")


def test_a_constant_metric_is_not_monotone() -> None:
    document, runs = grid({"a": 1.0, "b": 2.0})
    cell = curves.analyse(document, runs)["bd_rate"]["metrics"]["ssim_db"]["mean"][0][1]
    assert (cell["percent"], cell["reason"][:22]) == (None, "anchor: not monotone: ")


def test_mean_and_median_are_over_the_clips_that_have_one() -> None:
    document, runs = grid({"a": 1.0, "b": 1.0}, clip=["c1", "c2", "c3", "c4"])
    factor = {"c1": 1.1, "c2": 1.2, "c3": 1.9}
    for run in runs:
        clip = run.settings["clip"]
        if run.settings["codec"] == "b" and run.figures is not None:
            run.figures["bitrate_mbps"] *= factor.get(clip, 1.0)
            if clip == "c4":
                run.figures["psnr_y"] += 100
    found = curves.analyse(document, runs)["bd_rate"]["metrics"]["psnr_y"]
    mean, median = found["mean"][0][1], found["median"][0][1]
    assert (round(mean["percent"], 6), round(median["percent"], 6), mean["clips"]) == (40.0, 20.0, 3)
    assert mean["reason"] == "1 of 4 clips have none"
    assert [round(bound, 6) for bound in mean["interval_95"]] == [10.0, 90.0]


def test_a_matrix_of_many_curves_is_of_the_first_and_names_the_others() -> None:
    document, runs = grid({f"c{n:02}": 1.0 for n in range(26)})
    found = curves.analyse(document, runs)
    assert len(found["curves"]) == 26
    assert (len(found["bd_rate"]["curves"]), found["bd_rate"]["left_out"]) == (24, ["c24", "c25"])
    assert len(found["bd_rate"]["metrics"]["psnr"]["mean"]) == 24


def test_the_analysis_of_a_grid_that_has_ended_outlives_the_program(tmp_path: Path) -> None:
    document, runs = grid({"a": 1.0})
    first = curves.Analyses(tmp_path / "analyses").of("exp", document, runs)
    (file,) = (tmp_path / "analyses").iterdir()
    assert file.read_text() == first
    file.write_text('{"curves": "as they were"}')
    assert curves.Analyses(tmp_path / "analyses").of("exp", document, runs) == '{"curves": "as they were"}'
    runs[0] = replace(runs[0], state=State.RUNNING)
    assert "as they were" not in curves.Analyses(tmp_path / "analyses").of("exp", document, runs)


def test_a_disk_that_takes_no_analysis_is_no_reason_not_to_answer(tmp_path: Path) -> None:
    document, runs = grid({"a": 1.0})
    (tmp_path / "analyses").write_text("no folder")
    assert json.loads(curves.Analyses(tmp_path / "analyses").of("exp", document, runs))["curves"]


def test_an_analysis_is_made_again_only_when_a_run_has_ended(tmp_path: Path) -> None:
    document, runs = grid({"a": 1.0})
    kept = curves.Analyses(tmp_path)
    first = kept.of("exp", document, runs[:3])
    assert kept.of("exp", document, runs[:3]) is first
    assert json.loads(kept.of("exp", document, runs)) == curves.analyse(document, runs)
