"""The adaptive contexts of the motion syntax (nvc/vectors.py): which there are, and what they start from.

START has two bytes for each: the probability of a 0 in 1/256, and how many bits it counts as having seen. Both were
counted over the fields of 24 training clips at four steps by train/motion_contexts.py; they save 1.9 % of the motion
of the test clips against starting from one half.
"""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nvc.rangecoder import fresh_contexts

CANDIDATES = 6                           # to merge with, at most
DIGITS_MAX = 14                          # binary digits of a difference: it is below 2**14

C_SPLIT = 0                              # [32 or 16][neighbours split further: 0..2]
C_MERGE = C_SPLIT + 6                    # [32, 16, 8][neighbours merged: 0..2]
C_INDEX = C_MERGE + 9                    # [length of the list: 0..6][place in it]
C_INTRA = C_INDEX + 7 * CANDIDATES       # [neighbours intra: 0..2]
C_BOTH = C_INTRA + 3                     # [neighbours both: 0..2]
C_WHICH = C_BOTH + 3                     # [backward neighbours - forward neighbours + 2]
C_DIGITS = C_WHICH + 5                   # [both?][how much the neighbours differ: 0..2][y, x][digits so far: 0..13]
C_SECOND = C_DIGITS + 2 * 3 * 2 * DIGITS_MAX   # [digits]
CONTEXTS = C_SECOND + DIGITS_MAX + 1

START = bytes.fromhex("""
eb0774072909d40b9412520b7a02330214058c0665064405800b610d4508800180018001800180018001800180018001800180018001af02
800180018001800180019f03b902800180018001800182059e05c502800180018001620890047b01c9028001800158066f045b01a104be02
8001ff1391065104ce06a8068c04e20aca05940360043f035b03ab0285017201700279027a01b801d405f70280018001800180015c03a602
790263015e0261027301ad01c402fd0580018001800180013f067904890494038b0286029002a802df14ee02c0018001800180013d067404
80058f03840277017d019e01c108e509f001800180018001210629053a055105620375038803a102d706f918eb0180018001800122062805
36064f055e03660376029302c104f703f8028001800180017c05bc029b018901870181019a01e206eb01800180018001800180018006b302
9a018301910178018501bf01da02d501800180018001800157047b0291039a02a6029503b901d404e502c001800180018001800155067703
89039e03a40292039a01a101c801f40180018001800180012b062d04440464057e038a039d01c606e712f70280018001800180012d062e04
4405630677068b029102b202cc01fd0680018001800180018001800189398b3c903c95379312a806a809cb08fc048001800180018001
""")


def start_contexts() -> NDArray[np.int32]:
    """The contexts that every picture begins with."""
    start = np.frombuffer(START, np.uint8).reshape(CONTEXTS, 2)
    return fresh_contexts(start[:, 0] / 256, start[:, 1])
