"""One table gives defaults, flags, environment variables, the config file and --show-config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from service.http.authentication import check_exposure, is_loopback
from service.http.listening import ServerSettings
from service.runtime.settings import SettingsError, load, markdown, row, rows


@dataclass(frozen=True)
class Table:
    port: int = row(8081, "", "port to listen on", low=0, high=65535)
    lease_s: float = row(10.0, "s", "a worker silent for 100 % of this loses its attempts", low=1)
    state: Path = row(Path("state"), "", "folder of the database")
    device: str = row("auto", "", "where to compute", choices=("auto", "cpu", "cuda"))
    cert: Path | None = row(None, "", "certificate")
    insecure: bool = row(False, "", "no keys")
    key: str | None = row(None, "", "what workers show", secret=True)


def test_defaults() -> None:
    assert load(Table, [], {}) == Table()


def test_the_first_source_wins(tmp_path: Path) -> None:
    file = tmp_path / "nvc.toml"
    file.write_text('port = 1\nlease_s = 2\ndevice = "cpu"\n')
    config = load(Table, ["--config", str(file), "--port", "3"], {"NVC_PORT": "4", "NVC_LEASE_S": "5.5"})
    assert (config.port, config.lease_s, config.device, config.state) == (3, 5.5, "cpu", Path("state"))


def test_the_config_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "nvc.toml"
    file.write_text("insecure = true\n")
    assert load(Table, [], {"NVC_CONFIG": str(file)}).insecure is True


def test_an_empty_variable_is_not_set() -> None:
    assert load(Table, [], {"NVC_PORT": "", "NVC_CERT": ""}) == Table()


@pytest.mark.parametrize(("argv", "environ", "value"), [
    (["--insecure"], {}, True), (["--no-insecure"], {"NVC_INSECURE": "yes"}, False), ([], {"NVC_INSECURE": "On"}, True),
    ([], {"NVC_INSECURE": "0"}, False)])
def test_switches(argv: list[str], environ: dict[str, str], value: bool) -> None:
    assert load(Table, argv, environ).insecure is value


def test_a_secret_may_be_a_systemd_credential(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nck_x\n")
    (tmp_path / "device").write_text("cpu")
    config = load(Table, [], {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (config.key, config.device) == ("nck_x", "auto")


@pytest.mark.parametrize(("argv", "environ", "message"), [
    (["--port", "x"], {}, "port (from --port): 'x' is not a whole number"),
    (["--port", "1.5"], {}, "port (from --port): '1.5' is not a whole number"),
    (["--port", "-1"], {}, "port (from --port): -1 is out of range; expected at least 0 and at most 65535"),
    ([], {"NVC_LEASE_S": "0.5"}, "lease_s (from NVC_LEASE_S): 0.5 is out of range; expected at least 1"),
    ([], {"NVC_LEASE_S": "nan"}, "lease_s (from NVC_LEASE_S): nan is out of range; expected at least 1"),
    (["--device", "tpu"], {}, "device (from --device): 'tpu' is not one of auto, cpu, cuda"),
    ([], {"NVC_INSECURE": "maybe"}, "insecure (from NVC_INSECURE): 'maybe' is not true or false"),
    (["--config", "/nowhere.toml"], {}, "--config /nowhere.toml: cannot be read as TOML")])
def test_a_wrong_setting_is_named_and_exits_2(argv: list[str], environ: dict[str, str], message: str,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        load(Table, argv, environ, prog="orchestrator.py")
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"orchestrator.py: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("text", "message"), [
    ("prot = 1", "unknown setting 'prot'"), ("port = true", "not a whole number"), ("state = 3", "not a text"),
    ("port = 1 2", "cannot be read as TOML")])
def test_a_wrong_file_is_refused(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nvc.toml"
    file.write_text(text)
    with pytest.raises(SystemExit):
        load(Table, ["--config", str(file)], {})
    assert message in capsys.readouterr().err


def test_show_config_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        load(Table, ["--show-config", "--port", "9", "--key", "hidden"], {"NVC_STATE": 'a "b"'})
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "hidden" not in shown
    assert "port = 9  # port to listen on; --port\n" in shown
    assert "lease_s = 10.0  # s; a worker silent for 100 % of this loses its attempts; default\n" in shown
    assert "# cert is not set" in shown
    file = tmp_path / "shown.toml"
    file.write_text(shown)
    assert load(Table, ["--config", str(file)], {}) == replace(Table(), port=9, state=Path('a "b"'))


def test_help_gives_unit_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        load(Table, ["--help"], {})
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "a worker silent for 100 % of this loses its attempts (default 10.0 s; NVC_LEASE_S)" in text


def test_every_limit_of_the_server_is_a_row_with_a_reason() -> None:
    for item in rows(ServerSettings):
        assert item.reason
        assert item.flag == "--" + item.name.replace("_", "-")
        assert item.variable == "NVC_" + item.name.upper()


@pytest.mark.parametrize(("host", "loopback"), [
    ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("[::1]", True), ("localhost", True), ("LocalHost.", True),
    ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("localhost.evil.example", False),
    ("127.0.0.1.evil.example", False)])
def test_which_hosts_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(("host", "has_keys", "insecure"), [("127.0.0.1", False, False), ("0.0.0.0", True, False),
                                                            ("0.0.0.0", False, True)])
def test_where_a_service_may_listen(host: str, has_keys: bool, insecure: bool) -> None:
    check_exposure(host, has_keys=has_keys, insecure_bind=insecure)


def test_nothing_is_open_to_the_network_by_accident() -> None:
    with pytest.raises(SettingsError, match="--insecure-bind"):
        check_exposure("0.0.0.0", has_keys=False, insecure_bind=False)


def test_the_docs_give_every_limit_of_the_server() -> None:
    docs = Path(__file__).resolve().parent.parent / "docs" / "http.md"
    assert docs.read_text(encoding="utf-8").endswith("## Limits\n\n" + markdown(ServerSettings))


def test_a_table_for_the_docs() -> None:
    @dataclass(frozen=True)
    class More(Table):
        name: str = row("", "", "what it is called")

    assert markdown(More, inherited=False) == ("| setting | default | unit | why |\n|---|---|---|---|\n"
                                                       "| `--name`, `NVC_NAME` | empty |  | what it is called |\n")
