"""The page in a real browser, before an orchestrator and a worker whose every step is dictated."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.firefox import Browser
from tests.orchestrator_rig import RESULT, FakeWorker, Orchestrator
from video.containers import VideoWriter
from video.picture import ClipInfo, Picture

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    process = Orchestrator(tmp_path_factory.mktemp("browser"), "--lease-s", "4", "--heartbeat-s", "0.2")
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="module")
def browser(running: Orchestrator) -> Iterator[Browser]:
    made = Browser(running.url)
    yield made
    made.close()


@pytest.fixture
def worker(running: Orchestrator, request: pytest.FixtureRequest) -> Iterator[FakeWorker]:
    name = request.node.name[-40:].lstrip("_")
    made = FakeWorker(running, name, codec=name)
    yield made
    made.register(draining=True)
    made.stop()


def result(offer: dict[str, Any]) -> dict[str, Any]:
    quality = offer["experiment"]["quality"]
    return {**RESULT, "decoding_result": {"quality_metrics": {"psnr_y": 30.0 + quality}},
            "metrics": {"bitrate_mbps": 0.1 * quality, "bpp": 0.01 * quality, "psnr_db": 31.0 + quality, "ssim": 0.9}}


def ended(running: Orchestrator, worker: FakeWorker, **fields: Any) -> str:
    """An experiment whose runs have all completed."""
    name = running.submit(codec=worker.codec, **fields)
    for _ in range(running.status(name).get("counts", {"total": 1})["total"]):
        offer = worker.next_offer()
        worker.end(offer, result=result(offer))
    running.until(name, "completed")
    return name


def coded(running: Orchestrator, worker: FakeWorker, folder: Path) -> list[str]:
    """The runs of a sweep over two qualities that have kept their reconstructions, of 3 pictures."""
    name = running.submit(codec=worker.codec, clip="generated", quality=[1, 2])
    for level in (60, 120):
        offer, path = worker.next_offer(), folder / f"{level}.mkv"
        with VideoWriter(path, ClipInfo(176, 144, Fraction(30))) as writer:
            for _ in range(3):
                writer.write(Picture(*(np.full(shape, level, np.uint8) for shape in ((144, 176), (72, 88), (72, 88)))))
        frames = [{"index": n, "type": "I", "bytes": 5, "psnr_db": 30.0 + n, "psnr_y": 30.0 + n} for n in range(3)]
        clip = {"width": 176, "height": 144, "fps": "30/1"}
        worker.end(offer, result={**result(offer), "frames": frames, "clip": clip},
                   artifacts={"reconstruction.mkv": worker.store(path.read_bytes())})
    running.until(name, "completed")
    return [f"{name}.0", f"{name}.1"]


def test_an_experiment_is_submitted_watched_and_read(running: Orchestrator, worker: FakeWorker, browser: Browser
                                                     ) -> None:
    name = browser.look("submit", f"""
        fill(await until("the codec's field", () => $("#field-codec")), "{worker.codec}");
        fill($("#field-quality"), "8"); fill($("#field-label"), {HOSTILE!r});
        (await button("Submit")).click();
        return (await until("its view", () => $(".lead .id"))).textContent;""")
    offer = worker.next_offer()
    worker.progress(offer, phase="encode", frame=1, frames=2, fraction=0.25)
    assert offer["run"] == name
    assert "encode 1/2" in browser.look(None, 'return (await until("progress", () => $(".now .words"))).textContent;')
    worker.end(offer, result=result(offer))
    found = browser.look(None, """
        await until("its end", () => $("h1 .badge").textContent === "completed");
        return { rate: $(".tile strong").textContent, heading: $("h1").textContent, title: document.title };""")
    assert found["rate"] == "0.800 Mbit/s"
    assert found["heading"].startswith(HOSTILE)     # as text
    assert "owned" not in found["title"].split("·")[-1]


def test_a_wrong_field_is_named_beside_it(browser: Browser) -> None:
    assert browser.look("submit", """
        fill(await until("the field", () => $("#field-frames")), "-1");
        (await button("Submit")).click();
        return (await until("what is wrong", () => $$(".wrong").find((each) => each.textContent))).textContent;
        """).startswith("frames: ")


def test_a_ready_made_choice_fills_the_form(browser: Browser) -> None:
    assert browser.look("submit", """
        (await button("Low delay")).click();
        return [$("#field-structure").value, $("#field-quality").value, $("p.lead").textContent];
        """) == ["low_delay", "8, 16, 24, 32, 40", "5 runs"]     # of codecs, those that the workers have


def test_a_sweep_fills_its_plot_and_a_point_opens_its_run(running: Orchestrator, worker: FakeWorker, browser: Browser
                                                          ) -> None:
    name = ended(running, worker, effort=[0, 1], quality=[1, 2, 3, 4])
    assert browser.look(f"experiment/{name}", """
        await until("eight points", () => $$(".plot svg a").length === 8);
        const value = (await until("a BD-rate", () => $(".matrix td.value"))).textContent;
        const link = $(".plot svg a"); const words = link.getAttribute("aria-label");
        location.hash = link.getAttribute("href");
        const run = await until("the run", () => $(".lead .id")?.textContent.endsWith(".0") &&
          $(".lead .id").textContent);
        return [value.split("%")[0], words.includes("quality 1"), run];""") == ["0.0 ", True, f"{name}.0"]


def test_experiments_are_searched_marked_and_tagged(running: Orchestrator, worker: FakeWorker, browser: Browser
                                                    ) -> None:
    running.submit(codec=worker.codec, label="night bus")
    running.submit(codec=worker.codec, label="morning")
    assert browser.look("list?search=BUS+night", """
        await until("one row", () => $$("tbody tr").length === 1);
        fill($("tbody input[type=checkbox]"), true);
        fill(await until("the tag's field", () => $("[aria-label='Tag for those marked']")), "team:red");
        (await button("Set tag")).click();
        await until("nothing marked", () => $$(".filters")[1].hidden);
        return $("td .name").textContent;""") == "night bus"
    assert running.get("/experiments?tag=team:red").json()["experiments"][0]["label"] == "night bus"
    assert browser.look("list", """
        await until("rows", () => $$("tbody tr").length > 1);
        const rows = () => $$("tbody tr").filter((row) => /night bus|morning/.test(row.textContent));
        rows().forEach((row) => fill(row.querySelector("input"), true));
        (await button("Cancel (2)")).click();
        const states = () => rows().map((row) => row.querySelector(".badge").textContent);
        await until("both cancelled", () => states().join() === "cancelled,cancelled");
        return $$(".filters")[1].hidden;""") is True


def test_columns_are_chosen_and_stay_so(running: Orchestrator, worker: FakeWorker, browser: Browser) -> None:
    ended(running, worker, quality=20)
    heads = """const heads = () => $$("thead th").map((head) => head.textContent.trim());
        await until("a table", () => heads().includes("state"));"""
    assert "worker" in browser.look("list", f"{heads} return heads();")
    browser.look("list", f"""{heads}
        $(".columns summary").click();
        const box = (name) => $$(".columns label").find((each) => each.textContent === name).querySelector("input");
        fill(box("worker"), false);
        await until("no such column", () => !heads().includes("worker"));""")
    assert "worker" not in browser.look("list", f"{heads} return heads();")
    browser.look("list", f'{heads} localStorage.removeItem("columns experiments");')


def test_curves_of_several_experiments_stand_in_one_plot(running: Orchestrator, worker: FakeWorker, browser: Browser
                                                         ) -> None:
    names = [ended(running, worker, quality=[1, 2], label=label, effort=n) for n, label in enumerate("ab")]
    found = browser.look(f"curves/{','.join(names)}", """
        await until("four points", () => $$(".plot svg a").length === 4);
        const words = (selector) => $$(selector).map((each) => each.textContent);
        return { legend: words(".legend button"), table: words("thead th") };""")
    assert found["legend"] == [f"{worker.codec} (a)", f"{worker.codec} (b)"]
    assert found["table"] == ["experiment", "state", "effort"]


def test_two_runs_are_compared_picture_by_picture(running: Orchestrator, worker: FakeWorker, browser: Browser,
                                                  tmp_path: Path) -> None:
    one, other = coded(running, worker, tmp_path)
    found = browser.look(f"compare/{one}/{other}?way=slider", """
        await until("both pictures", () => $$(".stage img").slice(0, 2).every((each) => each.naturalWidth === 176));
        const words = $$("dd").map((each) => each.textContent);
        fill($$("select")[0], "error");
        await until("their error", () => $$(".stage img")[2].naturalWidth === 176 && !$(".scale").hidden);
        press($(".stage"), "+"); press($(".stage"), "ArrowRight");
        await until("the address", () => location.hash.includes("at=1.25"));
        return { words, address: location.hash, differ: $$("tbody th").map((each) => each.textContent) };""")
    assert found["words"] == ["picture 0, I: 30.00 dB, 5 bytes"] * 2
    assert "frame=1&way=error&at=1.25" in found["address"]
    assert found["differ"] == ["quality"]


def test_two_runs_are_played_in_step(running: Orchestrator, worker: FakeWorker, browser: Browser, tmp_path: Path
                                     ) -> None:
    one, other = coded(running, worker, tmp_path)
    found = browser.look(f"compare/{one}/{other}?way=beside", """
        await until("both pictures", () => $$(".stage img").slice(0, 2).every((each) => each.naturalWidth === 176));
        const levels = () => $$(".stage canvas").slice(0, 2).map((each) => each.width === 176 &&
          each.getContext("2d").getImageData(80, 70, 1, 1).data[0]);
        (await button("Play")).click();
        await until("the last picture", () => $("input[type=number]").value === "2" && $(".play").textContent === "▶");
        return { levels: levels(), words: $("dd").textContent };""")
    under, over = found["levels"]
    assert over < under                             # of luma 60 and 120
    assert found["words"] == "picture 2, I: 32.00 dB, 5 bytes"


def test_a_worker_that_dies_is_shown_as_lost_and_its_run_waits(running: Orchestrator, worker: FakeWorker,
                                                               browser: Browser) -> None:
    name = running.submit(codec=worker.codec)
    worker.next_offer()
    worker.stop()
    words = browser.look("workers", f"""
        const card = await until("lost", () => $$(".card").find((each) => each.textContent.includes("{worker.name}") &&
          each.querySelector(".badge").textContent === "lost"));
        return card.querySelector("h3").textContent;""")
    assert words == f"{worker.name} lost"
    assert "was not heard of" in browser.look(f"experiment/{name}", """
        return (await until("why", () => $("td .why")?.textContent && $("td .why"))).textContent;""")


def test_what_is_not_there_is_said(browser: Browser) -> None:
    assert browser.look("experiment/exp_1_abcdef", "return $('h1').textContent;") == "There is no such experiment"


def test_every_view_fits_a_narrow_screen(running: Orchestrator, worker: FakeWorker, browser: Browser) -> None:
    name = ended(running, worker, quality=[1, 2, 3])
    narrow = Browser(running.url, 450)      # Firefox makes no narrower window
    try:
        for view in ("list", "workers", "submit", f"experiment/{name}", f"experiment/{name}.0", f"curves/{name}"):
            script = "await wait(300); return document.documentElement.scrollWidth - innerWidth;"
            assert narrow.look(view, script) <= 0, view
    finally:
        narrow.close()
