"""The page's files as they are served, and what they must not contain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.api.page import FOLDER, POLICY, Page
from tests.orchestrator_rig import Orchestrator

FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


def test_the_root_is_the_page_under_a_strict_policy(running: Orchestrator) -> None:
    answer = running.get("/")
    assert (answer.status_code, answer.content) == (200, (FOLDER / "index.html").read_bytes())
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_policy_allows_nothing_inline_and_nobody_else() -> None:
    assert "unsafe" not in POLICY
    sources = set(re.findall(r"'[a-z]+'|[a-z]+:", POLICY))
    assert sources == {"'none'", "'self'", "blob:"}


@pytest.mark.parametrize(("name", "kind"), [
    ("main.js", "text/javascript; charset=utf-8"), ("style.css", "text/css; charset=utf-8"),
    ("icon.svg", "image/svg+xml")])
def test_scripts_and_styles_have_their_types(running: Orchestrator, name: str, kind: str) -> None:
    answer = running.get(f"/page/{name}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
    again = running.get(f"/page/{name}", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("name", ["none.js", "..%2Fjobs.py", "%2e%2e", "service/jobs/states.py"])
def test_other_files_are_not_served(running: Orchestrator, name: str) -> None:
    assert running.get(f"/page/{name}").status_code == 404


def test_a_folder_without_the_page_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Page(tmp_path)


def test_every_file_named_by_the_page_is_there() -> None:
    named = set(re.findall(r'(?:src|href)="page/([^"]+)"', (FOLDER / "index.html").read_text(encoding="utf-8")))
    for path in SCRIPTS:
        named |= set(re.findall(r'(?:from |import\()"\./([^"]+)"', path.read_text(encoding="utf-8")))
    assert named - {path.name for path in FILES} == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_data_never_becomes_markup_or_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    assert re.findall(forbidden, text) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_address_is_relative_to_the_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|(?:src|href)=\"/|(?:fetch|get|call|post)\(\s*[\"'`]/", text) == []


def test_nothing_in_the_document_is_inline() -> None:
    text = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|style=|<script(?![^>]*src=)|\son\w+=", text) == []
