"""One of CompressAI's models, coding what it is asked for: python bench/others/neural.py MODEL --threads N

Run by bench/speed.py in an environment that has them (bench/requirements-others.txt).  Each line of standard input is
one JSON object: ``file`` (.npy, uint8 [pictures, height, width, 3], RGB) and ``pictures``, how many of it; the answer
is a line with ``encode_s`` and ``decode_s``, entropy coding included, and ``bytes``.  Weights are random: the
arithmetic is that of trained ones, the rate is not.  Sides are filled up to the multiples of 64 or 128 that they need.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

# CompressAI lists torchvision's transforms at import and uses none of them here; a torchvision that was built for
# another torch than this one cannot be imported at all.
sys.modules["torchvision"] = types.ModuleType("torchvision")
sys.modules["torchvision.transforms"] = types.ModuleType("torchvision.transforms")
sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]

from compressai.zoo import mbt2018_mean, ssf2020  # noqa: E402  (after what stands in)

QUALITY = 4


def tensors_of(file: str, pictures: int, multiple: int) -> list[torch.Tensor]:
    """(1, 3, H, W), 0…1, sides filled up with the last samples."""
    made = []
    for picture in np.load(file, mmap_mode="r")[:pictures]:
        x = torch.from_numpy(np.array(picture.transpose(2, 0, 1)[None], np.float32)) / 255
        height, width = x.shape[2:]
        made.append(F.pad(x, (0, -width % multiple, 0, -height % multiple), "replicate"))
    return made


def length(strings: Any) -> int:
    """Bytes in lists, and lists in dictionaries, of strings."""
    if isinstance(strings, bytes):
        return len(strings)
    return sum(length(part) for part in (strings.values() if isinstance(strings, dict) else strings))


def still(net: Any, x: list[torch.Tensor]) -> tuple[int, Callable[[], list[torch.Tensor]]]:
    """Code the pictures each alone; bytes, and what decodes them."""
    coded = [net.compress(picture) for picture in x]
    size = length([each["strings"] for each in coded])
    return size, lambda: [net.decompress(each["strings"], each["shape"])["x_hat"] for each in coded]


def moving(net: Any, x: list[torch.Tensor]) -> tuple[int, Callable[[], list[torch.Tensor]]]:
    """Code them as a clip; bytes, and what decodes it."""
    strings, shapes = net.compress(x)
    return length(strings), lambda: net.decompress(strings, shapes)


# Its maker, what both sides are multiples of, how it codes.
MODELS = {"mbt2018-mean": (mbt2018_mean, 64, still), "ssf2020": (ssf2020, 128, moving)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    make, multiple, code = MODELS[options.model]
    net = make(quality=QUALITY, pretrained=False).eval()
    net.update()
    with torch.inference_mode():
        for line in sys.stdin:
            asked = json.loads(line)
            x = tensors_of(asked["file"], asked["pictures"], multiple)
            began = time.perf_counter()
            size, decode = code(net, x)
            middle = time.perf_counter()
            made = decode()
            end = time.perf_counter()
            if len(made) != len(x):
                raise RuntimeError(f"{options.model} gave {len(made)} pictures of {len(x)}")
            print(json.dumps({"encode_s": middle - began, "decode_s": end - middle, "bytes": size}), flush=True)


if __name__ == "__main__":
    main()
