"""What the documents promise is there: commands, files, links."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from bench.readme.real_files import page

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def section(text: str, heading: str) -> str:
    """The text under a heading of the second level."""
    return re.split(r"^## ", text.split(f"\n## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table_rows(text: str) -> list[str]:
    """Rows of Markdown tables, without heads and rules."""
    rows = []
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        rows += block.splitlines()[2:]
    return rows


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_named_exists(path: Path) -> None:
    code = "\n".join(re.findall(r"`([^`]+)`", path.read_text(encoding="utf-8")))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code))
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert named - targets == set()


def test_every_target_is_in_makes_own_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()) - {"help"}
    assert set(re.findall(r'@echo "make (\w+) ', makefile)) == phony


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = {link for link in links if "://" not in link and not link.startswith("mailto:")}
    assert {link for link in local if not (path.parent / link).exists()} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_file_named_exists(path: Path) -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_0-9]+\.(?:py|md|json))`", path.read_text(encoding="utf-8")))
    assert {name for name in named if "/" in name and not (ROOT / name).exists()} == set()


FIGURES = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")


def test_every_result_file_named_exists() -> None:
    named = set(re.findall(r"bench/results/[\w.-]+\.\w+", FIGURES))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_figure_names_its_command_and_its_result_file() -> None:
    rows = table_rows(FIGURES.split("## Effort")[0])
    assert [row for row in rows if not (re.search(r"`python -m [^`]+`", row) and "bench/results/" in row)] == []
    assert len(rows) > 20


def test_the_readme_has_few_figures_one_in_a_cell_each_with_its_command() -> None:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table_rows(section(README, "Figures"))]
    assert len(rows) <= 12
    assert [row for row in rows if not re.fullmatch(r"`python -m bench\.\w+( --only stills)?`", row[2])] == []
    assert [row for row in rows if "/" in row[1].replace("/s", "") or ";" in row[1]] == []


@pytest.mark.parametrize(("row", "codec", "measure"), [
    ("against x264 medium, PSNR-YUV", "x264", "psnr"), ("against x265 medium, PSNR-YUV", "x265", "psnr"),
    ("against SVT-AV1 preset 8, PSNR-YUV", "svtav1", "psnr"), ("against SVT-AV1 preset 8, SSIM", "svtav1", "ssim")])
def test_the_rates_that_the_readme_quotes_are_those_measured(row: str, codec: str, measure: str) -> None:
    quoted = re.search(rf"{row}[^|]*\| ([+-]\d+) % \|", README)
    measured = json.loads((ROOT / "bench/results/rd.json").read_text())["mean_bd_rate"][codec][measure]
    assert quoted is not None
    assert int(quoted[1]) == round(measured)


def test_every_program_in_a_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"python (\w+\.py)", README))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_default_experiment_that_the_readme_quotes_is_the_one_measured() -> None:
    """To the digits quoted."""
    quoted = json.loads(re.findall(r'^"metrics": (\{.*\})$', README, re.MULTILINE)[0])
    measured = json.loads((ROOT / "bench/results/headline.json").read_text())["default_experiment"]["metrics"]
    digits = {"bitrate_mbps": 5, "bpp": 5, "compression_ratio": 1, "psnr_db": 2, "ssim": 4}
    assert quoted == {name: value and round(value, digits[name]) for name, value in measured.items()}


def test_the_walk_through_the_program_names_functions_that_exist_and_fit_a_screen() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    stops = re.findall(r"^\| +\d+ \| `([\w/]+\.py):(\w+)`", text, re.MULTILINE)
    assert 8 <= len(stops) <= 12
    for path, name in stops:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
        assert len(found) == 1, f"{path}:{name}"
        assert (found[0].end_lineno or 0) - found[0].lineno < 70, f"{path}:{name} is longer than a screen"


def test_the_picture_of_the_readme_says_what_was_measured() -> None:
    found = json.loads((ROOT / "bench/results/pictures.json").read_text())
    words = re.search(r"at ([\d.]+) Mbit/s: ([\d.]+) and ([\d.]+) dB", README)
    assert words is not None
    assert [float(word) for word in words.groups()] == [
        round(found["nvc"]["bitrate_mbps"], 2), round(found["x264"]["psnr_db"], 1), round(found["nvc"]["psnr_db"], 1)]


def test_the_table_of_files_is_what_was_measured() -> None:
    rows = json.loads((ROOT / "bench/results/real-files.json").read_text(encoding="utf-8"))["files"]
    assert (ROOT / "docs/real-files.md").read_text(encoding="utf-8") == page(rows)
    assert [row["file"] for row in rows if row["wrong"]] == []
    assert f"{len(rows)} files of all kinds" in README
