"""Where a server listens: the table of its limits, its socket, its certificates."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from service.runtime.settings import SettingsError, row


@dataclass(frozen=True)
class ServerSettings:
    """Limits of the HTTP layer; the programs' own settings inherit from it, so each has a flag and a variable."""

    host: str = row("127.0.0.1", "", "address to listen on; others than loopback need a key or --insecure-bind")
    port: int = row(0, "", "port to listen on; 0 picks a free one and prints it", low=0, high=65535)
    insecure_bind: bool = row(False, "", "listen beyond loopback without any key")
    tls_cert: Path | None = row(None, "", "certificate chain (PEM); with tls_key, serves https")
    tls_key: Path | None = row(None, "", "private key (PEM)")
    tls_client_ca: Path | None = row(None, "", "require client certificates signed by this CA (PEM)")
    client_cert: Path | None = row(None, "", "certificate (PEM) shown to the other service, which may require one; "
                                   "with client_key")
    client_key: Path | None = row(None, "", "its private key (PEM)")
    http_hosts: str = row("", "", "names, with commas, that Host may be; empty: any, but on loopback without keys only "
                          "loopback names, so that no web page reaches the service under a name of its own")
    http_threads: int = row(16, "threads", "handlers at once; short ones, so a few per core are plenty", low=1)
    http_queue: int = row(128, "requests", "waiting for a handler to end; beyond it 503 at once is kinder than a "
                          "long wait", low=1)
    http_waits: int = row(256, "threads", "event streams and Prefer: wait clients at once", low=1)
    http_transfers: int = row(32, "threads", "uploads and downloads of files at once", low=1)
    http_connections: int = row(2048, "connections", "open at once; the longest idle one makes room", low=8)
    http_idle_s: float = row(60.0, "s", "a connection without a request is closed after this long", low=0.05)
    http_receive_s: float = row(15.0, "s", "from a request's first byte to its last, plus its size at http_min_rate",
                                low=0.05)
    http_send_s: float = row(15.0, "s", "to take an answer, plus its size at http_min_rate; and each event of a "
                             "stream", low=0.05)
    http_linger_s: float = row(2.0, "s", "for the client to read the last answer before the socket is closed", low=0)
    http_max_wait_s: float = row(300.0, "s", "longest Prefer: wait that is granted", low=0)
    http_min_rate: int = row(65536, "bytes/s", "slowest transfer of a large body that is borne", low=1)
    http_line_bytes: int = row(8192, "bytes", "request line; RFC 9112 section 3 recommends at least 8000", low=256)
    http_head_bytes: int = row(32768, "bytes", "request line and header fields together", low=512)
    http_fields: int = row(100, "fields", "header fields of a request", low=1)
    http_drain_bytes: int = row(65536, "bytes", "of a body nobody reads, thrown away to keep the connection", low=0)
    http_buffer_bytes: int = row(64 << 20, "bytes", "of bodies being received, over all connections", low=1 << 20)


def tls_context(settings: ServerSettings) -> ssl.SSLContext:
    """The server's side of TLS (1.2 or newer) from the certificate files; SettingsError when they cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        raise SettingsError("tls_cert and tls_key: both are needed, or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"tls_cert {settings.tls_cert}, its key or CA cannot be used: {error}") from error
    return context


def client_certificate(settings: ServerSettings) -> tuple[str, str] | None:
    """The certificate and key to show the other service, None where there is none; SettingsError for half of one."""
    if (settings.client_cert is None) != (settings.client_key is None):
        raise SettingsError("client_cert and client_key: both are needed, or neither")
    for path in (settings.client_cert, settings.client_key):
        if path is not None and not path.is_file():
            raise SettingsError(f"client_cert and client_key: {path} is no file")
    return None if settings.client_cert is None else (str(settings.client_cert), str(settings.client_key))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; no name of this host is looked up (http.server's getfqdn can take seconds)."""
    family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM,
                                                            flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host in ("", "::"):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"port {port} of {host or 'all addresses'}: {error.strerror}") from error
    return sock


def raise_file_limit(wanted: int) -> None:
    """As many open files as connections need, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
