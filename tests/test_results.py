"""A sweep's curves in other forms, over HTTP: plots, CompressAI's layout, BD-rates against other programs' files."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import requests
from PIL import Image

from service.results import plots
from service.results.plots import NoPlots, Plots
from tests.orchestrator_rig import PATIENCE_S, RESULT, FakeWorker, Orchestrator
from tests.test_result_formats import compressai_file, curve

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def sweep(running: Orchestrator) -> str:
    """Two curves of two clips, of four points each, all done."""
    worker = FakeWorker(running, "plain")
    name = running.submit(clip=["generated", "bikes"], effort=[0, 1], quality=[1, 2, 3, 4])
    for _ in range(16):
        offer = worker.next_offer()
        wanted = offer["experiment"]
        rate = (1 + wanted["effort"]) * 0.1 * 2 ** wanted["quality"]
        worker.end(offer, result={
            **RESULT, "metrics": {"bitrate_mbps": rate, "bpp": rate / 10, "psnr_db": 31.0 + wanted["quality"],
                                  "ssim": 0.9 + 0.01 * wanted["quality"], "ms_ssim": None},
            "decoding_result": {"quality_metrics": {"psnr_y": 30.0 + wanted["quality"]}, "decode_s": 0.5}})
    running.until(name, "completed")
    worker.stop()
    return name


def problem(answer: requests.Response) -> tuple[int, str, str]:
    document = answer.json()
    return answer.status_code, document["type"].rpartition("/")[2], document["detail"]


# --- plots


def test_a_plot_is_an_svg_with_a_panel_for_each_clip(running: Orchestrator, sweep: str) -> None:
    answer = running.get(f"/experiment/{sweep}/plots/psnr_y.svg")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/svg+xml")
    tree = ElementTree.fromstring(answer.content)
    assert tree.tag == f"{SVG}svg"
    panels = [part for part in tree.iter(f"{SVG}g") if part.get("id", "").startswith("axes_")]
    assert len(panels) == 2
    again = running.get(f"/experiment/{sweep}/plots/psnr_y.svg", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_a_plot_of_one_clip_as_png(running: Orchestrator, sweep: str) -> None:
    answer = running.get(f"/experiment/{sweep}/plots/ssim_db.png?clip=bikes&rate=bpp")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert struct.unpack(">II", answer.content[16:24]) == (1024, 704)


def test_a_plot_of_nothing_yet_says_so(running: Orchestrator) -> None:
    name = running.submit(quality=[1, 2], codec="nvc")
    assert running.get(f"/experiment/{name}/plots/psnr.png").status_code == 200
    running.post(f"/experiment/{name}/cancel")


@pytest.mark.parametrize(("path", "status", "slug", "words"), [
    ("psnr_y.gif", 404, "unknown-plot", "no plot 'psnr_y.gif'; there are psnr_y, psnr, ssim_db, ms_ssim_db"),
    ("beauty.svg", 404, "unknown-plot", "no plot 'beauty.svg'"),
    ("psnr.svg?rate=kbps", 400, "invalid-parameter", "rate: expected bitrate_mbps or bpp, got 'kbps'"),
    ("psnr.svg?clip=foreman", 404, "unknown-curve", "clip: the experiment has no clip 'foreman'"),
])
def test_a_plot_that_there_is_not_is_refused(running: Orchestrator, sweep: str, path: str, status: int, slug: str,
                                             words: str) -> None:
    found = problem(running.get(f"/experiment/{sweep}/plots/{path}"))
    assert found[:2] == (status, slug)
    assert found[2].startswith(words)


def test_curves_are_told_apart_by_the_colours_of_the_page(tmp_path: Path) -> None:
    drawn = Plots(tmp_path).draw(("x",), [curve("a", "bikes"), curve("b", "bikes", 2.0)], "psnr_y", "bpp", "svg")
    style = (Path(__file__).parent.parent / "page" / "style.css").read_text()
    for place, colour in enumerate(plots.COLOURS):
        assert f"--c{place}: {colour};" in style
    assert plots.COLOURS[0].encode() in drawn
    assert plots.COLOURS[1].encode() in drawn
    assert plots.COLOURS[2].encode() not in drawn


def test_a_name_is_never_read_as_a_formula_or_markup(tmp_path: Path) -> None:
    hostile = r"$\nothing{$</g><script>alert(1)</script>"
    drawn = Plots(tmp_path).draw(("x",), [curve("a", hostile), curve("b", hostile)], "psnr_y", "bpp", "svg")
    assert [part for part in ElementTree.fromstring(drawn).iter() if part.tag == f"{SVG}script"] == []
    plain = Plots(tmp_path).draw(("x",), [curve("a", hostile)], "psnr_y", "bpp", "png")
    assert Image.open(io.BytesIO(plain)).format == "PNG"


def test_without_matplotlib_the_plot_alone_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(NoPlots, match="need the package matplotlib"):
        Plots(tmp_path).draw(("x",), [curve("a", "bikes")], "psnr_y", "bpp", "svg")


# --- other programs' layouts


def test_a_curve_leaves_in_compressais_layout(running: Orchestrator, sweep: str) -> None:
    answer = running.get(f"/experiment/{sweep}/compressai?curve=nvc effort 1&clip=bikes")
    made = answer.json()
    assert made["name"] == "nvc effort 1"
    assert made["description"].startswith(f"{sweep}: bikes. nvc ")
    assert made["results"]["bpp"] == [0.04, 0.08, 0.16, 0.32]
    assert made["results"]["psnr-y"] == [31, 32, 33, 34]
    assert made["results"]["decoding_time"] == [0.5] * 4
    mean = running.get(f"/experiment/{sweep}/compressai?curve=nvc effort 1").json()
    assert mean["description"].startswith(f"{sweep}: mean of generated, bikes. ")


def test_which_curve_must_be_said_where_there_are_several(running: Orchestrator, sweep: str) -> None:
    assert problem(running.get(f"/experiment/{sweep}/compressai")) == (
        400, "invalid-parameter",
        "curve: expected one of nvc effort 0, nvc effort 1; CompressAI has one file a curve")
    assert problem(running.get(f"/experiment/{sweep}/compressai?curve=av2"))[:2] == (404, "unknown-curve")


def test_an_anchor_file_joins_the_matrix(running: Orchestrator, sweep: str) -> None:
    anchor = {"name": "theirs.json", "document": compressai_file(**{"psnr-y": [31, 32, 33, 34]})}
    found = running.post(f"/experiment/{sweep}/bd_rate", {"anchors": [anchor]}).json()
    assert found["bd_rate"]["rate"] == "bpp"
    assert found["bd_rate"]["curves"] == ["theirs", "nvc effort 0", "nvc effort 1"]
    cells = found["bd_rate"]["metrics"]["psnr_y"]["per_clip"]["mean of all clips"][0]
    assert [round(cell["percent"], 6) for cell in cells] == [0, -80, -60]    # 0.02 and 0.04 where theirs takes 0.1
    assert [row["curve"] for row in found["curves"] if row.get("anchor")] == ["theirs"]


def test_other_methods_and_a_choice_of_curves_are_compared_on_request(running: Orchestrator, sweep: str) -> None:
    found = running.post(f"/experiment/{sweep}/bd_rate", {"method": "cubic", "curves": ["nvc effort 1"]}).json()
    assert (found["bd_rate"]["method"], found["bd_rate"]["rate"]) == ("cubic", "bitrate_mbps")
    assert (found["bd_rate"]["curves"], found["bd_rate"]["clips"]) == (["nvc effort 1"], ["generated", "bikes"])
    assert running.post(f"/experiment/{sweep}/bd_rate").json()["bd_rate"] == running.status(sweep)["bd_rate"]


@pytest.mark.parametrize(("body", "words"), [
    ({"anchors": {}}, "anchors: expected at most 20 files"),
    ({"anchors": [{"name": "x"}]}, 'anchors: expected {"name", "document"} for each file'),
    ({"files": []}, "files: no such field; known are anchors, curves, method"),
    ({"method": "spline"}, "method: expected one of pchip, akima, cubic, got 'spline'"),
    ({"curves": ["av2"]}, "curves: expected 1 to 24 of nvc effort 0, nvc effort 1"),
    ({"curves": [{}]}, "curves: expected 1 to 24 of"),
    ({"curves": []}, "curves: expected 1 to 24 of"),
    ({"anchors": [{"name": "x.json", "document": {"results": {"bpp": ["a"]}}}]}, "x.json: bpp[0]: expected a number"),
])
def test_what_is_no_anchor_is_refused(running: Orchestrator, sweep: str, body: Any, words: str) -> None:
    status, slug, detail = problem(running.post(f"/experiment/{sweep}/bd_rate", body))
    assert (status, slug) == (422, "invalid-field")
    assert detail.startswith(words)


def test_a_large_anchor_file_is_taken(running: Orchestrator, sweep: str) -> None:
    point = {"ave_all_frame_bpp": 0.1, "ave_all_frame_psnr_y": 30.0, "padding": "x" * 500_000}
    body = {"anchors": [{"name": "vtm.json", "document": {"UVG": {"bikes.yuv": {"0": point}}}}]}
    answer = requests.post(f"{running.url}/experiment/{sweep}/bd_rate", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200
    assert answer.json()["bd_rate"]["clips"] == ["bikes"]


def test_forms_of_an_unknown_experiment_are_404(running: Orchestrator) -> None:
    for path in ("plots/psnr.svg", "compressai"):
        assert running.get(f"/experiment/exp_1_abcdef/{path}").status_code == 404
