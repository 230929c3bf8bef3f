"""Compares loss and every gradient of the full-size dense heads with PyTorch's in f64 (DPT of 256, 512, 1024, 1024
and 256 channels on taps of width 2 x 768, and the linear head): ours in f32, and beside it PyTorch's own f32.

    cargo build --release --example dense_gradients
    python harness/scripts/dense_gradients.py [--seed 0] [--batch 2] [--threads 2]

Needs torch and safetensors. Head (PyTorch's default initialisation), taps and depth are drawn here; a fifth of the
pixels is invalid. A gradient's distance is its largest difference over the largest value of the same tensor. Where
rounding moves a value across ReLU's corner the gradient jumps, in PyTorch's f32 too, so ours may be 1.5 times as far
from f64 as the farthest of PyTorch's f32, and 1e-4 in any case; else the status is 1.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import dense_heads

BOUND, ROOM = 1e-4, 1.5
WIDTH, GRID, SIDE = 2 * 768, 16, 256


def gradients(kind, head, taps, target):
    """Gradients by name, and the loss, in the type of what is given."""
    loss = dense_heads.silog(dense_heads.depth(head(taps if kind == "dpt" else taps[0]), (SIDE, SIDE)), target)
    loss.backward()
    found = {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}
    head.zero_grad()
    return found | {"loss": loss.detach()}


def distances(found, expected):
    """Largest first; a NaN is infinitely far."""
    errors = []
    for name, value in expected.items():
        error = ((found[name].double() - value).abs().max() / value.abs().max()).item()
        errors.append((error if error == error else float("inf"), name))
    return sorted(errors, reverse=True)


def compare(kind, args, folder):
    if kind == "dpt":
        head, count = dense_heads.Dpt(WIDTH), 4
    else:
        head, count = dense_heads.linear(WIDTH), 1
    taps = [torch.randn(args.batch, WIDTH, GRID, GRID) for _ in range(count)]
    target = 0.5 + 9.0 * torch.rand(args.batch, SIDE, SIDE)
    target[torch.rand(target.shape) < 0.2] = 0.0
    inputs = {f"tap.{i}": tap for i, tap in enumerate(taps)}
    save_file(head.state_dict(), folder / "head.safetensors")
    save_file(inputs | {"depth": target}, folder / "inputs.safetensors")
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
    subprocess.run([args.program, kind, str(folder)], check=True, env=environment)
    ours = load_file(folder / "gradients.safetensors")

    theirs = gradients(kind, head, taps, target)
    exact = gradients(kind, head.double(), [tap.double() for tap in taps], target.double())
    if ours.keys() != exact.keys():
        print(f"{kind}: gradients of one side only: {sorted(ours.keys() ^ exact.keys())}")
        return False
    for name, expected in exact.items():
        if ours[name].shape != expected.shape:
            print(f"{kind}: {name} is {list(ours[name].shape)} instead of {list(expected.shape)}")
            return False
    sides = {"ours": distances(ours, exact), "PyTorch": distances(theirs, exact)}
    print(f"{kind}: {len(exact) - 1} gradients; loss in f64 {exact['loss'].item():.9f}; farthest from f64:")
    for (side, errors), loss in zip(sides.items(), (ours["loss"], theirs["loss"])):
        worst = ", ".join(f"{error:.1e} {name}" for error, name in errors[:3])
        print(f"  {side:8} loss {loss.item():.9f}; {worst}")
    bound = max(BOUND, ROOM * sides["PyTorch"][0][0])
    print(f"  bound    {bound:.1e}")
    return sides["ours"][0][0] <= bound


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", default="target/release/examples/dense_gradients")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        good = [compare(kind, args, pathlib.Path(folder)) for kind in ("dpt", "linear")]
    if not all(good):
        sys.exit("farther from f64 than the bound")


if __name__ == "__main__":
    main()
