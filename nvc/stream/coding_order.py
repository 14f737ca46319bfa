"""The order in which one GOP is coded: what a packet's head implies, and what the format asks of the references.

Theory. The pictures coded so far are a set of numbers, the same for writer and reader. In the hierarchical order that
encoders use, a P picture ends each mini-GOP, so it is found by its distance from the highest number so far, and a B
picture halves a gap, so it is found by its distances to the gap's ends: of all the gaps of that width the first. So one
byte says which picture a packet holds and what it refers to; other orders are written out.
"""

from __future__ import annotations

PICTURE_BIT, B_BIT, EXPLICIT_BIT = 0x80, 0x40, 0x20  # of a P or B packet's head
WEIGHTS_BIT = 0x04  # of one that is explicit
MAX_ALIVE = 18  # pictures, while one is decoded: what a mini-GOP of 32 needs
MAX_SHORT_DISTANCE = 16  # of a reference, in the heads that imply it
IMPLIED_WINDOW = 64  # numbers tried for an implied B picture, so that reading takes bounded time


class CodedOrder:
    """The numbers coded so far in one GOP: what heads imply, and what the format asks of an order of coding.

    Reader and writer walk the same one; each turns what :meth:`admit` and :meth:`complaint` say into its own error.
    """

    def __init__(self, first: int, structure: str) -> None:
        self.first = first
        self.structure = structure
        self.numbers = {first}
        self.top = first  # highest
        self.gap = first + 1  # lowest number not coded
        self.order: list[tuple[int, tuple[int, ...]]] = [(first, ())]

    def admit(self, number: int, references: tuple[int, ...]) -> str:
        """Take one more picture; what is wrong with it, or ""."""
        if number <= self.first or number in self.numbers:
            return f"picture {number} is coded twice or is before its GOP"
        for reference in references:
            if reference not in self.numbers:
                return f"picture {number} refers to {reference}, which is not coded before it in this GOP"
        if len(set(references)) < len(references):
            return f"picture {number} refers to {references[0]} twice"
        if self.structure == "intra" or (self.structure == "low_delay" and number < self.top):
            return f"picture {number} at this place does not go with structure {self.structure}"
        self.numbers.add(number)
        self.order.append((number, references))
        self.top = max(self.top, number)
        while self.gap in self.numbers:
            self.gap += 1
        return ""

    def implied(self, head: int) -> tuple[int, tuple[int, ...]] | None:
        """Number and references by a short head; None if there is no such picture."""
        distance, flag = (head >> 1 & 15) + 1, head & 1
        if head & B_BIT:
            for number in range(self.gap, self.gap + IMPLIED_WINDOW):
                pair = (number - distance, number + distance + flag)
                if number not in self.numbers and self.numbers.issuperset(pair):
                    return number, pair
            return None
        return self.top + distance, (self.top, self.top - distance)[: 1 + flag]

    def short_head(self, type_: str, number: int, references: tuple[int, ...]) -> int | None:
        """The short head that implies this picture; None if there is none."""
        if type_ == "P":
            head, distance, flag = PICTURE_BIT, number - self.top, len(references) - 1
        elif len(references) == 2:
            distance = number - references[0]
            head, flag = PICTURE_BIT | B_BIT, references[1] - number - distance
        else:
            return None
        if not (1 <= distance <= MAX_SHORT_DISTANCE and flag in (0, 1)):
            return None
        head |= distance - 1 << 1 | flag
        return head if self.implied(head) == (number, references) else None

    def complaint(self) -> str:
        """What is wrong with the GOP as it stands, were it to end here; or ""."""
        if self.gap <= self.top:
            return f"picture {self.gap} is missing from its GOP"
        alive = self.alive
        return f"{alive} pictures are alive at once, expected at most {MAX_ALIVE}" * (alive > MAX_ALIVE)

    @property
    def alive(self) -> int:
        """The most pictures alive while one is decoded: itself, references still wanted, those not yet shown; beyond
        MAX_ALIVE, the first number that is too many."""
        return self._lives()[0]

    def drops(self) -> list[tuple[int, ...]]:
        """For each picture in coding order, those that none after it refers to any more."""
        return self._lives()[1]

    def _lives(self) -> tuple[int, list[tuple[int, ...]]]:
        last_use = {number: place for place, (number, _) in enumerate(self.order)}
        for place, (_, references) in enumerate(self.order):
            last_use.update(dict.fromkeys(references, place))
        referred: set[int] = set()  # decoded, and wanted as a reference
        waiting: set[int] = set()  # decoded, not shown
        drops: list[tuple[int, ...]] = []
        to_show, most = self.first, 0
        for place, (number, references) in enumerate(self.order):
            referred.add(number)
            waiting.add(number)
            most = max(most, len(referred | waiting))
            if most > MAX_ALIVE:
                return most, drops  # refused whatever follows; going on would take the square of the GOP's length
            drop = tuple(n for n in dict.fromkeys((*references, number)) if last_use[n] == place)
            referred.difference_update(drop)
            drops.append(drop)
            while to_show in waiting:
                waiting.remove(to_show)
                to_show += 1
        return most, drops
