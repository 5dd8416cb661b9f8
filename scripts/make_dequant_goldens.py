#!/usr/bin/env python3
"""Writes tests/goldens/dequant.json: a few random blocks of every storage type and what the `gguf` package makes of them.

The package is the reference implementation in Python, independent of parallel/checkpoint/dequantize.cc. Run it in a venv outside the
source tree:  python3 -m venv /tmp/v && /tmp/v/bin/pip install gguf==0.19.0 && /tmp/v/bin/python scripts/make_dequant_goldens.py FILE.gguf...
Of each FILE.gguf named, it also stores a checksum of all dequantised tensors.
"""
import importlib.metadata
import json
import pathlib
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

# Byte offsets of the float16 scales in a block: random bits there would mostly be huge, infinite or NaN.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
SCALE_VALUES = [0.0123, -1.7, 6.1e-5, 3.0e-7, 65504.0, -0.0]  # the fourth is subnormal in float16
PLAIN = {
    "F32": np.array([0.0, -0.0, 1.5, -3.25e-40, 3.4e38, float("inf"), 7.0, -1e-10], dtype="<f4").view(np.uint8),
    "F16": np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C01, 0x7BFF, 0xFC00], dtype="<u2").view(np.uint8),
    "BF16": np.array([0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x3F81, 0x7F7F, 0xFF80], dtype="<u2").view(np.uint8),
}


def quantised_blocks(name, rng):
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    num_blocks = 6 if elements == 32 else 3
    blocks = rng.integers(0, 256, (num_blocks, size), dtype=np.uint8)
    for block in range(num_blocks):
        for i, offset in enumerate(SCALES[name]):
            scale = np.array([SCALE_VALUES[(block + 2 * i) % len(SCALE_VALUES)]], dtype="<f2")
            blocks[block, offset : offset + 2] = scale.view(np.uint8)
    return blocks.reshape(-1)


def checksum(path):
    """Sum over all tensors (by name) and elements i (from 0 in each) of bits(x[i]) * (2i + 1), modulo 2^64."""
    total = np.uint64(0)
    tensors = GGUFReader(path).tensors
    for tensor in tensors:
        bits = dequantize(tensor.data, tensor.tensor_type).astype("<f4").reshape(-1).view("<u4").astype("<u8")
        total += (bits * (2 * np.arange(bits.size, dtype="<u8") + 1)).sum(dtype="<u8")
    return {"num_tensors": len(tensors), "checksum": str(total)}


def main():
    rng = np.random.default_rng(20240607)
    result = {"source": f"scripts/make_dequant_goldens.py, gguf {importlib.metadata.version('gguf')}, numpy {np.__version__}",
              "note": "blocks: bytes of the file; floats: bits of the float32 values, little-endian; both in hex", "types": {}, "files": {}}
    for name in [*PLAIN, *SCALES]:
        raw = PLAIN[name] if name in PLAIN else quantised_blocks(name, rng)
        values = dequantize(raw, GGMLQuantizationType[name]).astype("<f4")
        result["types"][name] = {"blocks": raw.tobytes().hex(), "floats": values.tobytes().hex()}
    for file in sys.argv[1:]:
        result["files"][pathlib.Path(file).name] = checksum(file)
    path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "goldens" / "dequant.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
