"""The orchestrator as a program: what it tells of the whole, its command line, its document."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator as program
from service.api import openapi
from service.api.problems import ERRORS
from service.http.exchange import Response
from service.http.listening import ServerSettings
from service.http.routes import Routes
from service.runtime import settings
from tests.orchestrator_rig import PATIENCE_S, ROOT, MakeWorker, Orchestrator

# --- what is told of the whole


def test_conservation_says_why_each_unfinished_run_waits(running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = make_worker(beating=False)
    held, queued = running.submit(codec=worker.codec), running.submit(codec=worker.codec)
    offer = worker.next_offer()
    running.until(held, "running")
    rows = {row["run"]: row for row in running.conservation()["unfinished"]}
    assert (rows[held]["owner"], rows[held]["attempt"], rows[held]["next_action"]) == (
        f"worker {worker.name}", 1, "a heartbeat renews the lease, or it is taken back")
    assert 0 < rows[held]["lease_s_left"] <= 5
    assert (rows[queued]["owner"], rows[queued]["why"]) == (
        "orchestrator", f"the only slot is taken, of the workers that have codec {worker.codec}")
    running.post(f"/experiment/{queued}/cancel")
    worker.end(offer)


def test_health_names_what_old_scripts_read(running: Orchestrator) -> None:
    document = running.get("/health").json()
    assert sorted(document) == ["queued", "running", "status", "uptime_s", "version", "workers"]
    assert document["status"] == "ok"


def test_readiness_is_told_in_detail_when_asked(running: Orchestrator) -> None:
    assert running.get("/readyz?verbose").json() == {
        "status": "ready", "checks": {"draining": "no", "database": "writable", "placing": "alive",
                                      "maintenance": "alive"}}


def test_metrics_count_runs_by_state(running: Orchestrator) -> None:
    answer = running.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    counts = running.conservation()
    assert f'nvc_runs{{state="completed"}} {counts["completed"]}' in answer.text.splitlines()
    assert "nvc_conservation_difference 0" in answer.text.splitlines()


def test_the_openapi_document_has_every_route_and_no_other(running: Orchestrator) -> None:
    served = running.get("/openapi.json").json()
    assert served["openapi"] == "3.1.0"
    assert {(method.upper(), path) for path, methods in served["paths"].items() for method in methods} == set(
        openapi.OPERATIONS)


def test_a_route_without_a_description_is_an_error() -> None:
    routes = Routes()
    routes.add("GET", "/new", lambda request: Response())
    with pytest.raises(ValueError, match="/new"):
        openapi.describe(routes)


# --- the program


def test_a_second_orchestrator_on_the_same_state_refuses_to_start(running: Orchestrator) -> None:
    done = subprocess.run([sys.executable, "orchestrator.py", "--port", "0", "--state", str(running.state)], cwd=ROOT,
                          capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"orchestrator.py: the state directory {running.state} is in use by process {running.process.pid}")


def test_show_config_prints_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        program.main(["--show-config", "--lease-s", "7"])
    shown = capsys.readouterr().out
    assert (caught.value.code, "lease_s = 7.0" in shown, "port = 8081" in shown) == (0, True, True)


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def keys(*words: str) -> str:
        assert program.main(["keys", "--state", str(tmp_path), *words]) == 0
        return capsys.readouterr().out

    token = keys("add", "--role", "worker", "--label", "host b").strip()
    name = token.split("_")[1]
    assert keys("list").split()[:2] == [name, "worker"]
    assert token not in keys("list")
    assert keys("revoke", name) == f"{name} is revoked\n"
    assert "revoked" in keys("list")
    assert program.main(["keys", "--state", str(tmp_path), "revoke", name]) == 1


DOCUMENT = (ROOT / "docs" / "orchestrator.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_docs_with_its_default() -> None:
    told = {line.split(" | ")[0].strip("| `"): line for line in DOCUMENT.splitlines() if line.startswith("| `")}
    inherited = {row.name for row in settings.rows(ServerSettings)} - {"port"}
    for row in settings.rows(program.OrchestratorSettings):
        if row.name not in inherited:
            default = f"`{row.default}`" if row.default is not None and str(row.default) else ""
            assert told[row.name] == f"| `{row.name}` | {default} | {row.unit} | {row.reason} |"


def test_every_problem_is_in_the_docs_with_its_status() -> None:
    sources = [ROOT / "orchestrator.py", *ROOT.glob("control/*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    raised = {(slug, status) for status, slug in re.findall(r'Problem\((\d{3}), "([a-z-]+)"', source)}
    raised |= {(slug, str(status)) for _, status, slug in ERRORS}
    told = {(slug, status) for slug, statuses in re.findall(r"^\| `([a-z-]+)` \| ([\d, ]+) \|", DOCUMENT, re.MULTILINE)
            for status in statuses.split(", ")}
    assert raised - told == set()


@pytest.mark.parametrize(("when", "shown"), [("90d", "in force until 20"), ("2999-01-31", "in force until 2999-01-31")])
def test_a_key_can_end_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str], when: str, shown: str) -> None:
    assert program.main(["keys", "--state", str(tmp_path), "add", "--role", "client", "--expires", when]) == 0
    capsys.readouterr()
    assert program.main(["keys", "--state", str(tmp_path), "list"]) == 0
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("when", ["0d", "soon", "1999-01-01"])
def test_an_end_of_a_key_that_is_no_time_to_come_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    with pytest.raises(SystemExit):
        program.main(["keys", "--state", str(tmp_path), "add", "--role", "client", "--expires", when])
    assert "--expires" in capsys.readouterr().err
