"""Writes tests/data/policy.json: losses, statistics and actions of policies trained in PyTorch.

Weights and demonstrations are drawn by a hash of two counters, which the test repeats, so that only
results are kept. Run from this directory: python make_policy_vectors.py
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

FEATURES, PROPRIO, ACTIONS = 20, 4, 4
FRAMES, BATCH, STEPS, PROBES = 72, 16, 200, 5
RUNS = {
    "norm": {"hidden": [32, 32, 32], "input_norm": 0.01, "rate": 1e-3, "weight_decay": 0.0},
    "plain": {"hidden": [48, 48], "input_norm": None, "rate": 1e-4, "weight_decay": 0.0},
    "decay": {"hidden": [24], "input_norm": 1.0, "rate": 1e-3, "weight_decay": 0.1},
}


def uniform(stream, count):
    """SplitMix64 of stream and element, in [0, 1)."""
    with np.errstate(over="ignore"):
        z = (np.uint64(stream << 40) | np.arange(count, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return z.astype(np.float64) / 2.0**53


def draw(stream, *shape, bound=1.0):
    values = ((2.0 * uniform(stream, int(np.prod(shape))) - 1.0) * bound).astype(np.float32)
    return torch.from_numpy(values.reshape(shape))


class Policy(nn.Module):
    def __init__(self, inputs, hidden, input_norm):
        super().__init__()
        widths = [inputs, *hidden, ACTIONS]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.norm = nn.BatchNorm1d(inputs) if input_norm is not None else None
        for index, layer in enumerate(self.layers):
            bound = 1.0 / np.sqrt(layer.in_features)
            layer.weight.data = draw(2 * index, *layer.weight.shape, bound=bound)
            layer.bias.data = draw(2 * index + 1, *layer.bias.shape, bound=bound)
        if self.norm is not None:
            self.norm.weight.data *= input_norm
            self.norm.bias.data *= input_norm

    def forward(self, x):
        x = x if self.norm is None else self.norm(x)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


def observations(start, count):
    """Three vectors a frame as differences and the last one, then the robot's own state."""
    e0, e1, e2 = (draw(100 + start + i, count, FEATURES) for i in range(3))
    proprio = draw(103 + start, count, PROPRIO)
    # A constant measurement and one that is always 0.
    proprio[:, 0], proprio[:, 1] = 0.25, 0.0
    return torch.cat([e1 - e0, e2 - e1, e2, proprio], 1)


def train(run):
    settings = RUNS[run]
    inputs = observations(0, FRAMES)
    targets = torch.sin(3.0 * inputs[:, :ACTIONS]) + 0.5 * draw(104, FRAMES, ACTIONS)
    policy = Policy(inputs.shape[1], settings["hidden"], settings["input_norm"])
    options = {"lr": settings["rate"], "betas": (0.9, 0.999), "eps": 1e-8}
    if settings["weight_decay"]:
        adam = torch.optim.AdamW(policy.parameters(), weight_decay=settings["weight_decay"], **options)
    else:
        adam = torch.optim.Adam(policy.parameters(), **options)
    losses = []
    policy.train()
    for step in range(STEPS):
        # The last batch of an epoch is a short one.
        start = step * BATCH % (-(-FRAMES // BATCH) * BATCH)
        batch = slice(start, start + BATCH)
        loss = nn.functional.mse_loss(policy(inputs[batch]), targets[batch])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    policy.eval()
    probes = observations(50, PROBES)
    with torch.no_grad():
        actions = policy(probes)
    record = {**settings, "losses": losses, "actions": actions.flatten().tolist()}
    if policy.norm is not None:
        record["running_mean"] = policy.norm.running_mean.tolist()
        record["running_var"] = policy.norm.running_var.tolist()
    return record, probes


def main():
    torch.set_num_threads(1)
    runs = {}
    for run in RUNS:
        runs[run], probes = train(run)
    vectors = {
        "features": FEATURES,
        "proprio": PROPRIO,
        "actions": ACTIONS,
        "frames": FRAMES,
        "batch": BATCH,
        "probes": probes.flatten().tolist(),
        "runs": runs,
    }
    Path("../tests/data/policy.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
