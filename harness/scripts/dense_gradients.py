"""Compares loss and every gradient of the full-size dense heads with PyTorch's (DPT of 256, 512, 1024, 1024 and
256 channels on taps of width 2 x 768, and the linear head), f32.

    cargo build --release --example dense_gradients
    python harness/scripts/dense_gradients.py [--seed 0] [--batch 2] [--threads 2] [--double]

Needs torch and safetensors. Head (PyTorch's default initialisation), taps and depth are drawn here; a fifth of the
pixels is invalid. Prints the largest difference of each head's gradients over the largest value of the same tensor,
and ends with status 1 if one is above 1e-4. With --double PyTorch computes in f64, which shows the rounding of ours.
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

BOUND = 1e-4
WIDTH, GRID, SIDE = 2 * 768, 16, 256


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

    if args.double:
        head, taps, target = head.double(), [tap.double() for tap in taps], target.double()
    loss = dense_heads.silog(dense_heads.depth(head(taps if kind == "dpt" else taps[0]), (SIDE, SIDE)), target)
    loss.backward()
    theirs = {name: p.grad for name, p in head.named_parameters() if p.grad is not None}
    theirs["loss"] = loss.detach()
    if ours.keys() != theirs.keys():
        print(f"{kind}: gradients of one side only: {sorted(ours.keys() ^ theirs.keys())}")
        return False
    errors = []
    for name, expected in theirs.items():
        if ours[name].shape != expected.shape:
            print(f"{kind}: {name} is {list(ours[name].shape)} instead of {list(expected.shape)}")
            return False
        difference = (ours[name].double() - expected.double()).abs().max()
        errors.append(((difference / expected.abs().max()).item(), name))
    # A comparison with NaN is false.
    good = all(error <= BOUND for error, _ in errors)
    errors.sort(reverse=True)
    print(f"{kind}: loss {ours['loss'].item():.7f}, PyTorch {loss.item():.7f}; {len(errors) - 1} gradients; worst:")
    for error, name in errors[:3]:
        print(f"  {error:.1e} {name}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--program", default="target/release/examples/dense_gradients")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        good = [compare(kind, args, pathlib.Path(folder)) for kind in ("dpt", "linear")]
    if not all(good):
        sys.exit(f"above {BOUND:.0e} of a gradient's scale")


if __name__ == "__main__":
    main()
