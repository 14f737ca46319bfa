"""`check.py --attack`: what it tries holds on a service with keys, and what does not hold is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import check
from deployment_check.attack import Try, attack, consent
from tests.orchestrator_rig import ROOT, Orchestrator


def test_everything_holds_on_a_service_with_keys(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "orchestrator.py", "keys", "add", "--role", "client", "--state",
                           str(tmp_path / "orchestrator")], cwd=ROOT, capture_output=True, text=True, check=True)
    process = Orchestrator(tmp_path)
    said: list[str] = []
    try:
        assert attack(process.url, made.stdout.strip().splitlines()[-1].split()[-1], True, said.append), said
    finally:
        assert process.stop() == 0
    assert json.loads(said[-1])["failed"] == 0
    assert json.loads(said[-1])["tried"] > 30
    assert not any("FAILED" in line for line in said)


def test_without_keys_that_is_said(running: Orchestrator) -> None:
    said: list[str] = []
    attack(running.url, None, True, said.append)
    assert said[0] == "held    no key: the service has no keys: anyone who reaches it may use it"


def test_what_fails_says_what_was_expected() -> None:
    assert Try("a clip at x", "422 was expected", "200", held=False).line() == (
        "FAILED  a clip at x: 200; 422 was expected")


def test_nobody_is_attacked_without_the_words(running: Orchestrator, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check.main(["--url", running.url, "--attack", "yes"])
    assert ended.value.code == 2
    assert repr(consent(running.url)) in capsys.readouterr().err


def test_a_service_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://127.0.0.1:9"
    assert check.main(["--url", url, "--attack", consent(url)]) == 1
    assert capsys.readouterr().err.startswith("check.py: ConnectionError")
