"""Decode a stream from its bytes alone, in the arithmetic conditions asked for; prints the SHA-256 of the pictures.

python decode_variant.py STREAM [--threads N] [--no-onednn] [--wide] [--in-tensors] [--kernels]
"""

import argparse
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import codec
from nvc.network import cpu_reconstruction, fixed_point, model


def main() -> None:
    a = argparse.ArgumentParser()
    a.add_argument("stream", type=Path)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--no-onednn", action="store_true")
    a.add_argument("--wide", action="store_true", help="without products of 8 bits")
    a.add_argument("--in-tensors", action="store_true", help="the way of other devices")
    a.add_argument("--kernels", action="store_true", help="print the kernels in use as well")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.backends.mkldnn.enabled = not o.no_onednn
    if o.wide:
        fixed_point.faster = lambda layer: False
    if o.in_tensors:
        cpu_reconstruction.reconstruct = cpu_reconstruction.in_tensors
    digest = hashlib.sha256()
    for picture in codec.get("nvc").decode(o.stream.read_bytes()):
        for plane in picture:
            digest.update(plane)
    kernels = sorted(set(model.load_model(model.DEFAULT_MODEL).network.kernels.values()))
    print(digest.hexdigest(), *(kernels if o.kernels else []))


if __name__ == "__main__":
    main()
