"""The command line client: what it sends, prints, and exits with."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import client
from tests.orchestrator_rig import RESULT, ROOT, FakeWorker, Orchestrator

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(running: Orchestrator, capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        code = client.main(["--url", running.url, *words])
        return (code, *capfd.readouterr())

    return call


def finish(worker: FakeWorker, runs: int, **end: Any) -> None:
    threading.Thread(target=lambda: [worker.end(worker.next_offer(), **end) for _ in range(runs)], daemon=True).start()


@pytest.mark.parametrize(("words", "request_"), [
    ([], {}),
    (["quality=20", "clip=bikes", "keep_reconstruction=false"], {
        "quality": 20, "clip": "bikes", "keep_reconstruction": False}),
    (["codec=nvc,x264", "quality=8,16"], {"codec": ["nvc", "x264"], "quality": [8, 16]}),
    (["quality=[8,16]"], {"quality": [8, 16]}),
    (["label=1, 2", "tags.paper=table-2", "tags.n=3"], {"label": "1, 2", "tags": {"paper": "table-2", "n": "3"}}),
])
def test_words_make_a_request(words: list[str], request_: dict[str, Any]) -> None:
    assert client.request_of(words) == request_


def test_submit_prints_the_id(run: Run, running: Orchestrator, worker: FakeWorker) -> None:
    code, out, _ = run("submit", f"codec={worker.codec}")
    assert (code, running.status(out.strip())["settings"]["codec"]) == (0, worker.codec)
    worker.end(worker.next_offer())


def test_submit_and_watch_end_with_the_figures(run: Run, worker: FakeWorker) -> None:
    finish(worker, 1)
    code, out, _ = run("submit", "--watch", f"codec={worker.codec}")
    assert (code, out.split()[1:]) == (0, ["completed", "0.0780", "Mbit/s", "38.10", "dB"])


def test_a_watched_sweep_says_how_many_runs_completed(run: Run, worker: FakeWorker) -> None:
    finish(worker, 2)
    code, out, _ = run("--json", "submit", "--watch", f"codec={worker.codec}", "quality=1,2")
    assert (code, json.loads(out)["counts"]["completed"]) == (0, 2)


def test_a_watched_failure_is_exit_code_1(run: Run, worker: FakeWorker) -> None:
    finish(worker, 1, state="failed", error={"type": "bad-clip", "detail": "no pictures", "retry": False})
    code, out, _ = run("submit", "--watch", f"codec={worker.codec}")
    assert (code, "no pictures" in out) == (1, True)


def test_get_gives_the_document_and_artifacts(run: Run, worker: FakeWorker) -> None:
    name = run("submit", f"codec={worker.codec}")[1].strip()
    worker.end(worker.next_offer(), artifacts={"stream.nvc": worker.store(b"coded")})
    assert json.loads(run("get", name)[1])["metrics"] == RESULT["metrics"]
    assert run("get", name, "stream.nvc") == (0, "coded", "")


def test_list_finds_by_tag_one_document_a_line(run: Run, worker: FakeWorker) -> None:
    name = run("submit", f"codec={worker.codec}", "tags.client=list")[1].strip()
    worker.end(worker.next_offer())
    lines = run("--json", "list", "--tag", "client:list")[1].splitlines()
    assert [json.loads(line)["experiment_id"] for line in lines] == [name]


def test_a_folder_of_pictures_is_uploaded_as_one_clip(run: Run, tmp_path: Path) -> None:
    for number in (2, 10):
        Image.new("RGB", (16, 8)).save(tmp_path / f"{number}.png")
    assert run("upload", str(tmp_path), "pictures") == (
        0, "pictures  16x8, 2 pictures, rgb24 to yuv420p\n", "")


def test_headerless_video_is_uploaded_with_its_format(run: Run, tmp_path: Path) -> None:
    (tmp_path / "raw.yuv").write_bytes(bytes(16 * 8 * 3))
    assert run("upload", str(tmp_path / "raw.yuv"), "width=16", "height=8", "fps=25")[:2] == (
        0, "raw.yuv  16x8, 2 pictures\n")
    code, _, error = run("upload", str(tmp_path / "raw.yuv"), "width=16")
    assert (code, error) == (1, "client.py: height: headerless video needs width, height, fps\n")


def sweep(run: Run, worker: FakeWorker) -> str:
    """The id of one that has a curve of four points, at 1 dB for each doubling from 0.1 bits a pixel on."""
    name = run("submit", f"codec={worker.codec}", "quality=0,1,2,3")[1].strip()
    for _ in range(4):
        offer = worker.next_offer()
        quality = offer["experiment"]["quality"]
        worker.end(offer, result={**RESULT, "decoding_result": {"quality_metrics": {"psnr_y": 30.0 + quality}},
                                  "metrics": {"bitrate_mbps": 2.0**quality, "bpp": 0.1 * 2**quality}})
    assert run("watch", name)[0] == 0
    return name


def test_a_sweeps_plot_and_curves_are_written(run: Run, worker: FakeWorker, tmp_path: Path) -> None:
    name = sweep(run, worker)
    assert run("plot", name, "psnr_y.svg", "--rate", "bpp")[1].startswith("<?xml")
    code, out, _ = run("export", name, str(tmp_path / "curves"))
    table, curve = out.splitlines()
    assert (code, curve) == (0, str(tmp_path / "curves" / f"{worker.codec}.json"))
    assert json.loads(Path(curve).read_text())["results"]["psnr-y"] == [30, 31, 32, 33]
    with open(table, newline="") as rows:
        assert [(row["run"], row["quality"], row["psnr_y"]) for row in csv.DictReader(rows)] == [
            (f"{name}.{n}", str(n), f"{30 + n}.0") for n in range(4)]


def test_bd_rates_against_a_file_have_a_figure_or_a_reason(run: Run, worker: FakeWorker, tmp_path: Path) -> None:
    name = sweep(run, worker)
    lists = {"bpp": [0.2, 0.4, 0.8, 1.6], "psnr-y": [30, 31, 32, 33]}
    (tmp_path / "theirs.json").write_text(json.dumps({"name": "theirs", "results": lists}))
    lines = run("bd", name, "--anchor", str(tmp_path / "theirs.json"))[1].splitlines()
    assert lines[0].split(maxsplit=1) == [
        "psnr_y", f"mean of all clips    {worker.codec} against theirs:  -50.00 %  (100 % overlap)"]
    assert lines[1].endswith(": N/A: theirs has no psnr")
    assert run("bd", name, "--method", "akima") == (
        0, "no BD-rate: the experiment has one curve, and nothing to compare it with; --anchor FILE gives that\n", "")
    code, _, error = run("bd", name, "--anchor", "/no/such/file.json")
    assert (code, error.startswith("client.py: /no/such/file.json: ")) == (2, True)


@pytest.mark.parametrize(("words", "code", "said"), [
    (["submit", "qualty=3"], 1, "client.py: qualty: no such field"),
    (["submit", "quality"], 2, "client.py: 'quality': FIELD=VALUE was expected"),
    (["get", "exp_1_abcdef"], 1, "client.py: no experiment exp_1_abcdef"),
    (["watch", "exp_1_abcdef"], 1, "client.py: no experiment exp_1_abcdef"),
])
def test_what_goes_wrong_is_one_line(run: Run, words: list[str], code: int, said: str) -> None:
    found, _, error = run(*words)
    assert (found, error.strip().splitlines()[-1][:len(said)]) == (code, said)


def test_a_service_that_is_down_is_one_clear_line() -> None:
    done = subprocess.run([sys.executable, "client.py", "--url", "localhost:1", "list"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1, "client.py: the orchestrator at http://localhost:1 does not answer (Connection refused); is it running "
        "there? --url or NVC_URL says where\n")


def test_cancelling_and_running_again(run: Run, worker: FakeWorker) -> None:
    name = run("submit", f"codec={worker.codec}")[1].strip()
    worker.next_offer()
    assert run("cancel", name)[:2] == (0, f"{name}  cancelled\n")
    code, out, _ = run("rerun", name)
    assert (code, out.split()[1]) == (0, "queued")
    assert out.split()[0] != name
