"""Sets of clips, and the tables that papers print of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.jobs.fields import read_request
from service.reports import sets, tables
from service.reports.sets import SetClip, SetError, read_set
from service.reports.tables import ReportError, tables_of


@pytest.mark.parametrize(("name", "classes", "clips"), [
    ("library", ["real", "rendered"], 4), ("uvg", ["UVG"], 7), ("hevc", ["B", "C", "D", "E"], 16),
    ("mcl-jcv", ["MCL-JCV"], 30), ("aom", ["A2", "A3", "A4", "A5"], 40),
])
def test_a_set_has_clips_in_classes_and_settings_that_an_experiment_takes(
        name: str, classes: list[str], clips: int) -> None:
    found = read_set(name)
    assert (list(dict.fromkeys(found.groups.values())), len(found.clips)) == (classes, clips)
    assert read_request({**found.settings, "clip": [clip.name for clip in found.clips]})["frames"] in (33, 96, 130)
    assert all(clip.file or name == "library" for clip in found.clips)


def test_every_set_that_is_carried_is_known() -> None:
    assert sets.known() == ["aom", "hevc", "library", "mcl-jcv", "uvg"]


def test_a_set_that_there_is_not_is_refused() -> None:
    with pytest.raises(SetError, match=r"set: no set 'uvq'; there are aom, hevc, library, mcl-jcv, uvg, and"):
        read_set("uvq")


@pytest.mark.parametrize(("text", "words"), [
    ("clips = []", r"mine.toml: about: is missing"),
    ('about = ""\nsource = ""\nsettings = {}\nclips = [{ class = "A" }]', "clips: expected class and name of each"),
    ('about = ""\nsource = ""\nsettings = {}\nclips = [{ class = "A", name = "b", hue = "c" }]', "hue: no such field"),
    ('about = ""\nsource = ""\nsettings = {}\nclips = [{ class = "A", name = "b", frames = "9" }]', "frames: exp"),
    ('about = ""\nsource = ""\nsettings = {}\nclips = [{ class = "A", name = "b", fps = "fast" }]', "Invalid literal"),
    ('about = ""\nsource = ""\nsettings = {}\nclips = [{ class = "A", name = "b" }, { class = "B", name = "b" }]',
     "two clips have one name"),
    ("about = ", r"mine.toml: Invalid value"),
])
def test_a_wrong_set_of_a_user_is_refused_by_file_and_field(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SetError, match=words):
        read_set(str(tmp_path / "mine.toml"))


def test_another_size_is_another_clip_and_another_rate_is_worth_a_word() -> None:
    clip = SetClip("B", "Cactus", "c.yuv", "1920x1080", "50", 500)
    assert clip.differences({"width": 1920, "height": 1080, "fps": "50/1", "frames": 500}) == ("", [])
    assert clip.differences({"width": 832, "height": 480, "fps": "25/1", "frames": 499}) == (
        "its size is 832x480, the set's clip has 1920x1080",
        ["25/1 pictures a second, the set says 50", "499 pictures, the set says 500"])


def document(percents: dict[str, float | None], seconds: float = 2.0) -> dict[str, Any]:
    """Two curves on each clip, of two points; `mine` takes so many percent less or more, and so much longer."""
    curves, runs = [], []
    for clip in percents:
        for curve, factor in (("mine", seconds), ("x265", 1.0)):
            points = []
            for n in range(2):
                name = f"{clip}.{curve}.{n}"
                points.append({"run": name})
                runs.append({"run": name, "metrics": {"encode_s": factor * (n + 1), "decode_s": 0.5}})
            curves.append({"clip": clip, "curve": curve, "points": points})
    cell = lambda value: {"percent": value, "reason": "" if value is not None else "they do not meet"}  # noqa: E731
    tables_ = {clip: [[cell(0.0), cell(None)], [cell(value), cell(0.0)]] for clip, value in percents.items()}
    return {"runs": runs, "curves": curves, "bd_rate": {
        "curves": ["mine", "x265"], "clips": list(percents), "metrics": {"psnr_y": {"per_clip": tables_}}}}


def test_a_table_has_the_mean_of_each_class_and_of_all() -> None:
    (table,) = tables_of(document({"a": -10.0, "b": -20.0, "c": -3.0}), "x265", {"a": "B", "b": "B", "c": "C"})
    assert (table.curve, table.anchor, table.columns) == ("mine", "x265", ("BD-rate PSNR-Y", "Enc. time", "Dec. time"))
    assert table.rows == (("B", ("-15.0 %", "200 %", "100 %")), ("C", ("-3.0 %", "200 %", "100 %")),
                          ("Overall", ("-11.0 %", "200 %", "100 %")))


def test_clips_without_a_figure_are_counted_and_none_is_none() -> None:
    (table,) = tables_of(document({"a": -10.0, "b": None}), "x265", {"a": "B", "b": "C"})
    assert [values[0] for _, values in table.rows] == ["-10.0 %", None, "-10.0 % (1/2)"]


def test_without_classes_there_is_one_row() -> None:
    (table,) = tables_of(document({"a": -10.0, "b": -20.0}))
    assert [title for title, _ in table.rows] == ["All clips"]


def test_an_anchor_that_there_is_not_is_refused() -> None:
    with pytest.raises(ReportError, match="--anchor: no curve 'x266'; there are mine, x265"):
        tables_of(document({"a": 1.0}), "x266")
    with pytest.raises(ReportError, match="a report compares curves"):
        tables_of({"runs": [], "curves": []})


def test_the_table_as_markdown_csv_and_latex() -> None:
    found = tables_of(document({"a_1": -10.0, "b": None}), "x265", {"a_1": "B_1", "b": "C"})
    assert tables.markdown(found).splitlines() == [
        "**mine against x265**", "", "| | BD-rate PSNR-Y | Enc. time | Dec. time |", "|---|--:|--:|--:|",
        "| B_1 | -10.0 % | 200 % | 100 % |", "| C | – | 200 % | 100 % |", "| Overall | -10.0 % (1/2) | 200 % | 100 % |"]
    assert tables.as_csv(found).splitlines() == [
        "curve,anchor,class,BD-rate PSNR-Y,Enc. time,Dec. time", "mine,x265,B_1,-10.0 %,200 %,100 %",
        "mine,x265,C,,200 %,100 %", "mine,x265,Overall,-10.0 % (1/2),200 %,100 %"]
    assert tables.latex(found).splitlines() == [
        "% mine against x265", r"\begin{tabular}{lrrr}", r"\toprule", r" & BD-rate PSNR-Y & Enc. time & Dec. time \\",
        r"\midrule", r"B\_1 & -10.0 \% & 200 \% & 100 \% \\", r"C & -- & 200 \% & 100 \% \\", r"\midrule",
        r"Overall & -10.0 \% (1/2) & 200 \% & 100 \% \\", r"\bottomrule", r"\end{tabular}"]
