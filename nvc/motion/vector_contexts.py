"""The adaptive contexts of the motion syntax (nvc/motion/vectors.py): which there are, and what they start from.

START has two bytes for each: the probability of a 0 in 1/256, and how many bits it counts as having seen. Both were
counted over the fields of 24 training clips at four steps by train/motion_contexts.py.
"""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nvc.entropy.range_coder import fresh_contexts

CANDIDATES = 7                           # to merge with, at most
DIGITS_MAX = 14                          # binary digits of a difference: it is below 2**14

C_SPLIT = 0                              # [32 or 16][neighbours split further: 0..2]
C_MERGE = C_SPLIT + 6                    # [32, 16, 8][neighbours merged: 0..2]
C_INDEX = C_MERGE + 9                    # [length of the list: 0..7][place in it]
C_INTRA = C_INDEX + (CANDIDATES + 1) * CANDIDATES       # [neighbours intra: 0..2]
C_BOTH = C_INTRA + 3                     # [neighbours both: 0..2]
C_WHICH = C_BOTH + 3                     # [backward neighbours - forward neighbours + 2]
C_DIGITS = C_WHICH + 5                   # [both?][how much the neighbours differ: 0..2][y, x][digits so far: 0..13]
C_SECOND = C_DIGITS + 2 * 3 * 2 * DIGITS_MAX   # [digits]
CONTEXTS = C_SECOND + DIGITS_MAX + 1

START = bytes.fromhex("""
eb077408270dd70c9216501273032f021107890760073f08810e600e400b8001800180018001800180018001800180018001800180018001
8001c002800180018001800180018001a004cb04800180018001800180018e049f08c803800180018001800174078f078802c80380018001
80015d0c7e0855029606c403800180014f0d6c0c420282079b06bb028001ff12940c4702d308ae069205e70dd10695035b0536055503af03
82016c016b0374027902ba03d90cf70280018001800180015504a90276025c01580260027401af01bb01f806c00180018001800139097905
8b0596048d0382038b01ad02d213e903d501800180018001380a750584098e03850378017c019801b725f30be6018001800180011a0b2606
39074f07610474038803a202d407f81aee018001800180011c0c240736074e085b04680479029702bf04fb39f2018001800180017208c003
a50298018a019d0fa301cc03e601800180018001800180017809b804a3018701ac0187049801c203ee01800180018001800180014c057b03
9003a003aa029f03ac01d409e202c00180018001800180014b0977039003a405aa029203a102ae01e204e001800180018001800123092505
430663077e0494039b01cc04f910e0018001800180018001240c2705450763067a078e039c02b902dc01fb03800180018001800180018001
8a3a883c8f3c9235921ca708a606ca07fa038001800180018001
""")


def start_contexts() -> NDArray[np.int32]:
    """The contexts that every picture begins with."""
    start = np.frombuffer(START, np.uint8).reshape(CONTEXTS, 2)
    return fresh_contexts(start[:, 0] / 256, start[:, 1])
