"""What a service and systemd say to each other: signals, readiness, the watchdog, sockets that were passed."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping

from service.runtime.logs import Log


class Signals:
    """SIGTERM and SIGINT set `stop` (the second one `at_once`), SIGHUP asks for a reload. Handlers only set flags: what
    they ask for is done by `wait`, in the main thread. To be made in the main thread."""

    def __init__(self) -> None:
        self.stop, self.at_once = threading.Event(), threading.Event()
        self._reload = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: (self.at_once if self.stop.is_set() else self.stop).set())
        signal.signal(signal.SIGHUP, lambda *_: self._reload.set())

    def wait(self, reload: Callable[[], None]) -> None:
        """Until `stop` is set; calls `reload` after each SIGHUP. The main thread must wake now and then: a signal that
        comes just after SIGCONT, as systemd sends them, is taken by another thread, and handled when the main one
        runs."""
        while not self.stop.wait(1.0):
            if self._reload.is_set():
                self._reload.clear()
                reload()


class Notifier:
    """Messages to systemd (sd_notify(3)); every method does nothing when NOTIFY_SOCKET is not set."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # @: a name without a file
        microseconds = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_s = int(microseconds) / 2e6 if mine and microseconds.isdigit() and int(microseconds) else None

    @property
    def watchdog_s(self) -> float | None:
        """Seconds between pings (half of what systemd allows, as sd_watchdog_enabled(3) advises), None when off."""
        return self._watchdog_s if self._address else None

    def ready(self, status: str = "") -> None:
        """Start-up, or a reload, is over."""
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("", text)

    def watchdog(self) -> None:
        """Still well."""
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for this much more time to start or stop, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def stopping(self, status: str = "") -> None:
        """Shutting down from here on."""
        self._send("STOPPING=1", status)

    def reloading(self) -> None:
        """A reload begins; ends with ready()."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _send(self, message: str, status: str = "") -> None:
        if not self._address:
            return
        if status:
            message += f"\nSTATUS={' '.join(status.split())}"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto(message.strip("\n").encode(), self._address)
        except OSError:  # systemd is restarting itself; the next message will tell it
            return


class Watchdog:
    """A thread that runs `checks` every notifier.watchdog_s and pings systemd only when all of them returned.

    A check that hangs withholds the ping as well as one that raises: systemd then restarts the service.
    """

    def __init__(self, notifier: Notifier, checks: Mapping[str, Callable[[], object]], log: Log) -> None:
        self._notifier, self._checks, self._log = notifier, dict(checks), log
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; does nothing where systemd does not watch."""
        if self._notifier.watchdog_s is not None:
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; a check in progress is waited for briefly."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def check(self) -> bool:
        """Run the checks once; ping when all passed."""
        for name, check in self._checks.items():
            try:
                check()
            except Exception as error:  # whatever it is, it must not end the watching
                self._log.error("watchdog-check-failed", error=error, check=name)
                return False
        self._notifier.watchdog()
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            self.check()
            self._stop.wait(self._notifier.watchdog_s)


def listen_sockets(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> list[socket.socket]:
    """Sockets passed by systemd (sd_listen_fds(3)): LISTEN_PID, LISTEN_FDS; [] when not socket-activated."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid() if pid is None else pid) or not count.isdigit():
        return []
    sockets = [socket.socket(fileno=3 + i) for i in range(int(count))]  # 3: SD_LISTEN_FDS_START
    for sock in sockets:
        sock.set_inheritable(False)  # the codec processes must not hold the port
    return sockets
