"""Writes nearest.json: which input pixel Pillow's nearest neighbour takes for each output pixel.

    python make_nearest.py > nearest.json

Needs pillow and numpy. Each entry is [input, output, positions], where positions is given in full for
small outputs and as its SHA-256 over little-endian 32-bit words else. Half of the large sizes are ones
for which floor((i + 0.5) * input / output) would be wrong somewhere.
"""

import hashlib
import json
import random

import numpy as np
import PIL
from PIL import Image

assert PIL.__version__ == "12.0.0", f"Pillow 12.0.0 is the reference, found {PIL.__version__}"


def positions(size, out):
    ramp = Image.fromarray(np.arange(size, dtype=np.int32)[None, :])
    return np.asarray(ramp.resize((out, 1), Image.NEAREST))[0]


def entry(size, out):
    taken = positions(size, out)
    closed = ((np.arange(out) + 0.5) * (size / out)).astype(np.int32)
    text = hashlib.sha256(taken.astype("<u4").tobytes()).hexdigest()
    return [size, out, taken.tolist() if out <= 16 else text], bool((taken != closed).any())


random.seed(0)
entries = [entry(size, out)[0] for size, out in [(1, 1), (1, 5), (5, 1), (7, 3), (3, 7), (4, 12), (10, 15)]]
differing, same = [], []
while min(len(differing), len(same)) < 30:
    size = random.randint(20, 2000)
    made, differs = entry(size, random.randint(max(17, size // 2), size * 2))
    chosen = differing if differs else same
    if len(chosen) < 30:
        chosen.append(made)
print("[\n" + ",\n".join(json.dumps(made) for made in entries + differing + same) + "\n]")
