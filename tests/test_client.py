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
from service.jobs.fields import FIELDS
from service.reports.sets import ClipSet, SetClip
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
    (["preset=8,6", "psnr_db=32,34.5"], {"preset": ["8", "6"], "psnr_db": [32, 34.5]}),
    (["measures=vmaf"], {"measures": ["vmaf"]}),
    (["psnr_range=32,42", "points=5", "preset=null"], {"psnr_range": [32, 42], "points": 5, "preset": None}),
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


def test_options_are_taken_behind_the_command_too(run: Run, running: Orchestrator, worker: FakeWorker) -> None:
    name = run("submit", f"codec={worker.codec}", "tags.client=behind")[1].strip()
    worker.end(worker.next_offer())
    assert client.main(["list", "--tag", "client:behind", "--json", "--url", running.url]) == 0
    code, out, _ = run("list", "--tag", "client:behind", "--json")
    assert [code, json.loads(out.splitlines()[-1])["experiment_id"]] == [0, name]


def test_a_field_written_as_an_option_says_how_it_is_written(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("submit", "--quality", "20")
    assert (ended.value.code, "--quality: fields are written quality=VALUE" in capfd.readouterr().err) == (2, True)


def test_submit_help_lists_the_fields(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("submit", "--help")
    printed = capfd.readouterr().out
    assert all(f"\n    {field.name} " in printed for field in FIELDS)


def test_a_sweeps_artifacts_are_downloaded_run_by_run(run: Run, worker: FakeWorker, tmp_path: Path) -> None:
    finish(worker, 2, artifacts={"stream.nvc": worker.store(b"coded")})
    name = run("submit", "--watch", f"codec={worker.codec}", "quality=1,2")[1].split()[0]
    code, out, _ = run("download", name, str(tmp_path / "all"))
    assert (code, sorted(line.removeprefix(f"{tmp_path}/all/") for line in out.splitlines())) == (0, [
        "0/experiment.json", "0/stream.nvc", "1/experiment.json", "1/stream.nvc", "experiment.json"])
    assert (tmp_path / "all" / "1" / "stream.nvc").read_bytes() == b"coded"
    assert json.loads((tmp_path / "all" / "experiment.json").read_text())["experiment_id"] == name


def test_an_experiment_is_deleted_once_it_has_ended(run: Run, worker: FakeWorker) -> None:
    name = run("submit", f"codec={worker.codec}")[1].strip()
    assert run("delete", name)[0] == 1
    worker.end(worker.next_offer())
    assert run("delete", name) == (0, f"{name}  deleted\n", "")
    assert run("get", name)[0] == 1


def test_a_queued_experiment_says_why_it_waits(run: Run, running: Orchestrator, worker: FakeWorker) -> None:
    first, second = (run("submit", f"codec={worker.codec}")[1].strip() for _ in range(2))
    offer = worker.next_offer()
    reason = f"the only slot is taken, of the workers that have codec {worker.codec}"
    assert json.loads(run("get", second)[1])["waits_for"] == {"reason": reason, "next": "a slot becomes free"}
    assert client.how_far(running.status(second)) == (0.0, f"queued: {reason}")
    assert "waits_for" not in running.status(first)
    run("cancel", second)
    worker.end(offer)


SET = """about = "Two clips."
source = "nowhere"
clips = [
    { class = "One", name = "first", file = "first_16x8_25fps.yuv", size = "16x8", fps = "25", frames = 3 },
    { class = "Two", name = "generated" },
]
[settings]
quality = [1, 2]
frames = 2
"""


def test_a_set_is_uploaded_submitted_and_reported(run: Run, running: Orchestrator, worker: FakeWorker, tmp_path: Path
                                                  ) -> None:
    (tmp_path / "mine.toml").write_text(SET)
    (tmp_path / "clips" / "deep").mkdir(parents=True)
    (tmp_path / "clips" / "deep" / "first_16x8_25fps.yuv").write_bytes(bytes(16 * 8 * 3))
    words = ("submit", f"set={tmp_path}/mine.toml", f"codec={worker.codec}", "effort=0,1", "tags.paper=p")
    code, _, error = run(*words)
    assert (code, error) == (2, "client.py: set mine: 1 clips are not at the service, and --clips FOLDER says where "
                                "they are: first_16x8_25fps.yuv. Source: nowhere\n")
    finish(worker, 8)
    code, out, error = run(*words, "--clips", str(tmp_path / "clips"), "--watch")
    assert (code, error.splitlines()[0]) == (0, "uploaded first: 2 pictures, the set says 3")
    settings = running.status(out.split()[0])["settings"]
    assert (settings["clip"], settings["quality"], settings["frames"], settings["tags"]) == (
        ["first", "generated"], [1, 2], 2, {"set": "mine", "paper": "p"})
    code, out, _ = run("report", out.split()[0], "--set", f"{tmp_path}/mine.toml", "--format", "csv")
    assert (code, [line.split(",")[2] for line in out.splitlines()]) == (0, ["class", "One", "Two", "Overall"])


def test_an_aim_that_is_given_takes_the_place_of_the_sets() -> None:
    found = ClipSet("s", "", "", {"quality": [1, 2], "frames": 9}, (SetClip("A", "bikes"),))
    assert client.with_set({"psnr_db": 40, "codec": "nvc"}, found) == {
        "psnr_db": 40, "codec": "nvc", "frames": 9, "clip": ["bikes"], "tags": {"set": "s"}}


def test_a_file_of_another_size_is_not_the_sets_clip(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(SET.replace("first_16x8_25fps.yuv", "wrong.png").replace("first", "wrong"))
    Image.new("RGB", (8, 8)).save(tmp_path / "wrong.png")
    code, _, error = run("submit", f"set={tmp_path}/other.toml", "--clips", str(tmp_path))
    assert (code, error) == (2, f"client.py: {tmp_path}/wrong.png: its size is 8x8, the set's clip has 16x8\n")
