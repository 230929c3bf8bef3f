"""Writes what the golden ADE20K heads predict before they are trained, from transformers' PixioModel.

    python harness/scripts/make_initial_labels.py

The golden data holds label maps and scores of the trained heads alone. This predicts with all of them after
PROTOCOL.md section 4, stops if the trained ones differ from what is stored, and writes the label map of the first
validation image (PNG) and the counts over all (JSON) with the initial ones. Needs torch, transformers,
safetensors, numpy and pillow.
"""

import json
import pathlib

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import PixioModel

import dense_heads

GOLDEN = pathlib.Path(__file__).parent.parent / "tests" / "golden"
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
CLASSES, SIDE, STRIDE = 150, 256, 170
BLOCKS = {"linear": [7], "dpt": [1, 3, 5, 7]}


def head(tensors, name, kind):
    prefix = f"ade20k.{name}.{kind}."
    state = {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}
    made = dense_heads.linear(192, CLASSES) if name == "linear" else dense_heads.Dpt(192, CLASSES, (16, 24, 32, 32), 16)
    made.load_state_dict(state)
    return made.eval()


def windows(image):
    """Windows [N, 3, 256, 256] with zeros over the edge, and where each lies."""
    places = [(top, left) for top in range(0, image.shape[1], STRIDE) for left in range(0, image.shape[2], STRIDE)]
    cut = torch.zeros(len(places), 3, SIDE, SIDE)
    for window, (top, left) in zip(cut, places):
        part = image[:, top:top + SIDE, left:left + SIDE]
        window[:, :part.shape[1], :part.shape[2]] = part
    return cut, places


def features(model, cut):
    hidden = model(cut, output_hidden_states=True).hidden_states
    taps = {}
    for block in range(8):
        tokens = model.layernorm(hidden[block + 1])
        summary = tokens[:, :8].mean(1, keepdim=True).expand_as(tokens[:, 8:])
        taps[block] = torch.cat([tokens[:, 8:], summary], -1).transpose(1, 2).reshape(-1, 192, 16, 16)
    return taps


def labels(head, name, taps, places, size):
    taps = [taps[block] for block in BLOCKS[name]]
    logits = head(taps[0]) if name == "linear" else head(taps)
    sums = torch.zeros(CLASSES, *size)
    for scores, (top, left) in zip(logits, places):
        scores = F.interpolate(scores[None], (SIDE, SIDE), mode="bilinear", align_corners=True)[0].softmax(0)
        part = sums[:, top:top + SIDE, left:left + SIDE]
        part += scores[:, :part.shape[1], :part.shape[2]]
    return sums.argmax(0).numpy().astype(np.uint8)


@torch.no_grad()
def main():
    stored = json.loads((GOLDEN / "dense.json").read_text())["ade20k"]
    tensors = load_file(GOLDEN / "dense.safetensors")
    model = PixioModel.from_pretrained(GOLDEN).eval()
    heads = {(n, kind): head(tensors, n, kind) for n in BLOCKS for kind in ("init", "final", "fitted")}
    both, union = ({key: np.zeros(CLASSES, int) for key in heads} for _ in range(2))
    folder = GOLDEN / "initial"
    folder.mkdir(exist_ok=True)
    for index, line in enumerate((GOLDEN / "ade20k" / "val.txt").read_text().splitlines()):
        image, mask = (GOLDEN / "ade20k" / name for name in line.split())
        pixels = (np.array(Image.open(image).convert("RGB")) / 255 - MEAN) / STD
        cut, places = windows(torch.tensor(pixels.transpose(2, 0, 1), dtype=torch.float32))
        taps, target = features(model, cut), np.array(Image.open(mask))
        for (name, kind), made in heads.items():
            found = labels(made, name, taps, places, target.shape)
            counted = target != 255
            for c in range(CLASSES):
                hit, there = (found == c) & counted, (target == c) & counted
                both[name, kind][c] += (hit & there).sum()
                union[name, kind][c] += (hit | there).sum()
            if index == 0 and kind == "init":
                Image.fromarray(found).save(folder / f"{name}.png", optimize=True)
            elif index == 0:
                key = f"ade20k.{name}.val0.labels" + ("_fitted" if kind == "fitted" else "")
                differ = (found != tensors[key].numpy()).sum()
                print(f"{name} {kind}: {differ} pixels differ")
                assert differ <= 10
    scores = {}
    for name, kind in heads:
        counts = both[name, kind], union[name, kind]
        known = stored[name] if kind == "final" else stored[name].get(kind)
        if known:
            off = [int(np.abs(np.array(known[k]) - c).sum()) for k, c in zip(("intersection", "union"), counts)]
            print(f"{name} {kind}: intersections and unions {off} pixels off")
            assert max(off) <= 40
        else:
            miou = float((counts[0] / (counts[1] + 1e-6)).mean() * 100)
            scores[name] = {"miou": miou, "intersection": counts[0].tolist(), "union": counts[1].tolist()}
            print(f"{name} {kind}: mIoU {miou}, {np.count_nonzero(counts[1])} classes seen")
    (folder / "scores.json").write_text(json.dumps(scores) + "\n")


if __name__ == "__main__":
    main()
