"""Two hosts, as installed: each a network of its own (ip-netns(8)), TLS and keys between them, tried by smoke_test.sh.

Network namespaces need root; where they are not permitted there is nothing to try, and the test says nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).resolve().parent.parent
HOSTS = {"orchestrator": "10.213.7.1", "worker": "10.213.7.2"}
PATIENCE_S = 120


def call(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
                          **options)  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def networks() -> Iterator[dict[str, str] | None]:
    """A namespace for each host, and a cable between them; None where that is not permitted."""
    names = {host: f"nvc-{os.getpid()}-{host[0]}" for host in HOSTS}
    ends = {host: f"v{os.getpid()}{host[0]}" for host in HOSTS}
    try:
        if shutil.which("ip") is None or any(call("ip", "netns", "add", name).returncode for name in names.values()):
            yield None
            return
        first, second = HOSTS
        if call("ip", "link", "add", ends[first], "netns", names[first], "type", "veth", "peer", "name", ends[second],
                "netns", names[second]).returncode:
            yield None
            return
        for host, address in HOSTS.items():
            for words in (["addr", "add", f"{address}/24", "dev", ends[host]], ["link", "set", ends[host], "up"],
                          ["link", "set", "lo", "up"]):
                done = call("ip", "-n", names[host], *words)
                assert done.returncode == 0, done.stderr
        yield names
    finally:
        for name in names.values():
            call("ip", "netns", "del", name)


def certify(folder: Path) -> None:
    """A CA of our own, and a certificate for each host, which it also shows to the other."""
    now = datetime.datetime(2020, 1, 1)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", *HOSTS)}
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test two hosts")])
    for name, key in keys.items():
        subject = authority if name == "ca" else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        number, until = x509.random_serial_number(), now.replace(year=2120)
        made = x509.CertificateBuilder(authority, subject, key.public_key(), number, now, until).add_extension(
                x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True).add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False).add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["ca"].public_key()), critical=False)
        if name == "ca":
            usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                                   "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False)
            made = made.add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
        else:
            made = made.add_extension(x509.SubjectAlternativeName([
                x509.IPAddress(ipaddress.ip_address(HOSTS[name]))]), critical=False)
        signed = made.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


class Host:
    """One host: an installation below a folder of its own, its settings, its network."""

    def __init__(self, program: str, folder: Path, namespace: str, *options: str) -> None:
        self.program, self.root, self.namespace = program, folder / program, namespace
        done = call(str(ROOT / "systemd/install.sh"), program, "--root", str(self.root), "--network", "10.213.7.0/24",
                    *options)
        assert done.returncode == 0, done.stderr
        self.settings = {"NVC_HOST": HOSTS[program], "NVC_STATE": str(self.root / "state"), "NVC_LOG_LEVEL": "warning",
                         "NVC_TLS_CERT": f"{folder}/{program}.pem", "NVC_TLS_KEY": f"{folder}/{program}.key",
                         "NVC_TLS_CLIENT_CA": f"{folder}/ca.pem", "NVC_CLIENT_CERT": f"{folder}/{program}.pem",
                         "NVC_CLIENT_KEY": f"{folder}/{program}.key"}

    def command(self, *arguments: str) -> list[str]:
        """The program as its unit starts it, in its network, with the settings of its file and its credentials."""
        settings = dict(line.split("=", 1) for line in
                        (self.root / f"etc/nvc/{self.program}.env").read_text().splitlines() if line[:4] == "NVC_")
        values = [f"{name}={value}" for name, value in (settings | self.settings).items()]
        return ["ip", "netns", "exec", self.namespace, "env", *values, f"CREDENTIALS_DIRECTORY={self.root}/credentials",
                sys.executable, str(self.root / f"opt/nvc/{self.program}.py"), *arguments]

    def give(self, name: str, secret: str) -> None:
        """A credential, as LoadCredential= lays it there."""
        (self.root / "credentials").mkdir(exist_ok=True)
        (self.root / "credentials" / name).write_text(secret)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        process = subprocess.Popen(self.command(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith(f"{self.program} listening on https://{HOSTS[self.program]}:"), line
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
            process.stdout.close()


def test_two_hosts_with_tls_and_keys_pass_the_smoke_test(tmp_path: Path) -> None:
    with networks() as names:
        if names is None:
            return
        certify(tmp_path)
        orchestrator = Host("orchestrator", tmp_path, names["orchestrator"])
        keys = {}
        for name, role in (("key", "worker"), ("admin", "admin")):
            made = call(*orchestrator.command("keys", "add", "--role", role))
            assert made.returncode == 0, made.stderr
            keys[name] = made.stdout.strip()
        (tmp_path / "admin.key").write_text(keys["admin"])
        worker = Host("worker", tmp_path, names["worker"])
        addresses = {"orchestrator": f"https://{HOSTS['orchestrator']}:8081", "worker": f"https://{HOSTS['worker']}:8080"}
        orchestrator.settings |= {"NVC_WORKER_CA": f"{tmp_path}/ca.pem", "NVC_URL": addresses["orchestrator"]}
        worker.settings |= {"NVC_CA": f"{tmp_path}/ca.pem", "NVC_URL": addresses["worker"], "NVC_WARM": "raw",
                            "NVC_ORCHESTRATOR": addresses["orchestrator"], "NVC_CODEC": "raw=tests.standin:Raw"}
        worker.give("key", keys["key"])
        with orchestrator.running(), worker.running():
            # Whoever tries shows a certificate as well as a key.
            seen = call("ip", "netns", "exec", names["worker"], "env", f"NVC_CA={tmp_path}/ca.pem",
                        f"NVC_KEY_FILE={tmp_path}/admin.key", f"NVC_CLIENT_CERT={tmp_path}/worker.pem",
                        f"NVC_CLIENT_KEY={tmp_path}/worker.key", 'SMOKE_EXPERIMENT={"codec": "raw", "frames": 2}',
                        "SMOKE_TIMEOUT_S=90", str(worker.root / "opt/nvc/systemd/smoke_test.sh"), *addresses.values())
            assert seen.returncode == 0, seen.stdout + seen.stderr
            assert seen.stdout.splitlines()[-1].startswith("PASSED: ")
            for url in addresses.values():  # without a certificate nobody gets as far as a question
                bare = call("ip", "netns", "exec", names["worker"], "curl", "--silent", "--cacert",
                            f"{tmp_path}/ca.pem", f"{url}/health")
                assert bare.returncode != 0
