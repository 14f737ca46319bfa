"""A worker's slots: a number that stays, or one that follows a cluster."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

from service.processes.supervision import ProcessSpec
from service.runs.slots import Slot

CLOSE_S = 10.0      # for a slot to end its process


class SlotPool:
    """Slots of one kind. Iterating gives those of this moment; safe from any thread."""

    def __init__(self, spec: ProcessSpec, count: int, changed: Callable[[], None], log: Callable[..., None]) -> None:
        """``changed`` is called when a slot's state has changed, ``log`` as by Slot."""
        self.trouble = ""       # why there are fewer than there might be
        self._spec, self._changed, self._log = spec, changed, log
        self._wanted, self._started = count, False
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._slots = [self._new() for _ in range(count)]

    def __iter__(self) -> Iterator[Slot]:
        with self._lock:
            return iter(tuple(self._slots))

    def __getitem__(self, index: int) -> Slot:
        return self._slots[index]

    def __len__(self) -> int:
        return len(self._slots)

    def start(self) -> None:
        with self._lock:
            self._started = True
            for slot in self._slots:
                slot.start()

    def resize(self, count: int, trouble: str = "") -> None:
        """Have so many from now on; those that are busy end their run first."""
        with self._lock:
            self._wanted, self.trouble = count, trouble
            while len(self._slots) < count:
                self._slots.append(self._new())
                if self._started:
                    self._slots[-1].start()
        self._trim()

    def close(self) -> None:
        """End all; what is at work is handed back."""
        for slot in self:
            slot.close(CLOSE_S)

    def _new(self) -> Slot:
        return Slot(next(self._numbers), self._spec, self._trim, self._log)

    def _trim(self) -> None:
        """Let slots go that are too many and not at work; first those that have not come up, whose runs, if they were
        given any, are handed back."""
        with self._lock:
            idle = sorted((slot for slot in self._slots if slot.task is None or slot.state == "starting"),
                          key=lambda slot: (slot.state == "ready", slot.task is not None))
            surplus = idle[: max(0, len(self._slots) - self._wanted)]
            for slot in surplus:
                self._slots.remove(slot)
        for slot in surplus:    # each in a thread of its own: this may be the slot's
            threading.Thread(target=slot.close, args=(CLOSE_S,), name=f"close-{slot.index}", daemon=True).start()
        self._changed()
