"""Times our encoder and transformers' PixioModel (sdpa) side by side: f32, 256x256, the same cores.

    cargo build --release --example encoder_speed
    python harness/scripts/encoder_speed.py [--size b] [--batch 8] [--rounds 5] [--threads 2]

Needs torch and transformers. The two take turns; each round is the median of three passes. Prints seconds a
pass, images a second, and the median ratio of the rounds (above 1: ours is faster).
"""

import argparse
import os
import statistics
import subprocess
import time

import torch
from transformers import PixioConfig, PixioModel

SIZES = {"b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
PASSES = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="b")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", default="target/release/examples/encoder_speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    width, depth, heads = SIZES[args.size]
    config = PixioConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads)
    model = PixioModel._from_config(config, attn_implementation="sdpa").eval()
    images = torch.randn(args.batch, 3, 256, 256)
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
    command = [args.program, f"pixio-{args.size}", str(args.batch), str(PASSES)]

    def theirs():
        seconds = []
        with torch.inference_mode():
            for _ in range(PASSES):
                began = time.perf_counter()
                model(images)
                seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    def ours():
        printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        return statistics.median(map(float, printed.split()))

    theirs()
    rounds = [(ours(), theirs()) for _ in range(args.rounds)]
    for a, b in rounds:
        print(f"ours {a:.3f} s ({args.batch / a:.2f} images/s)   PyTorch {b:.3f} s ({args.batch / b:.2f} images/s)   {b / a:.2f}x")
    ratio = statistics.median(b / a for a, b in rounds)
    print(f"pixio-{args.size} batch {args.batch}, {args.threads} threads, torch {torch.__version__}: {ratio:.2f}x PyTorch")


if __name__ == "__main__":
    main()
