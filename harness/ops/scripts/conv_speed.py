"""Milliseconds of examples/conv_speed.rs and of PyTorch, by turns, on two threads: medians and ratios.

`cargo build --release -p pixio-eval-ops --example conv_speed`, then
`RAYON_NUM_THREADS=2 python harness/ops/scripts/conv_speed.py target/release/examples/conv_speed`. The columns:
forward, then forward and backward, each here, in PyTorch's default layout and in its channels-last layout.
The ratios are PyTorch's time over ours, in its default and its faster layout.
"""

import argparse
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

# conv2d: batch, channels, outputs, side, kernel, stride, padding.
# conv_transpose2d: batch, channels, outputs, side, kernel. resize: batch, channels, side, new side.
CASES = """
conv2d 4 256 256 64 3 1 1
conv2d 4 256 256 128 3 1 1
conv2d 32 256 256 64 3 1 1
conv2d 32 256 256 8 3 1 1
conv2d 8 256 256 8 3 1 1
conv2d 8 256 256 16 3 1 1
conv2d 8 256 256 32 3 1 1
conv2d 8 256 256 64 3 1 1
conv2d 8 256 256 128 3 1 1
conv2d 8 1536 256 16 1 1 0
conv2d 8 1536 1024 16 1 1 0
conv2d 8 1024 1024 16 3 2 1
conv2d 8 512 256 32 3 1 1
conv2d 8 1024 256 16 3 1 1
conv2d 8 1024 256 8 3 1 1
conv2d 8 256 256 128 1 1 0
conv2d 8 256 1 128 1 1 0
conv2d 8 256 150 128 1 1 0
conv_transpose2d 8 256 256 16 4
conv_transpose2d 8 512 512 16 2
resize 8 256 64 128
resize 8 256 8 16
batch_norm 32 1536 16
""".split("\n")[1:-1]


def case(line, layout):
    op, *n = line.split()
    n = [int(i) for i in n]
    side = n[3] if op.startswith("conv") else n[2]
    x = torch.randn(n[0], n[1], side, side).contiguous(memory_format=layout).requires_grad_()
    if op == "conv2d":
        inputs = [x, torch.randn(n[2], n[1], n[4], n[4]) * 0.1, torch.randn(n[2])]
        run = lambda x, w, b: F.conv2d(x, w, b, n[5], n[6])
    elif op == "conv_transpose2d":
        inputs = [x, torch.randn(n[1], n[2], n[4], n[4]) * 0.1, torch.randn(n[2])]
        run = lambda x, w, b: F.conv_transpose2d(x, w, b, n[4])
    elif op == "resize":
        inputs, run = [x], lambda x: F.interpolate(x, (n[3], n[3]), mode="bilinear", align_corners=True)
    else:
        inputs = [x, torch.randn(n[1]), torch.randn(n[1])]
        run = lambda x, w, b: F.batch_norm(x, None, None, w, b, True)
    inputs = [t.requires_grad_() for t in inputs]
    gradient = torch.randn_like(run(*inputs))

    def both():
        torch.autograd.grad(run(*inputs), inputs, gradient)

    def forward():
        with torch.no_grad():
            run(*inputs)

    return forward, both


def milliseconds(run):
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("example")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", help="cases that start so")
    args = parser.parse_args()
    torch.set_num_threads(2)
    ours = subprocess.Popen([args.example], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print(f"{'case':<30} {'forward':>8} {'torch':>8} {'last':>8} {'both':>9} {'torch':>9} {'last':>9}   ratios")
    for line in (c for c in CASES if c.startswith(args.only)):
        rows = []
        layouts = [case(line, torch.contiguous_format), case(line, torch.channels_last)]
        for _ in range(args.repeats + 1):
            ours.stdin.write(line + "\n")
            ours.stdin.flush()
            forward, both = map(float, ours.stdout.readline().split())
            theirs = [[milliseconds(run) for run in layout] for layout in layouts]
            rows.append((forward, *(t[0] for t in theirs), both, *(t[1] for t in theirs)))
        f, f1, f2, b, b1, b2 = (statistics.median(column) for column in zip(*rows[1:]))
        ratios = f"{f1 / f:5.2f} {b1 / b:5.2f}   {min(f1, f2) / f:5.2f} {min(b1, b2) / b:5.2f}"
        print(f"{line:<30} {f:8.1f} {f1:8.1f} {f2:8.1f} {b:9.1f} {b1:9.1f} {b2:9.1f}   {ratios}", flush=True)
    ours.stdin.close()
    ours.wait()


if __name__ == "__main__":
    main()
