"""The page in a headless Chromium, before an orchestrator and a worker whose every step is dictated."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.chromium import CHROMIUM
from tests.orchestrator_rig import PATIENCE_S, RESULT, ROOT, FakeWorker, Orchestrator
from video.containers import VideoWriter
from video.picture import ClipInfo, Picture

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    process = Orchestrator(tmp_path_factory.mktemp("browser"), "--lease-s", "4", "--heartbeat-s", "0.2")
    yield process
    assert process.stop() == 0


@pytest.fixture
def worker(running: Orchestrator, request: pytest.FixtureRequest) -> Iterator[FakeWorker]:
    made = FakeWorker(running, request.node.name[-60:].lstrip("_"), codec=request.node.name[-60:].lstrip("_"))
    yield made
    made.register(draining=True)
    made.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab in which nothing may go wrong unnoticed: no error, no refusal by the policy, no dialog."""
    context = browser.new_context()
    made = context.new_page()
    made.set_default_timeout(PATIENCE_S * 1000)
    expect.set_options(timeout=PATIENCE_S * 1000)
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda said: wrong.append(said.text) if said.type == "error" and not said.text.startswith(
        "Failed to load resource") else None)   # how Chromium tells every answer of 4xx, which some tests ask for
    made.on("dialog", lambda dialog: wrong.append(dialog.message))
    yield made
    context.close()
    assert wrong == []


def result(offer: dict[str, Any]) -> dict[str, Any]:
    quality = offer["experiment"]["quality"]
    return {**RESULT, "decoding_result": {"quality_metrics": {"psnr_y": 30.0 + quality}},
            "metrics": {"bitrate_mbps": 0.1 * quality, "bpp": 0.01 * quality, "psnr_db": 31.0 + quality, "ssim": 0.9}}


def test_an_experiment_is_submitted_watched_and_read(running: Orchestrator, page: Page) -> None:
    worker = FakeWorker(running, "slow", codec="slow", beating=False)    # its heartbeats are the progress below
    page.goto(f"{running.url}/#/submit")
    page.get_by_label("codec").fill(worker.codec)
    page.get_by_label("label").fill(HOSTILE)
    page.get_by_role("button", name="Submit").click()
    offer = worker.next_offer()
    worker.register(running=[{"run": offer["run"], "attempt": 1, "phase": "encode", "fraction": 0.5, "frame": 1,
                              "frames": 2}])
    expect(page.locator("h1 .badge")).to_have_text("running")
    expect(page.locator(".now .words")).to_contain_text("encode 1/2")
    worker.end(offer)
    expect(page.locator("h1 .badge")).to_have_text("completed")
    expect(page.locator(".tile strong").first).to_have_text("0.078 Mbit/s")
    expect(page.locator("h1")).to_contain_text(HOSTILE)
    expect(page.locator("#source")).to_contain_text(f"curl {running.url}/experiment/{offer['run']}/status")
    worker.stop()


def test_a_wrong_field_is_named_beside_it(running: Orchestrator, page: Page) -> None:
    page.goto(f"{running.url}/#/submit")
    page.get_by_label("frames").fill("-1")
    with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        page.get_by_role("button", name="Submit").click()
    assert answered.value.status == 422
    expect(page.locator(".field", has=page.locator("#field-frames")).locator(".wrong")).to_contain_text("frames: ")


def test_a_sweep_fills_its_plot_and_a_point_opens_its_run(running: Orchestrator, worker: FakeWorker, page: Page
                                                          ) -> None:
    name = running.submit(codec=worker.codec, effort=[0, 1], quality=[1, 2, 3, 4])
    page.goto(f"{running.url}/#/experiment/{name}")
    for _ in range(8):
        offer = worker.next_offer()
        worker.end(offer, result=result(offer))
    expect(page.locator(".plot .mark")).to_have_count(8 + 2)     # and the legend's
    expect(page.locator(".matrix td.value").first).to_contain_text("0.0 %")
    page.locator(".plot svg a").first.focus()
    expect(page.locator(".tip")).to_contain_text("quality 1")
    page.keyboard.press("Enter")
    expect(page.locator(".lead .id")).to_have_text(f"{name}.0")


