"""The CloudFormation template, and what its instances run at their first boot, as far as that goes without AWS."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "deploy/two-hosts.yaml"
VOLUME = "vol-0abc1234"
DEVICE = "dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0abc1234"

# Each writes down how it was called. `aws` keeps its parameters in files; no key there is an error, as in truth.
COMMANDS = {
    "dnf": "", "mount": "", "mkfs.ext4": "", "blkid": "", "sleep": "exit 99", "mountpoint": "exit 1",
    "hostname": "echo 10.0.1.7 ",
    "aws": """file="$STORE/$(printf %s "$4" | tr / _)"
case $2 in
get-parameter) cat "$file" 2> /dev/null || exit 254 ;;
put-parameter) while [ "$1" != --value ]; do shift; done; printf '%s\\n' "$2" > "$file" ;;
esac""",
}


class Host:
    """A folder that first-boot.sh takes for the root of an instance."""

    def __init__(self, folder: Path) -> None:
        self.root, self.store, self.commands = folder / "root", folder / "store", folder / "commands"
        for each in (self.root / "opt/nvc/.venv/bin", self.root / "dev/disk/by-id", self.store, self.commands):
            each.mkdir(parents=True)
        (self.root / DEVICE).touch()
        for name, does in COMMANDS.items():
            self._program(self.commands / name, f'echo "{name} $*" >> "$CALLS"\n{does}')
        self._program(self.root / "opt/nvc/.venv/bin/python", f'exec {sys.executable} "$@"')
        self.calls_file = folder / "calls"
        self.calls_file.touch()

    @staticmethod
    def _program(path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def boot(self, role: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.commands}:{os.environ['PATH']}", "NVC_ROOT": str(self.root),
                       "STORE": str(self.store), "CALLS": str(self.calls_file),
                       "NVC_NETWORKS": "10.0.1.0/24 10.0.0.0/16", "NVC_KEY_PARAMETER": "/nvc/worker-key", **settings}
        return subprocess.run([ROOT / "deploy/first-boot.sh", role], env=environment, capture_output=True,
                              text=True, timeout=120, check=False)

    def orchestrator(self) -> subprocess.CompletedProcess[str]:
        return self.boot("orchestrator", NVC_VOLUME=VOLUME, NVC_WORKER_NETWORKS="10.0.1.0/24")

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()

    def settings(self, role: str) -> dict[str, str]:
        text = (self.root / f"etc/nvc/{role}.env").read_text()
        return dict(re.findall(r"^(NVC_\w+)=(.*)$", text, re.MULTILINE))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_template_has_no_faults() -> None:
    command = [Path(sys.executable).with_name("cfn-lint"), TEMPLATE, ROOT / "deploy/cloudwatch-alarms.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "")


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short functions (!Ref, !Sub, …) as {"Ref": …} and so on."""


def _function(loader: Loader, suffix: str, node: yaml.Node) -> dict[str, object]:
    value: object
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {suffix: value}


Loader.add_multi_constructor("!", _function)
RESOURCES = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]


def test_only_the_two_ports_come_in() -> None:
    rules = [(name, rule) for name in ("OrchestratorGroup", "WorkerGroup")
             for rule in RESOURCES[name]["Properties"]["SecurityGroupIngress"]]
    rules.append(("OrchestratorGroup", RESOURCES["WorkersToOrchestrator"]["Properties"]))
    found = {(name, rule["FromPort"], rule["ToPort"], json.dumps(
        rule.get("CidrIp") or rule["SourceSecurityGroupId"])) for name, rule in rules}
    assert found == {
        ("OrchestratorGroup", 8081, 8081, '{"Ref": "ClientRange"}'),
        ("OrchestratorGroup", 443, 443, '{"Ref": "ClientRange"}'),
        ("OrchestratorGroup", 8081, 8081, '{"GetAtt": "WorkerGroup.GroupId"}'),
        ("WorkerGroup", 8080, 8080, '{"GetAtt": "OrchestratorGroup.GroupId"}')}


def test_only_the_orchestrator_may_write_the_workers_key_and_neither_reads_more_of_s3_than_the_program() -> None:
    def actions(role: str) -> set[str]:
        statements = RESOURCES[role]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        return {action for each in statements for action in (
            each["Action"] if isinstance(each["Action"], list) else [each["Action"]])}

    assert actions("OrchestratorRole") == {"s3:GetObject", "ssm:GetParameter", "ssm:PutParameter"}
    assert actions("WorkerRole") == {"s3:GetObject", "ssm:GetParameter"}


def test_the_state_outlives_the_stack_and_is_encrypted() -> None:
    state = RESOURCES["State"]
    assert (state["DeletionPolicy"], state["UpdateReplacePolicy"], state["Properties"]["Encrypted"]) == (
        "Snapshot", "Snapshot", True)


