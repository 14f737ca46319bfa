"""A client that uses a deployment, is rude to it where asked, and writes down everything that it sees.

It never gives a submission up: whatever happens to an answer, it sends the same body under the same Idempotency-Key
again until it has an answer, as every client of the service may.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from deployment_check.history import History
from deployment_check.verdict import ENDED
from service.http.client import Client, ClientError, Refused
from service.jobs.states import TERMINAL

TRY_AGAIN = (408, 409, 421, 429, 500, 502, 503, 504, 507)   # of a submission: neither yes nor a no for good
PAUSE_S = 0.05
LOOK_S = 0.1            # between two looks at what is still unfinished
RUDE_S = 5.0            # for a connection that is about to be broken off anyway


class GaveUp(Exception):
    """The service was not to be had for as long as the trial has patience."""


class Exercise:
    """See above. Safe from any thread. `patience_s` bounds every method; `tag` ("name:value") is borne by everything
    that is submitted, and keeps lists of a deployment that others use short."""

    def __init__(self, url: str, history: History, *, key: str | None = None, verify: bool | str = True,
                 patience_s: float = 60.0, read_s: float = 10.0, tag: str = "") -> None:
        """ValueError for a URL that is none."""
        self.url, self.history = url.rstrip("/"), history
        self._list = f"/experiments?limit=200{f'&tag={tag}' if tag else ''}"
        self.patience_s = patience_s
        self._key, self._verify = key, verify
        self._client = Client(self.url, key=key, retries=0, read_s=read_s, verify=verify)

    # --- what every client does

    def submit(self, document: Mapping[str, Any], key: str | None = None) -> str | None:
        """Submit until it is answered; the id, or None where it was refused for good. `key`: one that was used
        before, None for a new one. Raises GaveUp."""
        if key is None:
            key = self.new_key()

        def once() -> str | None:
            try:
                reply = self._client.post("/experiment", document, headers={"Idempotency-Key": key}, idempotent=True)
            except Refused as refused:
                if refused.status in TRY_AGAIN:
                    raise
                self.history.note("refused", key=key, status=refused.status)
                return None
            name = str(reply.document["experiment_id"])
            self.history.note("acknowledged", key=key, id=name)
            return name

        return self._until_told(once)

    def new_key(self) -> str:
        """A key for a submission that is about to be made."""
        key = f"trial-{secrets.token_hex(8)}"
        self.history.note("submitted", key=key)
        return key

    def cancel(self, name: str) -> int:
        """The status that a cancellation is answered with. Raises GaveUp."""

        def once() -> int:
            try:
                status = self._client.post(f"/experiment/{name}/cancel", {}, idempotent=True).status
            except Refused as refused:
                if refused.status >= 500:
                    raise
                status = refused.status
            self.history.note("cancelled", id=name, status=status)
            return status

        return self._until_told(once)

    def status(self, name: str) -> dict[str, Any]:
        """The status document; {"status": "unknown"} for 404. Raises GaveUp."""

        def once() -> dict[str, Any]:
            began_s = time.monotonic()
            document = self._get(f"/experiment/{name}/status", absent={"status": "unknown"})
            self.history.note("status", began_s, id=name, document=_kept(document))
            return document

        return self._until_told(once)

    def conservation(self) -> dict[str, Any]:
        """What is conserved. Raises GaveUp."""

        def once() -> dict[str, Any]:
            began_s = time.monotonic()
            document = self._get("/conservation")
            self.history.note("conservation", began_s, document=document)
            return document

        return self._until_told(once)

    def list_all(self) -> list[str]:
        """The ids on all pages of the list. Raises GaveUp."""

        def once() -> list[str]:
            began_s, names, cursor = time.monotonic(), [], ""
            while True:
                page = self._get(self._list + (f"&cursor={cursor}" if cursor else ""))
                names += [row["experiment_id"] for row in page["experiments"]]
                cursor = page["next_cursor"]
                if not cursor:
                    self.history.note("listed", began_s, ids=names)
                    return names

        return self._until_told(once)

    def count_ends(self, name: str) -> int:
        """How many ends the event stream of an experiment that has ended tells of. Raises GaveUp."""

        def once() -> int:
            reply = self._client.get(f"/experiment/{name}/events", headers={"Accept": "text/event-stream"})
            count = sum(line == b"event: result" for line in reply.content.splitlines())
            self.history.note("ends", id=name, count=count)
            return count

        return self._until_told(once)

    def check_artifacts(self, name: str) -> None:
        """Fetch the artifacts of a completed experiment and compare their bytes with what its document says."""
        document = self.status(name)
        for artifact, about in (document.get("artifacts") or {}).items():
            wanted = {about["sha256"]}
            if artifact.startswith("stream.") and "encoding_result" in document:
                wanted.add(document["encoding_result"].get("sha256", about["sha256"]))
            found = self._until_told(partial(self._digest_of, about["url"]))
            for digest in wanted:
                self.history.note("artifact", id=name, name=artifact, wanted=digest, found=found)

    def wait_until_ended(self, names: Iterable[str]) -> None:
        """Until none of these is unfinished, or patience ends: then the judge will say which are lost. Raises
        GaveUp."""
        left, until = set(names), time.monotonic() + self.patience_s
        while left:
            found = self.conservation()
            unfinished = {row["experiment_id"] for row in found["unfinished"]}
            if found["unfinished_total"] == len(found["unfinished"]):
                left &= unfinished
            else:   # more than the answer lists; ask for one
                left -= {name for name in list(left)[:1] if self.status(name)["status"] in ENDED}
            if time.monotonic() > until:
                return
            if left:
                time.sleep(LOOK_S)

    def look_at_all(self, names: Iterable[str], threads: int = 4) -> None:
        """The last documents, the number of ends, the list and the sums, for the judge. Raises GaveUp."""
        names = list(names)
        with ThreadPoolExecutor(threads) as pool:
            states = [document["status"] for document in pool.map(self.status, names)]
            list(pool.map(self.count_ends, [name for name, state in zip(names, states, strict=True) if state in ENDED]))
        self.list_all()
        self.conservation()

    # --- what rude clients and bad networks do

    def submit_many_times(self, document: Mapping[str, Any], times: int = 4) -> str | None:
        """The same submission, `times` at once."""
        key = self.new_key()
        with ThreadPoolExecutor(times) as pool:
            names = list(pool.map(lambda number: self.submit(document, key), range(times)))
        return names[0]

    def break_off(self, document: Mapping[str, Any], share: float) -> str | None:
        """Send this share of the bytes of a submission, break the connection off, and then submit it properly."""
        key = self.new_key()
        body = json.dumps(document).encode()
        parts = urlsplit(self.url)
        head = [f"POST {parts.path}/experiment HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json",
                f"Content-Length: {len(body)}", f"Idempotency-Key: {key}"]
        if self._key:
            head.append(f"Authorization: Bearer {self._key}")
        data = "\r\n".join([*head, "", ""]).encode() + body
        try:
            with self._connect() as connection:
                connection.sendall(data[:int(share * len(data))])
                # No linger: the other side is met by a reset, not by an orderly end.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except OSError:
            pass    # the service was away, or did it first
        return self.submit(document, key)

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        default = 443 if parts.scheme == "https" else 80
        plain = socket.create_connection((parts.hostname, parts.port or default), RUDE_S)
        if parts.scheme != "https":
            return plain
        context = ssl.create_default_context(cafile=self._verify if isinstance(self._verify, str) else None)
        return context.wrap_socket(plain, server_hostname=parts.hostname)

    # --- small parts

    def _get(self, path: str, absent: dict[str, Any] | None = None) -> Any:
        try:
            return self._client.get(path).document
        except Refused as refused:
            if refused.status == 404 and absent is not None:
                return absent
            raise

    def _digest_of(self, path: str) -> str:
        return hashlib.sha256(self._client.get(path, headers={"Accept": "*/*"}).content).hexdigest()

    def _until_told(self, once: Callable[[], Any]) -> Any:
        """What `once` gives, tried again while the service cannot be had. Raises GaveUp."""
        until = time.monotonic() + self.patience_s
        while True:
            try:
                return once()
            except ClientError as error:
                final = isinstance(error, Refused) and error.status not in TRY_AGAIN
                if final or time.monotonic() > until:
                    raise GaveUp(f"{self.url}: {error}") from error
                time.sleep(PAUSE_S)


def _kept(document: dict[str, Any]) -> dict[str, Any]:
    """A status document as it is remembered: without what grows with the clip or changes while it runs."""
    kept = {name: part for name, part in document.items() if name not in ("frames", "progress")}
    if document["status"] in TERMINAL and "frames" in document:
        kept["frames"] = hashlib.sha256(json.dumps(document["frames"]).encode()).hexdigest()
    return kept