def test_a_sweep_is_cancelled_and_cloned(running: Orchestrator, worker: FakeWorker, page: Page) -> None:
    name = running.submit(codec=worker.codec, quality=[1, 2], label="first")
    page.goto(f"{running.url}/#/experiment/{name}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("h1 .badge")).to_have_text("cancelled")
    page.get_by_role("link", name="Clone with changes").click()
    expect(page.get_by_label("quality")).to_have_value("1, 2")
    page.get_by_label("quality").fill("3, 4, 5")
    expect(page.locator("#source")).to_contain_text('{"quality":[3,4,5]}')
    page.get_by_role("button", name="Submit the clone").click()
    expect(page.locator(".verdict")).to_contain_text(f"Cloned from {name}")
    expect(page.locator(".now")).to_contain_text("of 3 runs")
    running.post(f"/experiment/{page.locator('.lead .id').inner_text()}/cancel")


def test_a_worker_that_dies_is_shown_as_lost_and_its_run_waits(running: Orchestrator, worker: FakeWorker,
                                                               page: Page) -> None:
    name = running.submit(codec=worker.codec)
    worker.next_offer()
    page.goto(f"{running.url}/#/workers")
    card = page.locator(".card", has=page.get_by_role("heading", name=worker.name))
    expect(card).to_contain_text("busy")
    worker._stop.set()      # no more heartbeats
    expect(card).to_contain_text("lost")
    page.goto(f"{running.url}/#/experiment/{name}")
    expect(page.locator("h1 .badge")).to_have_text("queued")
    expect(page.locator("td .why")).to_contain_text("was not heard of")
    running.post(f"/experiment/{name}/cancel")


def test_the_list_turns_pages_and_shows_hostile_labels_as_text(running: Orchestrator, worker: FakeWorker, page: Page
                                                               ) -> None:
    names = [running.submit(codec=worker.codec, label=HOSTILE, tags={"test": "list"}) for _ in range(101)]
    page.goto(f"{running.url}/#/list?tag=test:list")
    expect(page.locator("tbody tr")).to_have_count(100)
    expect(page.locator("td .name").first).to_have_text(HOSTILE)
    page.get_by_role("button", name="Older").click()
    expect(page.locator("tbody .id")).to_have_count(1)
    expect(page.locator("tbody .id")).to_have_text(names[0])
    for name in names:
        running.post(f"/experiment/{name}/cancel")


def test_it_works_behind_a_path_prefix(running: Orchestrator, worker: FakeWorker, page: Page) -> None:
    name = running.submit(codec=worker.codec)
    worker.end(worker.next_offer())

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path.startswith("/nvc/")
            upstream = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)
            upstream.request("GET", self.path.removeprefix("/nvc"), headers={"Accept": "*/*"})
            answer = upstream.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for field in ("Content-Type", "Content-Security-Policy", "ETag"):
                if answer.getheader(field):
                    self.send_header(field, str(answer.getheader(field)))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    page.goto(f"http://127.0.0.1:{proxy.server_address[1]}/nvc/#/experiment/{name}")
    expect(page.locator("h1 .badge")).to_have_text("completed")
    page.get_by_role("link", name="Experiments").click()
    expect(page.locator("td .id", has_text=name)).to_be_visible()
    proxy.shutdown()
    proxy.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_a_narrow_screen(running: Orchestrator, page: Page, scheme: Any, tmp_path: Path) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 700})
    for view in ("list", "workers", "submit"):
        page.goto(f"{running.url}/#/{view}")
        expect(page.locator("h1")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def coded(running: Orchestrator, worker: FakeWorker, page_of: Path, **fields: Any) -> list[str]:
    """The runs of a sweep over two qualities that have kept their reconstructions."""
    name = running.submit(codec=worker.codec, clip="generated", quality=[1, 2], **fields)
    for level in (60, 120):
        offer = worker.next_offer()
        path = page_of / f"{level}.mkv"
        with VideoWriter(path, ClipInfo(176, 144, Fraction(30))) as writer:
            for _ in range(2):
                writer.write(Picture(*(np.full(shape, level, np.uint8) for shape in ((144, 176), (72, 88), (72, 88)))))
        frames = [{"index": n, "type": "I", "bytes": 5, "psnr_db": 30.0 + n, "psnr_y": 30.0 + n} for n in range(2)]
        worker.end(offer, result={**result(offer), "frames": frames, "clip": {"width": 176, "height": 144}},
                   artifacts={"reconstruction.mkv": worker.store(path.read_bytes())})
    running.until(name, "completed")
    return [f"{name}.0", f"{name}.1"]


def test_two_runs_are_compared_picture_by_picture(running: Orchestrator, worker: FakeWorker, page: Page, tmp_path: Path
                                                  ) -> None:
    one, other = coded(running, worker, tmp_path)
    page.goto(f"{running.url}/#/experiment/{one.split('.')[0]}")
    for run in (one, other):
        page.get_by_label(f"Compare run {run}").check()
    page.get_by_role("link", name="Compare ").click()
    expect(page.locator("dd").first).to_have_text("picture 0, I: 30.00 dB, 5 bytes")
    for place in (0, 1):
        expect(page.locator(".stage img").nth(place)).to_have_js_property("naturalWidth", 176)
    page.get_by_label("View").select_option("error map")
    expect(page.locator(".stage img").nth(2)).to_have_js_property("naturalWidth", 176)
    expect(page.locator(".scale")).to_contain_text("32 levels of luma or more")
    page.locator(".stage").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"frame=1&way=error&at=1\.25"))
    page.reload()
    expect(page.get_by_label("Picture", exact=True)).to_have_value("1")
    expect(page.get_by_label("View")).to_have_value("error")
    expect(page.locator(".stage img").first).to_have_attribute("style", re.compile(r"scale\(1\.25\)"))


