"""Writes the gradient of the golden grouped loss in 64 bits, from transformers' PixioModel.

    python harness/scripts/make_grouped_gradient.py

The gradient stored in the golden data is one 32-bit run: torch itself differs from it by 2e-4 of its scale with
another number of threads. Needs torch, transformers, safetensors, numpy and pillow.
"""

import json
import pathlib

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import PixioModel

GOLDEN = pathlib.Path(__file__).parent.parent / "tests" / "golden"
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
TOP, BOTTOM, LEFT, RIGHT = 45, 471, 41, 601


def main():
    grouped = json.loads((GOLDEN / "dense.json").read_text())["grouped"]
    tensors = load_file(GOLDEN / "dense.safetensors")
    lines = [line.split() for line in (GOLDEN / "nyuv2" / "train.txt").read_text().splitlines()]
    images, depths = [], []
    for crop in grouped["crops"]:
        image, depth = (GOLDEN / "nyuv2" / name for name in lines[crop["index"]])
        rows, columns = slice(crop["top"], crop["top"] + 256), slice(crop["left"], crop["left"] + 256)
        pixels = np.array(Image.open(image).convert("RGB"))[TOP:BOTTOM, LEFT:RIGHT][rows, columns]
        images.append(((pixels / 255 - MEAN) / STD).astype(np.float32).transpose(2, 0, 1))
        metres = np.array(Image.open(depth)).astype(np.float32)[TOP:BOTTOM, LEFT:RIGHT][rows, columns] / 1000
        depths.append(metres)
    images, depths = torch.tensor(np.stack(images)).double(), torch.tensor(np.stack(depths)).double()
    model = PixioModel.from_pretrained(GOLDEN).eval().double()
    with torch.no_grad():
        tokens = model(images).last_hidden_state
    summary = tokens[:, :8].mean(1, keepdim=True).expand_as(tokens[:, 8:])
    features = torch.cat([tokens[:, 8:], summary], -1).transpose(1, 2).reshape(8, 192, 16, 16)
    norm, conv = torch.nn.BatchNorm2d(192).double(), torch.nn.Conv2d(192, 1, 1).double()
    for prefix, module in (("grouped.init.0.", norm), ("grouped.init.1.", conv)):
        state = {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict(state, strict=False)
    logits = torch.nn.functional.interpolate(conv(norm(features)), (256, 256), mode="bilinear", align_corners=True)
    predicted = logits.sigmoid()[:, 0] * 10
    losses = []
    for group in range(grouped["groups"]):
        part = slice(2 * group, 2 * group + 2)
        valid = (depths[part] >= 0.001) & (depths[part] <= 10)
        d = depths[part][valid].log() - predicted[part][valid].clamp(min=0.001).log()
        losses.append((d.square().mean() - 0.5 * d.mean().square()).sqrt())
    loss = torch.stack(losses).mean()
    loss.backward()
    print(f"loss {loss.item():.9f}, stored {grouped['loss']:.9f}")
    save_file({"grad.1.weight": conv.weight.grad.float().contiguous()}, GOLDEN / "grouped64.safetensors")


if __name__ == "__main__":
    main()