def test_user_data_gives_first_boot_what_it_asks_for() -> None:
    asked = set(re.findall(r"\$\{(NVC_\w+):\?", (ROOT / "deploy/first-boot.sh").read_text()))
    texts = [RESOURCES["Orchestrator"]["Properties"]["UserData"],
             RESOURCES["WorkerTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]]
    given = {name for text in texts for name in re.findall(r"\b(NVC_\w+)=", json.dumps(text))}
    assert given == asked


def test_an_orchestrator_is_installed_on_its_volume_with_a_key_for_the_workers(host: Host) -> None:
    done = host.orchestrator()
    assert done.returncode == 0, done.stderr
    assert f"mkfs.ext4 -q -L nvc-state {host.root}/{DEVICE}" in host.calls
    assert f"mount {host.root}/{DEVICE} {host.root}/var/lib/nvc-orchestrator" in host.calls
    assert (host.root / "etc/fstab").read_text() == f"/{DEVICE} /var/lib/nvc-orchestrator ext4 nofail,noatime 0 2\n"
    settings = host.settings("orchestrator")
    assert (settings["NVC_HOST"], settings["NVC_WORKER_NETWORKS"], settings["NVC_EMF_NAMESPACE"]) == (
        "0.0.0.0", "10.0.1.0/24", "NVC")
    assert (host.store / "_nvc_worker-key").read_text().startswith("nck_")
    assert (host.root / "etc/systemd/system/nvc-orchestrator.service.d/network.conf").read_text() == (
        "[Service]\nIPAddressAllow=10.0.1.0/24\nIPAddressAllow=10.0.0.0/16\n")
    assert "ListenStream=0.0.0.0:8081" in (host.root / "etc/systemd/system/nvc-orchestrator.socket").read_text()


def test_a_second_boot_keeps_volume_key_and_settings(host: Host) -> None:
    host.orchestrator()
    key, settings = (host.store / "_nvc_worker-key").read_text(), host.settings("orchestrator")
    Host._program(host.commands / "blkid", "echo TYPE=ext4")
    Host._program(host.commands / "mountpoint", "exit 0")
    host.calls_file.write_text("")
    assert host.orchestrator().returncode == 0
    assert ((host.store / "_nvc_worker-key").read_text(), host.settings("orchestrator")) == (key, settings)
    assert (host.root / "etc/fstab").read_text().count("nvc-orchestrator") == 1
    assert not [call for call in host.calls if call.startswith(("mkfs", "mount "))]


def test_a_worker_takes_the_key_and_the_addresses(host: Host) -> None:
    (host.store / "_nvc_worker-key").write_text("nvc_the-key\n")
    done = host.boot("worker", NVC_ADDRESS="10.0.1.5")
    assert done.returncode == 0, done.stderr
    settings = host.settings("worker")
    assert (settings["NVC_ORCHESTRATOR"], settings["NVC_URL"], settings["NVC_HOST"]) == (
        "http://10.0.1.5:8081", "http://10.0.1.7:8080", "0.0.0.0")
    credential = host.root / "etc/nvc/credentials/nvc-worker.key"
    assert (credential.read_text(), credential.stat().st_mode & 0o777) == ("nvc_the-key\n", 0o600)
    assert "/var/log/nvc-worker.log" in (
        host.root / "opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json").read_text()


def test_the_log_agents_configuration_is_json(host: Host) -> None:
    host.orchestrator()
    file = host.root / "opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.json"
    (entry,) = json.loads(file.read_text())["logs"]["logs_collected"]["files"]["collect_list"]
    assert (entry["file_path"], entry["log_group_name"]) == ("/var/log/nvc-orchestrator.log", "/nvc/orchestrator")


@pytest.mark.parametrize(("role", "settings", "said"), [
    ("both", {}, "expected orchestrator or worker, got 'both'"),
    ("worker", {"NVC_NETWORKS": ""}, "the networks are missing"),
    ("orchestrator", {"NVC_VOLUME": ""}, "the volume of the state is missing"),
    ("worker", {"NVC_ADDRESS": ""}, "the address of the orchestrator is missing"),
])
def test_what_is_missing_is_named(host: Host, role: str, settings: dict[str, str], said: str) -> None:
    done = host.boot(role, **settings)
    assert (done.returncode != 0, said in done.stderr) == (True, True)


def test_a_key_that_never_comes_is_said(host: Host) -> None:
    Host._program(host.commands / "sleep", "exit 0")
    done = host.boot("worker", NVC_ADDRESS="10.0.1.5")
    assert (done.returncode, "no key in /nvc/worker-key after fifteen minutes" in done.stderr) == (2, True)
