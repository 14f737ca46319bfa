"""A storm: hundreds of experiments through both services while everything breaks that a seed can think of.

    PYTHONPATH=. python tests/system/storm.py [--seed N] [--experiments 200] [--kills 0] [--minutes M]

Two workers and an orchestrator, each a process, with a fault proxy on each way between them and one before the clients.
Clients submit, cancel, repeat and break off, a fifth of it in segments; meanwhile connections fail in every way that
proxy.py has, and services are killed, stopped and continued. Then everything is healed, and the judge reads what the
clients saw (deployment_check/verdict.py). A seed decides what is submitted and what breaks in which order; when it
breaks is left to the machine.

--kills adds that many kills of a service to the two of every storm. With --minutes, seeds follow each other until the
time is over, and the first one that breaks a promise ends it. Prints the verdict of each; exit code 1 if a promise was
broken.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deployment import Program
from proxy import FAULTS
from wired import Wired, document_of

from deployment_check.verdict import Verdict

CLIENTS = 4
MEMORY = Path("/dev/shm")   # the disk is not what is tested here
# What is submitted, and how often of a hundred.
SCRIPTS = {"plain": 62, "sleep-0.1": 12, "chatter-20": 10, "refuse": 4, "memory": 3, "disk-full": 3, "segfault": 2,
           "exit": 2, "deaf": 2}
HABITS = {"submit": 70, "twice": 10, "break off": 10, "cancel": 10}     # how it is submitted


class Storm(Wired):
    """One deployment and its weather. Use it in a with statement."""

    def __init__(self, folder: Path, seed: int, experiments: int = 200, kills: int = 0) -> None:
        super().__init__(folder, 2, slots=2, lease_s=1.0)
        self.experiments, self.kills = experiments, kills
        self.random = random.Random(seed)

    def run(self) -> Verdict:
        """Everything, from the first submission to the verdict."""
        things = self._weather()
        with ThreadPoolExecutor(CLIENTS) as pool:
            plans = [(self._draw(SCRIPTS), self._draw(HABITS), self.random.random()) for _ in range(self.experiments)]
            done = []
            for number, thing in enumerate(things):     # so that each thing finds something to break
                done += [pool.submit(self._use, *plan) for plan in plans[number::len(things)]]
                thing()
            for one in done:
                one.result()
        return self.verdict()

    def _draw(self, table: dict[str, int]) -> str:
        return self.random.choices(list(table), list(table.values()))[0]

    # --- clients

    def _use(self, script: str, habit: str, share: float) -> None:
        cut: dict[str, Any] = {"segments": "auto", "intra_period": 40} if share > 0.8 else {}
        document = document_of(script, timeout_s=1 if script == "deaf" else 60, **cut)
        if habit == "twice":
            name = self.client.submit_many_times(document, 2)
        elif habit == "break off":
            name = self.client.break_off(document, share * 1.2)
        else:
            name = self.client.submit(document)
        if name is None:
            return
        self.names.append(name)
        if habit == "cancel" or script == "deaf":
            self.client.cancel(name)
        self.client.status(name)
        if share < 0.1:
            self.client.conservation()
            self.client.list_all()

    # --- weather

    def _weather(self) -> list[Callable[[], None]]:
        """What breaks, in the order that the seed gives: everything once, on a way or a service that it chooses."""
        things: list[Callable[[], None]] = [self._fault(kind) for kind in FAULTS for _ in range(2)]
        things += [self._kill(self.orchestrator), self._kill(self.random.choice(self.workers)),
                   self._sleep(self.orchestrator), self._sleep(self.random.choice(self.workers))]
        services = [self.orchestrator, *self.workers]
        things += [self._kill(self.random.choice(services)) for _ in range(self.kills)]
        self.random.shuffle(things)
        return things

    def _fault(self, kind: str) -> Callable[[], None]:
        proxy, value = self.random.choice(self.proxies), self.random.choice([0.1, 50.0, 300.0])

        def strike() -> None:
            proxy.fault(kind, value=min(value, 0.3) if kind == "delay" else value, times=5)
            time.sleep(0.2)
            proxy.heal()
            if kind == "repeat" and proxy is not self.front:
                proxy.send_again()

        return strike

    def _kill(self, program: Program) -> Callable[[], None]:
        def strike() -> None:
            program.kill()
            program.start()

        return strike

    def _sleep(self, program: Program) -> Callable[[], None]:
        def strike() -> None:
            program.signal(signal.SIGSTOP)
            time.sleep(1.5 * self.lease_s)
            program.signal(signal.SIGCONT)

        return strike


def weather(seed: int, experiments: int = 200, kills: int = 0) -> Verdict:
    """One storm in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder, \
            Storm(Path(folder), seed, experiments, kills) as storm:
        return storm.run()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--kills", type=int, default=0, help="kills of a service besides those of every storm")
    parser.add_argument("--minutes", type=float, default=0.0)
    options = parser.parse_args()
    until, seed = time.monotonic() + 60 * options.minutes, options.seed
    while True:
        began = time.monotonic()
        verdict = weather(seed, options.experiments, options.kills)
        print(f"seed {seed}, {time.monotonic() - began:.1f} s", *verdict.lines(), "", sep="\n", flush=True)
        seed += 1
        if not verdict.holds or time.monotonic() > until:
            return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
