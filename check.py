"""Check a deployment: submit experiments and verify that nothing is lost, doubled, hidden or wrong; --chaos adds
faults.

    python check.py --url http://host:8081 [--key KEY] [--experiments 5] [--experiment JSON]
    python check.py --url http://host:8081 --chaos [--kill-worker "systemctl kill -s KILL nvc-worker"]
    python check.py --url http://host:8081 --attack "I may attack http://host:8081"

Without --chaos it submits experiments, waits for their ends, fetches every stream and compares its SHA-256, reads the
list, each history, and the conservation sum. It may be run beside other people's work.

With --chaos it also sends submissions several times at once, breaks connections off in the middle of requests and
before answers, cancels, and lists while all that goes on. With --kill-worker it runs that command once half of the
experiments are accepted: run it on the worker's host, and name a worker that something starts again, or that is not the
only one. Codec processes that outlive their worker on this host are counted.

With --attack, and the words by which you agree, it tries what an attacker tries first (deployment_check/attack.py):
rights beyond a key's, forged results, paths and addresses that lead elsewhere, malformed requests, small files that
claim to be large, slow connections. Nothing is harmed; the log fills with refusals. Use a key of role client.

Options:
    --url URL            the orchestrator, or NVC_URL; else http://127.0.0.1:8081
    --key KEY            a key of role client, or NVC_KEY
    --ca FILE            CA certificates (PEM) that the orchestrator's certificate is checked against
    --experiments N      how many; 5, or 20 with --chaos
    --experiment JSON    what each of them asks for; {"frames": 8}
    --patience-s S       until what has not ended counts as lost; 600
    --history FILE       write what was seen there, a line of JSON each

Prints the verdict, the same as the project's own tests do. Exit codes: 0 all promises held, 1 one was broken or the
deployment could not be tried (one line on standard error says why), 2 wrong usage.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    sys.exit("check.py: Python 3.11 or newer is needed")


import argparse
import json
import os
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from deployment_check.attack import attack, consent
from deployment_check.history import History
from deployment_check.traffic import Exercise, GaveUp
from deployment_check.verdict import verdict_of
from service.processes.process_tags import PROCESS_TAG, tagged

CLIENTS = 4
ORPHANS_S = 10.0        # a killed worker's codec processes are gone by then
HABITS = ("submit", "twice", "break off early", "cancel", "break off late")     # in turn, with --chaos


class KillFailed(Exception):
    """The command that was to kill a worker did not succeed."""


def use(client: Exercise, document: Mapping[str, Any], habit: str) -> str | None:
    """One experiment, submitted as the habit says; its id."""
    if habit == "twice":
        name = client.submit_many_times(document)
    elif habit.startswith("break off"):
        name = client.break_off(document, 0.7 if habit.endswith("early") else 1.0)
    else:
        name = client.submit(document)
    if name is not None and habit == "cancel":
        client.cancel(name)
    if name is not None:
        client.status(name)
    return name


def kill_worker(command: str) -> None:
    """Raises KillFailed."""
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise KillFailed(f"{command}: {error}") from error
    if done.returncode:
        raise KillFailed(f"{command}: exit status {done.returncode}: {done.stderr.strip()}")


def parents() -> dict[int, int]:
    """The parent of each codec process on this host that this user may look at."""
    found = {}
    for pid in tagged(f"{PROCESS_TAG}=".encode()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid:   # the leader of its session: the others are its children, and its guard
            found[pid] = int(fields[1])
    return found


def orphans(before: Mapping[int, int]) -> list[int]:
    """Codec processes whose worker has gone, if they do not follow it in time."""
    until = time.monotonic() + ORPHANS_S
    while left := [pid for pid, parent in parents().items() if pid in before and before[pid] != parent]:
        if time.monotonic() > until:
            return left
        time.sleep(0.2)
    return []


def run(client: Exercise, args: argparse.Namespace, document: Mapping[str, Any]) -> None:
    """Everything but the verdict. Raises GaveUp, KillFailed."""
    client.conservation()
    habits = [HABITS[number % len(HABITS)] if args.chaos else "submit" for number in range(args.experiments)]
    before = parents()
    accepted = threading.Semaphore(0)

    def one(habit: str) -> str | None:
        try:
            return use(client, document, habit)
        finally:
            accepted.release()

    with ThreadPoolExecutor(CLIENTS) as pool:
        submissions = [pool.submit(one, habit) for habit in habits]
        if args.kill_worker:
            for _ in range((args.experiments + 1) // 2):
                accepted.acquire()
            kill_worker(args.kill_worker)
        if args.chaos:
            client.list_all()
            client.conservation()
        names = [name for submission in submissions if (name := submission.result()) is not None]
    client.wait_until_ended(names)
    client.look_at_all(names)
    for name in names:
        client.check_artifacts(name)
    if args.kill_worker:
        client.history.note("orphans", pids=orphans(before))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=os.environ.get("NVC_URL") or "http://127.0.0.1:8081")
    parser.add_argument("--key", default=os.environ.get("NVC_KEY") or None)
    parser.add_argument("--ca")
    parser.add_argument("--experiments", type=int)
    parser.add_argument("--experiment", default='{"frames": 8}')
    parser.add_argument("--patience-s", type=float, default=600.0)
    parser.add_argument("--history", type=Path)
    parser.add_argument("--chaos", action="store_true")
    parser.add_argument("--kill-worker", default="")
    parser.add_argument("--attack", metavar="WORDS")
    args = parser.parse_args(argv)
    if args.attack is not None:
        if args.attack != consent(args.url):
            parser.error(f"--attack: the words were expected by which you agree: {consent(args.url)!r}")
        try:
            return 0 if attack(args.url, args.key, args.ca or True, print) else 1
        except requests.RequestException as error:
            print(f"check.py: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
    args.experiments = args.experiments if args.experiments is not None else 20 if args.chaos else 5
    try:
        document = json.loads(args.experiment)
    except ValueError as error:
        parser.error(f"--experiment: JSON was expected: {error}")
    if not isinstance(document, dict):
        parser.error("--experiment: a JSON object was expected")
    if args.experiments < 1:
        parser.error("--experiments: at least 1 was expected")
    if args.kill_worker and not args.chaos:
        parser.error("--kill-worker goes with --chaos")
    tag = secrets.token_hex(4)
    document["tags"] = {**(document.get("tags") or {}), "check": tag}
    history = History(args.history)
    try:
        client = Exercise(args.url, history, key=args.key, verify=args.ca or True, patience_s=args.patience_s,
                          tag=f"check:{tag}")
        run(client, args, document)
    except (GaveUp, KillFailed, ValueError, OSError) as error:
        print(f"check.py: {error}", file=sys.stderr)
        return 1
    if refused := history.of("refused"):
        print(f"check.py: the experiment was refused with {refused[0].about['status']}", file=sys.stderr)
        return 1
    verdict = verdict_of(history, alone=False)
    print(*verdict.lines(), sep="\n")
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
