"""The units verify and are closed, the scripts parse, an installation is whole and repeatable."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator
import worker
from service.runtime.settings import rows

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
SCRIPTS = sorted(FOLDER.glob("*.sh"))
MOST_EXPOSED = 15  # tenths: 1.5, where 0 is sealed and 100 is a plain unit as root
ANALYZE = shutil.which("systemd-analyze")
TABLES = {"orchestrator": orchestrator.OrchestratorSettings, "worker": worker.WorkerSettings}


def call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def install(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return call(str(FOLDER / "install.sh"), "--root", str(root), *options)


def test_there_is_a_unit_for_each_program() -> None:
    assert [unit.name for unit in UNITS] == ["nvc-orchestrator.service", "nvc-worker.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_verifies(unit: Path, tmp_path: Path) -> None:
    if ANALYZE is None:
        return  # nothing to ask; the next tests read the file themselves
    # The program it starts is not installed here; everything else is checked as it stands.
    shutil.copy(FOLDER / "nvc-orchestrator.socket", tmp_path)
    text = unit.read_text().replace("/opt/nvc/.venv/bin/python", sys.executable).replace("/opt/nvc", str(ROOT))
    (tmp_path / unit.name).write_text(text)
    seen = call(ANALYZE, "verify", "--man=no", str(tmp_path / unit.name))
    assert (seen.returncode, seen.stdout + seen.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_closed(unit: Path) -> None:
    if ANALYZE is None:
        return
    seen = call(ANALYZE, "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager", str(unit))
    assert seen.returncode == 0, seen.stdout[-300:]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_watched_and_started_again(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    assert {"Type=notify", "Restart=always", "WatchdogSec=30", "StartLimitIntervalSec=0"} <= set(lines)


def test_the_port_is_verified_and_the_service_comes_after_it() -> None:
    port = FOLDER / "nvc-orchestrator.socket"
    assert "ListenStream=127.0.0.1:8081" in port.read_text().splitlines()
    assert re.search(r"^After=.*nvc-orchestrator\.socket$", UNITS[0].read_text(), re.MULTILINE)


def test_the_installed_port_is_that_of_the_settings(tmp_path: Path) -> None:
    install(tmp_path, "orchestrator")
    port = tmp_path / "etc/systemd/system/nvc-orchestrator.socket"
    assert "ListenStream=127.0.0.1:8081" in port.read_text().splitlines()
    with (tmp_path / "etc/nvc/orchestrator.env").open("a") as env:
        env.write("NVC_HOST=::\nNVC_PORT=9000\n")
    install(tmp_path, "orchestrator")
    assert "ListenStream=[::]:9000" in port.read_text().splitlines()
    install(tmp_path / "other", "worker")
    assert not list((tmp_path / "other/etc").rglob("*.socket"))


def test_a_worker_has_longer_to_stop_than_its_runs_have_to_finish() -> None:
    said = re.search(r"^TimeoutStopSec=(\d+)$", (FOLDER / "nvc-worker.service").read_text(), re.MULTILINE)
    assert said
    assert int(said[1]) >= worker.WorkerSettings.drain_s + 20


@pytest.mark.parametrize("program", TABLES)
def test_an_environment_example_names_settings_that_exist(program: str) -> None:
    named = set(re.findall(r"^#?(NVC_\w+)=", (FOLDER / f"{program}.env.example").read_text(), re.MULTILINE))
    assert named
    assert named <= {row.variable for row in rows(TABLES[program])}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_parses_and_can_be_run(script: Path) -> None:
    assert call("bash", "-n", str(script)).returncode == 0
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_explains_itself(script: Path) -> None:
    seen = call(str(script), "--help")
    assert seen.returncode == 0
    assert script.name in seen.stdout


@pytest.mark.parametrize(
    ("script", "arguments"), [("install.sh", ["--bogus"]), ("install.sh", ["--prefix", "relative"]),
                              ("install.sh", ["--key", "/nonexistent/key"]), ("smoke_test.sh", ["a", "b", "c"])])
def test_wrong_usage_is_2(script: str, arguments: list[str]) -> None:
    seen = call(str(FOLDER / script), *arguments)
    assert seen.returncode == 2
    assert seen.stderr.startswith(f"{script}: ")


def test_an_installation_holds_programs_units_and_settings(tmp_path: Path) -> None:
    seen = install(tmp_path)
    assert seen.returncode == 0, seen.stderr
    for name in ("opt/nvc/orchestrator.py", "opt/nvc/worker.py", "opt/nvc/service/http/server.py",
                 "opt/nvc/service/scheduling/scheduler.py", "opt/nvc/service/processes/codec_process.py",
                 "opt/nvc/video/planar.py", "opt/nvc/nvc/decoder.py", "opt/nvc/deployment_check/verdict.py",
                 "opt/nvc/requirements-run.txt",
                 "opt/nvc/systemd/smoke_test.sh",
                 "etc/nvc/orchestrator.env", "etc/nvc/worker.env", "etc/systemd/system/nvc-worker.service"):
        assert (tmp_path / name).is_file(), name
    assert not list(tmp_path.rglob("__pycache__"))
    assert [path.name for path in (tmp_path / "opt").iterdir()] == ["nvc"]


def test_a_new_program_takes_the_place_of_the_one_before_as_a_whole(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "opt/nvc/service/of_an_earlier_version.py").touch()
    (tmp_path / "opt/nvc/.venv/bin").mkdir(parents=True)
    (tmp_path / "opt/nvc/.venv/bin/python").touch()
    assert install(tmp_path).returncode == 0
    assert not (tmp_path / "opt/nvc/service/of_an_earlier_version.py").exists()
    assert (tmp_path / "opt/nvc/.venv/bin/python").exists()


def test_an_installation_that_fails_changes_nothing(tmp_path: Path) -> None:
    install(tmp_path)
    mark = tmp_path / "opt/nvc/of_the_installed_version"
    mark.touch()
    broken = tmp_path / "broken/chmod"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    seen = subprocess.run([FOLDER / "install.sh", "--root", tmp_path], capture_output=True, timeout=120, check=False,
                          env={"PATH": f"{broken.parent}:{os.environ['PATH']}"})
    assert seen.returncode != 0
    assert mark.exists()
    assert [path.name for path in (tmp_path / "opt").iterdir()] == ["nvc"]


def test_rolling_back_puts_the_program_before_in_place_and_again_the_newer_one(tmp_path: Path) -> None:
    install(tmp_path)
    program, unit = tmp_path / "opt/nvc", tmp_path / "etc/systemd/system/nvc-worker.service"
    (program / "systemd/nvc-worker.service").write_text("older unit\n")
    install(tmp_path)
    assert unit.read_text() != "older unit\n"
    assert install(tmp_path, "--roll-back").returncode == 0
    assert unit.read_text() == "older unit\n"
    assert install(tmp_path, "--roll-back").returncode == 0
    assert unit.read_text() != "older unit\n"


def test_there_is_nothing_to_roll_back_to_after_the_first_installation(tmp_path: Path) -> None:
    install(tmp_path)
    seen = install(tmp_path, "--roll-back")
    assert (seen.returncode, seen.stderr) == (
        1, f"install.sh: --roll-back: there is no {tmp_path}/opt/nvc.previous\n")
    assert (tmp_path / "opt/nvc/worker.py").exists()


def test_the_installed_worker_says_its_settings(tmp_path: Path) -> None:
    install(tmp_path, "worker")
    seen = subprocess.run([sys.executable, str(tmp_path / "opt/nvc/worker.py"), "--show-config"], capture_output=True,
                          text=True, timeout=120, check=False, cwd=tmp_path, env={"NVC_SLOTS": "3"})
    assert seen.returncode == 0, seen.stderr
    assert re.search(r"^slots = 3\b.*NVC_SLOTS", seen.stdout, re.MULTILINE)


def test_an_update_keeps_settings_and_drops_old_modules(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "etc/nvc/worker.env").write_text("NVC_SLOTS=2\n")
    (tmp_path / "opt/nvc/gone_by_now.py").write_text("")
    (tmp_path / "opt/nvc/.venv").mkdir()
    assert install(tmp_path).returncode == 0
    assert (tmp_path / "etc/nvc/worker.env").read_text() == "NVC_SLOTS=2\n"
    assert not (tmp_path / "opt/nvc/gone_by_now.py").exists()
    assert (tmp_path / "opt/nvc/.venv").is_dir()


def test_one_service_can_be_installed_alone_elsewhere_with_its_network_and_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nck_0123456789_x\n")
    seen = install(tmp_path / "root", "worker", "--prefix", "/srv/nvc", "--network", "10.0.0.0/16",
                   "--network", "fd00::/8", "--key", str(tmp_path / "key"))
    assert seen.returncode == 0, seen.stderr
    units = tmp_path / "root/etc/systemd/system"
    assert [unit.name for unit in units.glob("*.service")] == ["nvc-worker.service"]
    assert "ExecStart=/srv/nvc/.venv/bin/python /srv/nvc/worker.py" in (units / "nvc-worker.service").read_text()
    drop_ins = units / "nvc-worker.service.d"
    assert (drop_ins / "network.conf").read_text() == "[Service]\nIPAddressAllow=10.0.0.0/16\nIPAddressAllow=fd00::/8\n"
    assert (drop_ins / "credential-key.conf").read_text() == (
        "[Service]\nLoadCredential=key:/etc/nvc/credentials/nvc-worker.key\n")
    assert (tmp_path / "root/etc/nvc/credentials/nvc-worker.key").stat().st_mode & 0o077 == 0


def test_one_more_worker_has_settings_state_and_cache_of_its_own(tmp_path: Path) -> None:
    install(tmp_path)
    before = sorted(path.name for path in (tmp_path / "etc/systemd/system").iterdir())
    seen = install(tmp_path, "worker", "--instance", "green", "--prefix", "/opt/nvc-green", "--network", "10.0.0.0/16")
    assert seen.returncode == 0, seen.stderr
    units = tmp_path / "etc/systemd/system"
    text = (units / "nvc-worker@green.service").read_text()
    for line in ("EnvironmentFile=-/etc/nvc/worker-green.env", "StateDirectory=nvc-worker-green",
                 "CacheDirectory=nvc-worker-green", "Description=Neural video codec service: worker green",
                 "ExecStart=/opt/nvc-green/.venv/bin/python /opt/nvc-green/worker.py"):
        assert f"\n{line}\n" in text, line
    assert "Environment=NVC_STATE=/var/lib/nvc-worker-green NUMBA_CACHE_DIR=/var/cache/nvc-worker-green/numba" in text
    assert "\nNVC_PORT=0\n" in (tmp_path / "etc/nvc/worker-green.env").read_text()
    assert (units / "nvc-worker@green.service.d/network.conf").read_text() == "[Service]\nIPAddressAllow=10.0.0.0/16\n"
    assert sorted(path.name for path in units.iterdir() if "green" not in path.name) == before
    assert "ExecStart=/opt/nvc/.venv/bin/python" in (units / "nvc-worker.service").read_text()
    if ANALYZE is not None:
        unit = tmp_path / "nvc-worker@green.service"
        unit.write_text(text.replace("/opt/nvc-green/.venv/bin/python", sys.executable)
                        .replace("/opt/nvc-green", str(ROOT)))
        seen = call(ANALYZE, "verify", "--man=no", str(unit))
        assert (seen.returncode, seen.stdout + seen.stderr) == (0, "")


@pytest.mark.parametrize(("options", "words"), [
    (("--instance", "green"), "--instance: is for a worker"),
    (("worker", "--instance", "a/b"), "--instance: letters, digits and hyphens were expected"),
])
def test_a_wrong_instance_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    seen = install(tmp_path, *options)
    assert seen.returncode == 2
    assert words in seen.stderr
    assert not (tmp_path / "opt").exists()


def test_a_state_elsewhere_is_made_and_may_be_written_to(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "etc/nvc/orchestrator.env").write_text("NVC_STATE=/data/nvc\n")
    assert install(tmp_path).returncode == 0
    drop_in = tmp_path / "etc/systemd/system/nvc-orchestrator.service.d/state.conf"
    assert drop_in.read_text() == "[Service]\nReadWritePaths=/data/nvc\n"
    assert (tmp_path / "data/nvc").stat().st_mode & 0o077 == 0
    (tmp_path / "etc/nvc/orchestrator.env").write_text("")
    assert install(tmp_path).returncode == 0
    assert not drop_in.exists()


def test_a_state_without_an_absolute_path_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "etc/nvc/worker.env").write_text("NVC_STATE=data\n")
    (tmp_path / "opt/nvc/here.txt").write_text("")
    seen = install(tmp_path)
    assert seen.returncode == 2
    assert "an absolute path was expected, got data" in seen.stderr
    assert (tmp_path / "opt/nvc/here.txt").exists()