def test_two_runs_are_played_in_step(running: Orchestrator, worker: FakeWorker, page: Page, tmp_path: Path) -> None:
    one, other = coded(running, worker, tmp_path)
    page.goto(f"{running.url}/#/compare/{one}/{other}?way=beside")
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_label("Picture", exact=True)).to_have_value("1")         # the last one
    expect(page.get_by_role("button", name="Play")).to_be_visible()             # and it stands there
    expect(page.locator("table")).to_contain_text("quality")                    # what differs


def test_experiments_are_searched_marked_and_tagged(running: Orchestrator, worker: FakeWorker, page: Page) -> None:
    running.submit(codec=worker.codec, label="night bus")
    running.submit(codec=worker.codec, label="morning")
    page.goto(f"{running.url}/#/list")
    page.get_by_label("Search").fill("bus night")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody input[type=checkbox]").check()
    page.get_by_label("Tag for those marked").fill("team:red")
    page.get_by_role("button", name="Set tag").click()
    expect(page.locator(".filters", has_text="marked")).to_be_hidden()
    page.goto(f"{running.url}/#/list?tag=team:red")
    expect(page.locator("td .name")).to_have_text("night bus")


def test_a_key_is_asked_for_and_then_shown(running: Orchestrator, page: Page, tmp_path: Path) -> None:
    state = tmp_path / "orchestrator"
    made = subprocess.run([sys.executable, "orchestrator.py", "keys", "--state", str(state), "add", "--role", "client"],
                          cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    locked = Orchestrator(tmp_path)
    try:
        page.goto(f"{locked.url}/#/list")
        expect(page.get_by_role("alert").first).to_contain_text("The key is kept until this tab is closed")
        page.get_by_label("Key").fill(made)
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator(".total")).to_contain_text("0 runs accepted")
        expect(page.locator("#source")).to_contain_text('-H "Authorization: Bearer $NVC_KEY"')
        assert made not in page.content()
    finally:
        locked.stop()


