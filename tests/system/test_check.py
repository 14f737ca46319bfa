"""The check that users run against a deployment of their own: right about a good one, and about three bad ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import PATIENCE_S, ROOT
from wired import Wired, document_of

from deployment_check.verdict import verdict_of


def check(url: str, script: str, *flags: str) -> tuple[int, dict[str, int], str]:
    """Exit code, the counts of the verdict, and standard error."""
    command = [sys.executable, str(ROOT / "check.py"), "--url", url, "--experiment", json.dumps(document_of(script))]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    rows = [line.rpartition(" ") for line in done.stdout.splitlines() if line[:1].islower()]
    return done.returncode, {name.strip(): int(count) for name, _, count in rows}, done.stderr


def test_a_deployment_that_works_passes(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        code, counts, error = check(wired.orchestrator.url, "plain", "--history", str(tmp_path / "seen"))
        assert (code, error) == (0, "")
        assert counts == {"submitted": 5, "acknowledged": 5, "completed": 5, "failed with a reason": 0, "cancelled": 0,
                          "lost": 0, "recorded twice": 0, "invisible": 0, "wrong": 0, "stale results refused": 0,
                          "orphan processes": 0}
        kinds = {json.loads(line)["what"] for line in (tmp_path / "seen").read_text().splitlines()}
        assert kinds == {"submitted", "acknowledged", "status", "conservation", "listed", "ends", "artifact"}


def test_chaos_with_a_killed_worker_passes(tmp_path: Path) -> None:
    with Wired(tmp_path, 2) as wired:
        kill = f"kill -KILL {wired.workers[0].process.pid}"
        code, counts, error = check(wired.orchestrator.url, "sleep-0.1", "--chaos", "--kill-worker", kill)
        assert (code, error) == (0, "")
        assert (counts["submitted"], counts["acknowledged"]) == (20, 20)
        assert counts["completed"] + counts["cancelled"] == 20
        assert wired.workers[0].process.wait(PATIENCE_S) == -9
        wired.workers[0].start()
        wired.verdict()
        assert verdict_of(wired.history).orphans == 0


@pytest.mark.parametrize(("script", "flags", "count"), [
    ("liar", (), "wrong"),                          # hashes that are not those of the bytes
    ("deaf", ("--patience-s", "0.5"), "lost"),      # runs that do not end
])
def test_a_deployment_that_breaks_a_promise_fails(tmp_path: Path, script: str, flags: tuple[str, ...], count: str
                                                  ) -> None:
    with Wired(tmp_path, slots=2) as wired:
        code, counts, _ = check(wired.orchestrator.url, script, "--experiments", "2", *flags)
        assert (code, counts[count]) == (1, 2)


def test_a_service_that_is_not_there_is_told_of_in_one_line() -> None:
    code, counts, error = check("http://127.0.0.1:9", "plain", "--patience-s", "0.1")
    assert (code, counts, error.count("\n")) == (1, {}, 1)
    assert error.startswith("check.py: http://127.0.0.1:9: ")
