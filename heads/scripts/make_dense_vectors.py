"""Writes tests/data/dense.safetensors and dense.json: training steps of the dense heads in PyTorch.

Random features stand in for an encoder's. The heads, losses and schedule below are written after
PROTOCOL.md sections 3 to 5. Run from this directory: python make_dense_vectors.py
"""

import json
import math
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

DIM, SUMMARY, BATCH, GROUPS, STEPS = 12, 2, 4, 2, 4
GRIDS = [((4, 4), (18, 20)), ((3, 5), (15, 23))]  # grid, crop; steps alternate
CHANNELS, FEATURES, CLASSES = (5, 6, 7, 8), 8, 5
DEPTH = (0.001, 10.0)
IGNORE = 255


class Unit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fuse(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1 = Unit(width)
        self.resConfUnit2 = Unit(width)

    def forward(self, deeper, skip, size):
        x = skip if deeper is None else deeper + self.resConfUnit1(skip)
        return self.out_conv(bilinear(self.resConfUnit2(x), size))


def bilinear(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class Dpt(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        c = CHANNELS
        self.projects = nn.ModuleList(nn.Conv2d(width, n, 1) for n in c)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(c[0], c[0], 4, stride=4),
                nn.ConvTranspose2d(c[1], c[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(c[3], c[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = nn.Module()
        for i, n in enumerate(c, 1):
            setattr(self.scratch, f"layer{i}_rn", nn.Conv2d(n, FEATURES, 3, padding=1, bias=False))
            setattr(self.scratch, f"refinenet{i}", Fuse(FEATURES))
        self.scratch.output_conv = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.ReLU(), nn.Conv2d(FEATURES, outputs, 1)
        )

    def forward(self, taps):
        maps = [r(p(t)) for p, r, t in zip(self.projects, self.resize_layers, taps)]
        maps = [getattr(self.scratch, f"layer{i}_rn")(m) for i, m in enumerate(maps, 1)]
        path = None
        for i in (4, 3, 2, 1):
            skip = maps[i - 1]
            size = maps[i - 2].shape[-2:] if i > 1 else [2 * n for n in skip.shape[-2:]]
            path = getattr(self.scratch, f"refinenet{i}")(path, skip, size)
        return self.scratch.output_conv(path)


class Linear(nn.Sequential):
    def __init__(self, width, outputs):
        super().__init__(nn.BatchNorm2d(width), nn.Conv2d(width, outputs, 1))

    def forward(self, taps):
        return super().forward(taps[-1])


def joined(patches, summary, grid):
    mean = summary.mean(1, keepdim=True).expand(-1, patches.shape[1], -1)
    return torch.cat([patches, mean], 2).transpose(1, 2).unflatten(2, grid)


def predict(task, logits, crop):
    logits = bilinear(logits, crop)
    return torch.sigmoid(logits) * DEPTH[1] if task == "depth" else logits


def group_loss(task, prediction, target):
    if task == "segmentation":
        return F.cross_entropy(prediction, target.long(), ignore_index=IGNORE)
    valid = (target >= DEPTH[0]) & (target <= DEPTH[1])
    d = target[valid].log() - prediction[:, 0][valid].clamp(min=DEPTH[0]).log()
    return (d.pow(2).mean() - 0.5 * d.mean().pow(2)).sqrt()


def rate_after(index, peak, warmup):
    if index < warmup:
        return peak * index / warmup
    return peak * (1 - (index - warmup) / (STEPS - warmup)) ** 0.9


def train(task, kind, batches, tensors):
    torch.manual_seed({"linear": 1, "dpt": 2}[kind])
    outputs = 1 if task == "depth" else CLASSES
    head = {"linear": Linear, "dpt": Dpt}[kind](2 * DIM, outputs)
    prefix = f"{task}.{kind}"

    def keep(stage):
        for name, value in head.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                tensors[f"{prefix}.{stage}.{name}"] = value.detach().clone()

    keep("init")
    taps, targets, crop = batches[0]
    with torch.no_grad():
        first = predict(task, head.eval()(taps), crop)
    # As probabilities, or before the multiplication by the largest depth.
    first = first.softmax(1) if task == "segmentation" else first / DEPTH[1]
    tensors[f"{prefix}.forward0"] = first[:1]
    peak = {"linear": 2e-4, "dpt": 1e-4}[kind]
    warmup = int(0.25 * STEPS) if task == "depth" else 0
    adam = torch.optim.AdamW(head.parameters(), lr=peak, betas=(0.9, 0.999), weight_decay=0.01)
    record = {"peak": peak, "warmup": 0.25 if warmup else 0.0, "losses": [], "rates": [], "grad_norms": []}
    head.train()
    for step, (taps, targets, crop) in enumerate(batches):
        prediction = predict(task, head(taps), crop)
        groups = zip(prediction.chunk(GROUPS), targets[task].chunk(GROUPS))
        losses = [group_loss(task, p, t) for p, t in groups]
        loss = sum(losses) / len(losses)
        adam.zero_grad()
        loss.backward()
        norms = [p.grad.double().norm() ** 2 for p in head.parameters() if p.grad is not None]
        record["losses"].append(loss.item())
        record["rates"].append(adam.param_groups[0]["lr"])
        record["grad_norms"].append(math.sqrt(sum(norms)))
        adam.step()
        adam.param_groups[0]["lr"] = rate_after(step, peak, warmup)
    keep("final")
    return record


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tensors, batches = {}, []
    for step in range(STEPS):
        grid, crop = GRIDS[step % len(GRIDS)]
        patches = torch.randn(4, BATCH, grid[0] * grid[1], DIM)
        summary = torch.randn(4, BATCH, SUMMARY, DIM)
        # Smooth scenes with holes, and some pixels beyond the range.
        rough = torch.rand(BATCH, 2, 3, 4)
        depth = bilinear(rough[:, :1], crop)[:, 0] * 11
        depth[torch.rand(depth.shape) < 0.2] = 0
        depth[1, : crop[0] // 2] = 0
        labels = (bilinear(rough[:, 1:], crop)[:, 0] * CLASSES).to(torch.uint8)
        labels[torch.rand(labels.shape) < 0.15] = IGNORE
        labels[2, :, crop[1] // 3 :] = IGNORE
        for name, value in [("patches", patches), ("summary", summary), ("depth", depth), ("labels", labels)]:
            tensors[f"batch{step}.{name}"] = value
        taps = [joined(p, s, grid) for p, s in zip(patches, summary)]
        batches.append((taps, {"depth": depth, "segmentation": labels}, crop))
    runs = {
        f"{task}.{kind}": train(task, kind, batches, tensors)
        for task in ("depth", "segmentation")
        for kind in ("linear", "dpt")
    }
    out = Path("../tests/data")
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "dense.safetensors")
    settings = {
        "groups": GROUPS,
        "classes": CLASSES,
        "channels": CHANNELS,
        "features": FEATURES,
        "grids": [grid for grid, _ in GRIDS],
    }
    (out / "dense.json").write_text(json.dumps({**settings, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