def test_ten_thousand_runs_are_turned_page_by_page(running: Orchestrator, worker: FakeWorker, page: Page) -> None:
    worker.draining = True      # it is known, and takes nothing
    worker.register()
    names = [running.submit(codec=worker.codec, effort=[0, 1, 2, 3], structure=["intra", "low_delay"],
                            clip=["bikes", "carphone"], quality=list(range(62)), tags={"test": "wide"})
             for _ in range(11)]
    page.goto(f"{running.url}/#/list?tag=test:wide")
    expect(page.locator("tbody tr")).to_have_count(11)
    page.goto(f"{running.url}/#/workers")
    expect(page.locator("tbody tr").first).to_be_visible()
    expect(page.locator(".lead")).to_contain_text("the oldest 1000 shown")
    page.goto(f"{running.url}/#/experiment/{names[0]}")
    expect(page.locator(".table tbody tr")).to_have_count(100)
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".turn")).to_contain_text("101–200 of 992")
    for name in names:
        running.post(f"/experiment/{name}/cancel")


def test_what_is_chosen_in_a_sweep_is_in_its_address(running: Orchestrator, worker: FakeWorker, page: Page) -> None:
    name = running.submit(codec=worker.codec, clip=["bikes", "carphone"], quality=[1])
    page.goto(f"{running.url}/#/experiment/{name}")
    page.locator(".choice", has_text="Clip").first.locator("select").select_option("carphone")
    page.get_by_label("Quality").select_option("SSIM, dB")
    expect(page).to_have_url(re.compile(r"\?metric=ssim_db&clip=carphone$"))
    page.reload()
    expect(page.locator(".plot figcaption")).to_have_text("carphone: SSIM, dB over Mbit/s")
    running.post(f"/experiment/{name}/cancel")


def test_anchors_from_a_file_join_plot_and_matrix(running: Orchestrator, worker: FakeWorker, page: Page, tmp_path: Path
                                                  ) -> None:
    name = running.submit(codec=worker.codec, quality=[1, 2, 3, 4])
    for _ in range(4):
        offer = worker.next_offer()
        worker.end(offer, result=result(offer))
    page.goto(f"{running.url}/#/experiment/{name}")
    expect(page.locator(".plot svg a")).to_have_count(4)
    lists = {"bpp": [0.02, 0.04, 0.06, 0.08], "psnr-y": [31, 32, 33, 34]}
    (tmp_path / "theirs.json").write_text(json.dumps({"name": HOSTILE, "results": lists}))
    page.locator("#anchors").set_input_files(tmp_path / "theirs.json")
    expect(page.locator(".plot svg a")).to_have_count(8)
    expect(page.locator(".plot .dashed")).to_have_count(1)
    expect(page.locator(".matrix td.value").first).to_contain_text("−50.0 %")
    expect(page.locator(".matrix th[scope=row]").first).to_have_text(HOSTILE[:100])
    (tmp_path / "broken.json").write_text("{")
    page.get_by_role("button", name="Without the files").click()
    page.locator("#anchors").set_input_files(tmp_path / "broken.json")
    expect(page.locator("#alert")).to_have_text("broken.json: no JSON")


def test_a_clip_is_uploaded_where_it_is_needed(running: Orchestrator, page: Page, tmp_path: Path) -> None:
    name = "<b>pictures & more</b>_16x8_25fps.yuv".replace("/", "_")
    (tmp_path / name).write_bytes(bytes(16 * 8 * 3))
    page.goto(f"{running.url}/#/submit")
    page.locator("#clip-file").set_input_files(tmp_path / name)
    expect(page.get_by_label("clip", exact=False).first).to_have_value("b_pictures_more__b__16x8_25fps.yuv")
    expect(page.locator(".field").first).to_contain_text("16×8, 2 pictures")
    (tmp_path / "unsaid.yuv").write_bytes(bytes(100))
    page.locator("#clip-file").set_input_files(tmp_path / "unsaid.yuv")
    expect(page.locator(".field .wrong").first).to_contain_text("expected a size in its name")


def test_a_worker_that_dies_while_the_page_is_open_is_shown_without_asking(running: Orchestrator, worker: FakeWorker,
                                                                           page: Page) -> None:
    name = running.submit(codec=worker.codec)
    worker.next_offer()
    page.goto(f"{running.url}/#/experiment/{name}")
    expect(page.locator("h1 .badge")).to_have_text("running")
    worker._stop.set()
    expect(page.locator("h1 .badge")).to_have_text("queued")
    expect(page.locator(".now .why")).to_contain_text("next:")
    running.post(f"/experiment/{name}/cancel")
