"""The dense heads of PROTOCOL.md section 5 and the depth loss of section 3 in PyTorch, for the scripts beside."""

import torch
from torch import nn
from torch.nn import functional as F

MIN_DEPTH, MAX_DEPTH = 0.001, 10.0


def linear(width, outputs=1):
    return nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, outputs, 1))


class ResidualUnit(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        self.resConfUnit1 = ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)

    def forward(self, deeper, level, size):
        x = level if deeper is None else deeper + self.resConfUnit1(level)
        return self.out_conv(F.interpolate(self.resConfUnit2(x), size, mode="bilinear", align_corners=True))


class Dpt(nn.Module):
    def __init__(self, width, outputs=1, channels=(256, 512, 1024, 1024), features=256):
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(width, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList([
            nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
            nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
            nn.Identity(),
            nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
        ])
        self.scratch = nn.Module()
        for i, c in enumerate(channels, 1):
            self.scratch.add_module(f"layer{i}_rn", nn.Conv2d(c, features, 3, padding=1, bias=False))
            self.scratch.add_module(f"refinenet{i}", Fusion(features))
        self.scratch.output_conv = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1), nn.ReLU(), nn.Conv2d(features, outputs, 1)
        )

    def forward(self, taps):
        levels = []
        for i, (tap, project, resize) in enumerate(zip(taps, self.projects, self.resize_layers), 1):
            levels.append(getattr(self.scratch, f"layer{i}_rn")(resize(project(tap))))
        path = None
        for i in (4, 3, 2, 1):
            h, w = levels[i - 1].shape[2:]
            size = levels[i - 2].shape[2:] if i > 1 else (2 * h, 2 * w)
            path = getattr(self.scratch, f"refinenet{i}")(path, levels[i - 1], size)
        return self.scratch.output_conv(path)


def depth(logits, size):
    """Metres [B, H, W] from a head's logits."""
    return torch.sigmoid(F.interpolate(logits, size, mode="bilinear", align_corners=True)).squeeze(1) * MAX_DEPTH


def silog(predicted, target):
    valid = (target >= MIN_DEPTH) & (target <= MAX_DEPTH)
    d = target[valid].log() - predicted[valid].clamp(min=MIN_DEPTH).log()
    return (d.square().mean() - 0.5 * d.mean().square()).sqrt()
