"""Messages from a worker to its orchestrator: heartbeats, progress, results.

Three threads, so that none waits for another:

- *beats* registers, and from then on renews the leases of all attempts here (`POST /workers`), every ``heartbeat_s``
  that the answer names and at once when something has changed.  It never touches a codec: a codec that computes for an
  hour without a word keeps its lease, and one whose worker is stopped loses it.
- *progress* sends the newest progress of each run, a few a second at most; what is lost is not missed.
- *outbox* (outbox.py) delivers ends: artifacts first, each under its SHA-256, then the message that names them.

An attempt counts as running until its end has been acknowledged: the lease of a result on its way is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from service.http.client import Ambiguous, Client, ClientError, Refused, Unreachable
from service.http.exchange import new_trace
from service.runs.attempts import Attempt, Dispatch
from service.runs.outbox import Entry, as_damaged
from service.runs.outbox import Refused as NotTaken
from service.runs.outbox import Unreachable as NobodyThere
from service.s3 import Bucket, S3Error

HEARTBEAT_S = 2.0  # until the orchestrator has said how often it wants to hear
RETRY_S = 0.5  # between tries to register while the orchestrator is away: it should find its workers soon after a start
BEAT_ANSWER_S = 5.0  # for an answer to a heartbeat; half a lease, where leases are short: the next must come in time
PROGRESS_S = 0.25  # between two messages on one run's progress
UPLOAD_RATE = 10 << 20  # bytes a second that an orchestrator flushes to its disk, at the least


class Link:
    """Calls to the orchestrator: the configured one, or, without it, those that dispatches name."""

    def __init__(self, home: str, make_client: Callable[[str], Client], describe: Callable[[], dict[str, Any]],
                 fenced: Callable[[str, int], None], log: Callable[..., None], answer_s: float = 30.0,
                 bucket: Bucket | None = None) -> None:
        """``home``: the configured orchestrator, or "".  ``describe`` gives the registration document,
        ``fenced(run, attempt)`` is called for attempts that the orchestrator no longer wants, ``answer_s`` bounds the
        wait for an answer to an end, or for more bytes of a clip; ``bucket`` is where clips are read and artifacts are
        written, as long as it can be used: else they go through the orchestrator."""
        self._bucket = bucket
        self.home = home
        self.registered = threading.Event()
        self.stale = 0  # ends that were refused as stale
        self.trouble = ""  # why the orchestrator cannot be reached
        self._make_client = make_client
        self._clients: dict[str, Client] = {}
        self._describe = describe
        self._fenced = fenced
        self._log = log
        self._answer_s = answer_s
        self._beat_answer_s = BEAT_ANSWER_S
        self._lock = threading.Lock()
        self._beat_now = threading.Event()
        self._heard: list[Callable[[], None]] = []
        self._news = threading.Condition()
        self._progress: dict[tuple[str, int], Attempt] = {}
        self._closing = False
        self._threads = [threading.Thread(target=self._tell_progress, name="progress", daemon=True)]
        if home:
            self._threads.append(threading.Thread(target=self._beat, name="beats", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def when_heard(self, call: Callable[[], None]) -> None:
        """Call this whenever the orchestrator has answered a heartbeat."""
        self._heard.append(call)

    def close(self) -> None:
        self._closing = True
        self._beat_now.set()
        with self._news:
            self._news.notify_all()

    # --- heartbeats ---

    def beat(self) -> None:
        """Something has changed that the orchestrator should know now."""
        self._beat_now.set()

    def _beat(self) -> None:
        interval = HEARTBEAT_S
        while not self._closing:
            self._beat_now.clear()
            try:
                reply = self._client(self.home).post("/workers", self._describe(), idempotent=True,
                                                       read_s=self._beat_answer_s)
                interval = self._take_answer(reply.document if isinstance(reply.document, dict) else {})
                wait = interval
            except ClientError as error:
                if not self.trouble:
                    self._log("orchestrator-lost", orchestrator=self.home, reason=str(error))
                self.trouble = str(error)
                self.registered.clear()
                wait = min(interval, RETRY_S)
            self._beat_now.wait(wait)

    def _take_answer(self, answer: dict[str, Any]) -> float:
        """Obey a heartbeat's answer; seconds until the next is due."""
        if not self.registered.is_set():
            self._log("registered", orchestrator=self.home)
        self.trouble = ""
        self.registered.set()
        for call in self._heard:
            call()
        for named in answer.get("unknown") or []:
            self._fenced(str(named["run"]), int(named["attempt"]))
        heartbeat_s, lease_s = answer.get("heartbeat_s"), answer.get("lease_s")
        if isinstance(lease_s, int | float) and lease_s > 0:
            self._beat_answer_s = min(BEAT_ANSWER_S, lease_s / 2)
        return float(heartbeat_s) if isinstance(heartbeat_s, int | float) and heartbeat_s > 0 else HEARTBEAT_S

    # --- progress ---

    def progress(self, attempt: Attempt) -> None:
        """The attempt's progress has changed."""
        if self._address(attempt.dispatch.callback):
            with self._news:
                self._progress[attempt.dispatch.key] = attempt
                self._news.notify()

    def forget_progress(self, attempt: Attempt) -> None:
        """The attempt has ended: what has not been sent would come after its result."""
        with self._news:
            self._progress.pop(attempt.dispatch.key, None)

    def _tell_progress(self) -> None:
        sent: dict[tuple[str, int], float] = {}
        while not self._closing:
            with self._news:
                now = time.monotonic()
                due = {key: sent.get(key, 0.0) + PROGRESS_S for key in self._progress}
                key = min(due, key=lambda candidate: due[candidate], default=None)
                if key is None or due[key] > now:
                    self._news.wait(None if key is None else due[key] - now)
                    continue
                attempt = self._progress.pop(key)
            sent = {known: at for known, at in sent.items() if at > now - 60} | {key: now}
            self._send_progress(attempt)

    def _send_progress(self, attempt: Attempt) -> None:
        run, number = attempt.dispatch.key
        try:
            self._client(self._address(attempt.dispatch.callback)).post(
                "/experiment_progress", {"run": run, "attempt": number, **shown(attempt.dispatch.secret),
                                         **attempt.progress},
                idempotent=True, trace=new_trace(attempt.dispatch.traceparent or None), read_s=5.0,
            )
        except Refused as error:
            if error.status == 409:
                self._fenced(run, number)
        except ClientError:
            pass  # the next one, or a heartbeat, says the same

    # --- ends, and clips ---

    def deliver(self, entry: Entry) -> None:
        """For the outbox: returns when the orchestrator has the end or has refused it for good."""
        message = dict(entry.message)
        address = self._address(message.pop("callback", ""))
        traceparent, secret = message.pop("traceparent", ""), message.pop("secret", "")
        message |= shown(secret)
        headers = {"Attempt": f"{message['run']} {message['attempt']} {secret}"} if secret else {}
        client = self._client(address)
        try:
            for name, about in message["artifacts"].items():
                if entry.folder and not self._put_into_bucket(entry.folder / name, about["sha256"]):
                    client.put_file(f"/artifacts/{about['sha256']}", entry.folder / name, sha256=about["sha256"],
                                    headers=headers, read_s=self._answer_s + about["bytes"] / UPLOAD_RATE)
            trace = new_trace(traceparent or None)
            client.post("/experiment_result", message, idempotent=True, trace=trace, read_s=self._answer_s)
        except (Unreachable, Ambiguous) as error:
            raise NobodyThere(str(error)) from error
        except OSError as error:
            self._give_up(entry, str(error))
        except Refused as error:
            if error.slug == "digest-mismatch":     # what left here was not what the message says
                self._give_up(entry, str(error))
            if error.status != 409:
                raise NotTaken(str(error)) from error
            self.stale += 1
            self._log("result-refused", run=message["run"], attempt=message["attempt"], reason=str(error))
        else:
            self._log("result-delivered", run=message["run"], attempt=message["attempt"], state=message["state"])
        self.beat()  # the slot's attempt is no longer ours

    def _give_up(self, entry: Entry, why: str) -> NoReturn:
        """An artifact cannot be read, or is damaged: from now on the attempt is one that failed."""
        self._log("artifact-damaged", run=entry.key[0], attempt=entry.key[1], reason=why)
        entry.message = as_damaged(entry.message)
        raise NotTaken(why)

    def _put_into_bucket(self, path: Path, sha256: str) -> bool:
        """Whether the artifact is in the bucket now."""
        try:
            if self._bucket is not None:
                self._bucket.put(path, sha256)
            return self._bucket is not None
        except S3Error as error:
            self._log("bucket-not-used", reason=str(error))
            return False

    def download(self, dispatch: Dispatch, url: str, sha256: str, out: Any) -> tuple[int, str]:
        """Fetch the clip of a dispatch, or a file of a segment, into ``out``; (bytes, SHA-256).

        Only the path of its address counts: it is asked of the orchestrator that this worker belongs to, so that nobody
        can make a worker call somewhere else by naming it in a dispatch.
        """
        if self._bucket is not None:
            begin = out.tell()
            try:
                return self._bucket.read(sha256, out)
            except S3Error as error:
                self._log("bucket-not-used", reason=str(error))
                out.seek(begin)
                out.truncate()
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        client = self._client(self._address(dispatch.callback))
        return client.download(path, out, sha256=sha256, read_s=self._answer_s)

    def _address(self, callback: str) -> str:
        return (self.home or callback) if callback else ""

    def _client(self, address: str) -> Client:
        with self._lock:
            if address not in self._clients:
                self._clients[address] = self._make_client(address)
            return self._clients[address]


def shown(secret: str) -> dict[str, str]:
    """The field of a message that shows an attempt's secret, where it has one."""
    return {"secret": secret} if secret else {}
