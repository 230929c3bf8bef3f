"""Times dense training and evaluation in ours and in PyTorch side by side: f32, 256x256, the same cores.

    cargo build --release --example dense_speed
    python harness/scripts/dense_speed.py [--size b] [--batch 4] [--rounds 5] [--threads 2]
    python harness/scripts/dense_speed.py --memory [--size b] [--batch 32]

Needs torch and transformers (PixioModel with sdpa; the heads are in dense_heads.py). A training step encodes a batch
at the head's taps, then runs the head's forward, loss, backward and AdamW; the image is one of 426x560 by sliding
window, 12 windows in one batch, encoded, predicted by DPT and averaged. The two take turns within each round. Prints
medians and the median ratio of the rounds (above 1: ours is faster). Then, for ours alone, the encoder E, the linear
head L, the DPT head D, and S, both heads on one pass, with (2E+L+D)/S over its bound (2E+L+D)/(E+L+D), medians of
the rounds' own values.

With --memory: the peak resident memory (VmHWM of /proc) of ours after three DPT steps in a process of its own, at
two small batches, and at the batch asked for: measured if the line through the two stays below --limit, else
that line's value.
"""

import argparse
import os
import statistics
import subprocess
import time

import torch
from transformers import PixioConfig, PixioModel

import dense_heads

SIZES = {"b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
SIDE, STRIDE, PATCH, IMAGE = 256, 170, 16, (426, 560)
COMPARED = ["dpt-step", "linear-step", "image"]
PARTS = ["encode", "linear", "dpt", "shared"]


class Theirs:
    def __init__(self, size, batch):
        width, depth, heads = SIZES[size]
        config = PixioConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads)
        self.model = PixioModel._from_config(config, attn_implementation="sdpa").eval()
        self.summary = config.n_cls_tokens
        self.blocks = [depth // 4 * i - 1 for i in (1, 2, 3, 4)]
        self.wanted, self.taps = [], {}
        for block, layer in enumerate(self.model.layers):
            layer.register_forward_hook(lambda _m, _i, output, block=block: self.tap(block, output))
        self.images = torch.randn(batch, 3, SIDE, SIDE)
        self.target = 0.5 + 9.0 * torch.rand(batch, SIDE, SIDE)
        self.whole = torch.randn(3, *IMAGE)
        self.dpt, self.linear = dense_heads.Dpt(2 * width), dense_heads.linear(2 * width)
        self.optimisers = {
            head: torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.01)
            for head, rate in ((self.dpt, 1e-4), (self.linear, 2e-4))
        }

    def tap(self, block, output):
        if block in self.wanted:
            tokens = self.model.layernorm(output)
            patches = tokens[:, self.summary :].transpose(1, 2)
            mean = tokens[:, : self.summary].mean(1)[:, :, None].expand_as(patches)
            side = SIDE // PATCH
            self.taps[block] = torch.cat([patches, mean], 1).unflatten(2, (side, side))

    @torch.no_grad()
    def encode(self, images, blocks):
        self.wanted, self.taps = blocks, {}
        self.model(images)
        return [self.taps[block] for block in blocks]

    def train(self, head, features):
        optimiser = self.optimisers[head]
        loss = dense_heads.silog(dense_heads.depth(head(features), (SIDE, SIDE)), self.target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    @torch.no_grad()
    def image(self):
        height, width = IMAGE
        places = [(y, x) for y in range(0, height, STRIDE) for x in range(0, width, STRIDE)]
        windows = torch.zeros(len(places), 3, SIDE, SIDE)
        for window, (y, x) in zip(windows, places):
            cut = self.whole[:, y : y + SIDE, x : x + SIDE]
            window[:, : cut.shape[1], : cut.shape[2]] = cut
        predicted = dense_heads.depth(self.dpt(self.encode(windows, self.blocks)), (SIDE, SIDE))
        sums, counts = torch.zeros(IMAGE), torch.zeros(IMAGE)
        for window, (y, x) in zip(predicted, places):
            place = sums[y : y + SIDE, x : x + SIDE]
            place += window[: place.shape[0], : place.shape[1]]
            counts[y : y + SIDE, x : x + SIDE] += 1
        return sums / counts

    def run(self, work):
        if work == "dpt-step":
            self.train(self.dpt, self.encode(self.images, self.blocks))
        elif work == "linear-step":
            self.train(self.linear, self.encode(self.images, self.blocks[-1:])[0])
        else:
            self.image()

    def seconds(self, work):
        began = time.perf_counter()
        self.run(work)
        return time.perf_counter() - began


class Ours:
    """The example, which does what it is told a line at a time, so that both sides stay warm."""

    def __init__(self, args, batch=None):
        environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
        command = [args.program, f"pixio-{args.size}", str(batch or args.batch)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def seconds(self, work):
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def peak(self):
        """GiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def peak(args, batch):
    """GiB of a DPT step, the encoder's pass included."""
    ours = Ours(args, batch)
    for _ in range(3):
        ours.seconds("dpt-step")
    found = ours.peak()
    ours.close()
    print(f"peak of a DPT step, batch {batch}: {found:.2f} GiB", flush=True)
    return found


def memory(args):
    small, large = 2, 8
    low, high = peak(args, small), peak(args, large)
    derived = low + (high - low) * (args.batch - small) / (large - small)
    print(f"the line through them at batch {args.batch}: {derived:.2f} GiB", flush=True)
    if derived < args.limit:
        peak(args, args.batch)
    else:
        print(f"not measured: above {args.limit:.0f} GiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="b")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts-only", action="store_true", help="ours alone, without PyTorch")
    parser.add_argument("--memory", action="store_true", help="peak memory of a DPT step, without times")
    parser.add_argument("--limit", type=float, default=14, help="GiB up to which --memory measures")
    parser.add_argument("--program", default="target/release/examples/dense_speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"pixio-{args.size} batch {args.batch}, {args.threads} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    if args.memory:
        return memory(args)
    ours = Ours(args)
    if not args.parts_only:
        theirs = Theirs(args.size, args.batch)
        for work in COMPARED:
            ours.seconds(work), theirs.run(work)  # to warm up
            rounds = [(ours.seconds(work), theirs.seconds(work)) for _ in range(args.rounds)]
            a, b = (statistics.median(side) for side in zip(*rounds))
            ratio = statistics.median(b / a for a, b in rounds)
            print(f"{work:12} ours {a:.3f} s   PyTorch {torch.__version__} {b:.3f} s   {ratio:.2f}x", flush=True)

    for work in PARTS:
        ours.seconds(work)
    rounds = [[ours.seconds(work) for work in PARTS] for _ in range(args.rounds)]
    ours.close()
    e, l, d, s = (statistics.median(part) for part in zip(*rounds))
    print(f"parts        E {e:.3f} s   L {l:.3f} s   D {d:.3f} s   S {s:.3f} s")
    gains = [((2 * e + l + d) / s, (2 * e + l + d) / (e + l + d)) for e, l, d, s in rounds]
    gain, bound = (statistics.median(values) for values in zip(*gains))
    share = statistics.median(gain / bound for gain, bound in gains)
    print(f"sharing      {gain:.3f}x of at most {bound:.3f}x: {100 * share:.1f}%")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
