"""CRC-32C: the cyclic redundancy check with Castagnoli's polynomial, as iSCSI uses it (RFC 3720, 12.1 and B.4).

The polynomial is 0x1EDC6F41, read bit-reversed as 0x82F63B78; the register starts as all ones and leaves inverted.
It finds every burst of up to 32 bits, and every 1 to 5 flipped bits in up to 655 bytes (Koopman, DSN 2002).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_REVERSED_POLYNOMIAL = 0x82F63B78


def _table() -> NDArray[np.uint32]:
    """(256,) what each value of a byte does to the register as it leaves it."""
    table = np.arange(256)
    for _ in range(8):
        table = (table >> 1) ^ (table & 1) * _REVERSED_POLYNOMIAL
    return table.astype(np.uint32)


_TABLE = _table()


@njit(cache=True)
def _run(register: int, data: NDArray[np.uint8], table: NDArray[np.uint32]) -> int:
    for byte in data:
        register = (register >> 8) ^ int(table[(register ^ byte) & 255])
    return register


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The CRC-32C of the bytes, 0…2³² - 1."""
    values = np.frombuffer(data, np.uint8)
    values.flags.writeable = False  # one compiled version for bytes and bytearray alike
    return int(_run(0xFFFFFFFF, values, _TABLE)) ^ 0xFFFFFFFF


def warm() -> None:
    """Compile into the cache."""
    crc32c(b"123456789")
