"""What `pixio-eval bench` measures, in PyTorch: prints JSON with the same keys.

    python harness/scripts/gpu_peer.py [encoder knn linear dpt shared val] [--size l]... [--device cuda] [--dtype bf16]

Needs torch and transformers (PixioModel with scaled_dot_product_attention; the heads are in dense_heads.py). The encoder's
products have bf16 weights, so that nothing is cast again in a pass, under autocast, which keeps norms, softmax and the residual
stream in f32. Heads are channels-last, their masters f32, AdamW fused, losses over eight groups in one expression, and nothing is
read back within a step. k-NN is matmul in f32 (no TF32) and topk in the best of some chunks, from features in the host's
memory. Validation encodes all windows of an image as one batch, and sums windows and metrics on the device; its images
are in memory already, those of `pixio-eval bench` are read from files by worker threads.

The medians are taken as there: repetitions of at least 50 ms, the device waited for, after some that count for nothing.
"""

import argparse
import contextlib
import json
import math
import statistics
import sys
import time

import torch
from torch.nn import functional as F
from transformers import PixioConfig, PixioModel

import dense_heads

# Width, blocks, attention heads.
SIZES = {"nano": (192, 12, 3), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
SIDE, STRIDE, PATCH, IGNORE = 256, 170, 16, 255
WHAT = ["encoder", "knn", "linear", "dpt", "shared", "val"]
# Height and width of an image, samples of one of the eight loss groups, classes, rates of linear and DPT.
TASKS = {"nyuv2": ((426, 560), 4, None, (2e-4, 1e-4)), "ade20k": ((512, 683), 2, 150, (2e-4, 1e-4))}
SAMPLE_DPT = {"channels": (16, 32, 64, 64), "features": 16}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
K, TEMPERATURE = (10, 20, 100, 200), 0.07


class Bench:
    def __init__(self, args):
        self.args = args
        self.device = torch.device(args.device)
        self.cuda = self.device.type == "cuda"
        self.dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[args.dtype or ("bf16" if self.cuda else "f32")]
        self.rows = []

    def cast(self):
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def sample(self, once, repetitions):
        self.wait()
        began = time.perf_counter()
        for _ in range(repetitions):
            once()
        self.wait()
        return (time.perf_counter() - began) / repetitions

    def time(self, key, batch, unit, once, units=1, **more):
        print(key, file=sys.stderr, flush=True)
        last = self.sample(once, 1)
        if self.cuda:
            self.sample(once, 2)
            last = self.sample(once, 1)
        repetitions = min(1000, max(1, math.ceil(0.05 / max(last, 1e-9))))
        began, samples = time.perf_counter(), []
        while len(samples) < 3 or len(samples) < 1000 and time.perf_counter() - began < self.args.seconds:
            samples.append(self.sample(once, repetitions) / units)
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        row = {"key": key, "batch": batch, "unit": unit, "seconds": median, "low": low, "high": high, "samples": len(samples)}
        self.rows.append(row | more)
        return self.rows[-1]

    def run(self):
        what = self.args.what or WHAT
        if "knn" in what:
            self.knn()
        for size in self.args.size or ["l"]:
            encoder = Encoder(self, size)
            if "encoder" in what:
                self.encoder(encoder, f"pixio-{size}")
            for task in self.args.tasks.split(","):
                for head in ("linear", "dpt"):
                    if head in what:
                        self.head(encoder, head, task, f"{task} pixio-{size}")
                if "shared" in what:
                    self.shared(encoder, task, f"{task} pixio-{size}")
                if "val" in what:
                    self.validation(encoder, task, f"{task} pixio-{size}")

    def encoder(self, encoder, name):
        best = None
        for batch in map(int, self.args.batches.split(",")):
            images = torch.randn(batch, 3, SIDE, SIDE, device=self.device)
            try:
                with torch.inference_mode(), self.cast():
                    once = lambda: encoder.summary(images)
                    row = self.time(f"encoder {name} batch {batch}", batch, "image", once, units=batch)
            except torch.OutOfMemoryError as error:
                if best is None:
                    raise
                print(f"batch {batch}: {error}", file=sys.stderr)
                break
            if best is None or row["seconds"] < best["seconds"]:
                best = row
        self.rows.append(best | {"key": f"encoder {name}"})

    def head(self, encoder, head, task, name):
        stage = Stage(self, encoder, [head], task)
        self.time(f"{head} step {name}", stage.batch, "step", lambda: stage.step(0))
        with torch.inference_mode(), self.cast():
            model, taps = stage.heads[0][0].eval(), stage.taps_of(0)
            self.time(f"{head} forward {name}", stage.batch, "batch", lambda: stage.predicted(model, taps))

    def shared(self, encoder, task, name):
        stage = Stage(self, encoder, ["linear", "dpt"], task)
        parts = [self.time(f"stream encode {name}", stage.batch, "batch", lambda: stage.encode())["seconds"]]
        for at in (0, 1):
            parts.append(self.time("shared: a head alone", stage.batch, "step", lambda: stage.step(at))["seconds"])
            self.rows.pop()

        def both():
            stage.encode()
            stage.step(0)
            stage.step(1)

        row = self.time(f"shared {name}", stage.batch, "step", both)
        row["share_of_bound"] = sum(parts) / row["seconds"]

    def validation(self, encoder, task, name):
        stage = Stage(self, encoder, ["dpt"], task)
        (height, width), _, classes, _ = TASKS[task]
        model = stage.heads[0][0].eval()
        images = self.args.images or (64 if self.cuda else 2)
        pixels = torch.randint(0, 256, (images, height, width, 3), dtype=torch.uint8)
        if classes is None:
            targets = torch.rand(images, height, width) * 10
        else:
            targets = torch.randint(0, classes, (images, height, width), dtype=torch.uint8)
        if self.cuda:
            pixels, targets = pixels.pin_memory(), targets.pin_memory()
        places = [(y, x) for y in range(0, height, STRIDE) for x in range(0, width, STRIDE)]
        counts = torch.zeros(height, width, device=self.device)
        for y, x in places:
            counts[y : y + SIDE, x : x + SIDE] += 1

        def one(image, target):
            image = stage.normalise(image.to(self.device, non_blocking=True)[None])
            target = target.to(self.device, non_blocking=True)
            bottom, right = places[-1][0] + SIDE, places[-1][1] + SIDE
            image = F.pad(image, (0, right - width, 0, bottom - height))
            windows = torch.cat([image[:, :, y : y + SIDE, x : x + SIDE] for y, x in places])
            maps = stage.predicted(model, encoder.taps(windows, encoder.quarters))
            sums = torch.zeros(maps.shape[1], bottom, right, device=self.device)
            for window, (y, x) in zip(maps, places):
                sums[:, y : y + SIDE, x : x + SIDE] += window
            sums = sums[:, :height, :width]
            if classes is None:
                return depth_metrics(sums[0] / counts, target)
            labels, target = sums.argmax(0), target.long()
            keep = target != IGNORE
            pairs = torch.where(keep, target * classes + labels, classes * classes)
            return torch.bincount(pairs.flatten(), minlength=classes * classes + 1)[:-1]

        def split():
            with torch.inference_mode(), self.cast():
                total = sum(one(image, target) for image, target in zip(pixels, targets))
            return total.cpu()

        self.time(f"val {name}", len(places), "image", split, units=images)

    def knn(self):
        args = self.args
        rows = args.train_rows or (1_281_167 if self.cuda else 100_000)
        count = args.queries or (50_000 if self.cuda else 2_000)
        torch.manual_seed(1)
        make = lambda n: F.normalize(torch.randn(n, args.width, device=self.device), dim=1).cpu()
        train, queries = make(rows), make(count)
        labels, classes = torch.arange(rows) % 1000, 1000
        ks = [k for k in K if k <= rows]

        def some(train, queries, labels):
            similarities, places = (queries @ train.T).topk(ks[-1], dim=1)
            weights, found = (similarities / TEMPERATURE).exp(), labels[places]
            top = []
            for k in ks:
                scores = torch.zeros(len(queries), classes, device=self.device)
                scores.scatter_add_(1, found[:, :k], weights[:, :k])
                top.append(scores.topk(min(5, k), dim=1).indices)
            return top

        with torch.inference_mode():
            there = [x.to(self.device) for x in (train, queries, labels)]
            speed = {}
            for chunk in (128, 512, 1024, 2048):
                part = there[1][:chunk]
                try:
                    some(there[0], part, there[2])
                    speed[chunk] = self.sample(lambda: some(there[0], part, there[2]), 1) / len(part)
                except torch.OutOfMemoryError:
                    break
            chunk = min(speed, key=speed.get)
            del there, part

            def search():
                put = [x.to(self.device) for x in (train, queries, labels)]
                tops = [some(put[0], part, put[2]) for part in put[1].split(chunk)]
                return [torch.cat(top).cpu() for top in zip(*tops)]

            self.time("knn", count, "search", search, chunk=chunk)


class Encoder:
    """A random PixioModel, with its taps."""

    def __init__(self, bench, size):
        width, depth, heads = SIZES[size]
        torch.manual_seed(0)
        config = PixioConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads)
        model = PixioModel._from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)
        self.model = model.to(bench.device)
        if bench.dtype != torch.float32:
            for module in self.model.modules():
                if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                    module.to(bench.dtype)
        self.width, self.classes = width, config.n_cls_tokens
        self.quarters = [depth // 4 * i - 1 for i in (1, 2, 3, 4)]
        self.last = [depth - 1]
        self.outputs, self.wanted = {}, ()
        layers = getattr(self.model, "layers", None)
        for block, layer in enumerate(layers if layers is not None else self.model.encoder.layer):
            layer.register_forward_hook(lambda _m, _i, output, block=block: self.keep(block, output))
        self.call = torch.compile(self.model) if bench.args.compile else self.model

    def keep(self, block, output):
        if block in self.wanted:
            self.outputs[block] = output[0] if isinstance(output, tuple) else output

    def summary(self, images):
        self.wanted = ()
        return self.call(images).last_hidden_state[:, : self.classes].mean(1)

    def taps(self, images, blocks):
        """Head inputs [B, 2D, 16, 16], channels-last."""
        self.wanted, self.outputs = blocks, {}
        self.call(images)
        found = []
        for block in blocks:
            tokens = self.model.layernorm(self.outputs[block])
            patches = tokens[:, self.classes :]
            mean = tokens[:, : self.classes].mean(1, keepdim=True).expand_as(patches)
            side = SIDE // PATCH
            found.append(torch.cat([patches, mean], 2).unflatten(1, (side, side)).permute(0, 3, 1, 2))
        return found


class Stage:
    """Heads of one data set in training on one batch."""

    def __init__(self, bench, encoder, heads, task):
        self.bench, self.encoder = bench, encoder
        _, group, self.classes, rates = TASKS[task]
        sample = bench.args.protocol == "sample"
        self.groups, group = (2, 2) if sample else (8, group)
        self.batch = self.groups * group
        outputs, device = self.classes or 1, bench.device
        self.heads, self.blocks = [], []
        for head in heads:
            if head == "linear":
                model = dense_heads.linear(2 * encoder.width, outputs)
            else:
                model = dense_heads.Dpt(2 * encoder.width, outputs, **(SAMPLE_DPT if sample else {}))
            model = model.to(device, memory_format=torch.channels_last)
            rate = rates[head == "dpt"]
            optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=bench.cuda)
            call = torch.compile(model) if bench.args.compile else model
            self.heads.append((model, call, optimiser))
            self.blocks.append(encoder.quarters if head == "dpt" else encoder.last)
        self.union = sorted({block for blocks in self.blocks for block in blocks})
        pixels = torch.randint(0, 256, (self.batch, SIDE, SIDE, 3), dtype=torch.uint8)
        self.pixels = pixels.pin_memory() if bench.cuda else pixels
        self.mean = torch.tensor(MEAN, device=device) * 255
        self.scale = 1 / (torch.tensor(STD, device=device) * 255)
        if self.classes is None:
            self.target = 0.5 + 9.0 * torch.rand(self.batch, SIDE, SIDE, device=device)
        else:
            self.target = torch.randint(0, self.classes, (self.batch, SIDE, SIDE), device=device)
        self.encode()

    def normalise(self, pixels):
        return ((pixels.float() - self.mean) * self.scale).permute(0, 3, 1, 2)

    def encode(self):
        with torch.no_grad(), self.bench.cast():
            images = self.normalise(self.pixels.to(self.bench.device, non_blocking=True))
            taps = self.encoder.taps(images, self.union)
        self.encoded = dict(zip(self.union, taps))

    def taps_of(self, at):
        taps = [self.encoded[block] for block in self.blocks[at]]
        return taps if len(taps) > 1 else taps[0]

    def step(self, at):
        model, call, optimiser = self.heads[at]
        model.train()
        with self.bench.cast():
            logits = F.interpolate(call(self.taps_of(at)).float(), (SIDE, SIDE), mode="bilinear", align_corners=True)
            loss = self.loss(logits)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def loss(self, logits):
        """The mean over the groups of each group's loss (PROTOCOL sections 3 and 4)."""
        by_group = lambda x: x.reshape(self.groups, -1)
        if self.classes is not None:
            losses = F.cross_entropy(logits, self.target, ignore_index=IGNORE, reduction="none")
            return (by_group(losses).sum(1) / by_group(self.target != IGNORE).sum(1)).mean()
        low, high = dense_heads.MIN_DEPTH, dense_heads.MAX_DEPTH
        predicted = torch.sigmoid(logits).squeeze(1) * high
        valid = (self.target >= low) & (self.target <= high)
        d = torch.where(valid, self.target.log() - predicted.clamp(min=low).log(), 0)
        count = by_group(valid).sum(1)
        return (by_group(d.square()).sum(1) / count - 0.5 * (by_group(d).sum(1) / count).square()).sqrt().mean()

    def predicted(self, model, taps):
        """What windows sum: metres [B, 1, H, W], or probabilities [B, classes, H, W]."""
        if isinstance(model, torch.nn.Sequential) and isinstance(taps, list):
            taps = taps[-1]
        logits = F.interpolate(model(taps).float(), (SIDE, SIDE), mode="bilinear", align_corners=True)
        return torch.sigmoid(logits) * dense_heads.MAX_DEPTH if self.classes is None else logits.softmax(1)


def depth_metrics(predicted, target):
    """The nine of PROTOCOL section 3, on the device."""
    valid = (target >= dense_heads.MIN_DEPTH) & (target <= dense_heads.MAX_DEPTH)
    predicted, target = torch.where(valid, predicted, 1), torch.where(valid, target, 1)
    count = valid.sum()
    mean = lambda x: x.sum() / count
    ratio = torch.maximum(target / predicted, predicted / target)
    error, logs = predicted - target, predicted.log() - target.log()
    within = [((ratio < 1.25**power) & valid).sum() / count for power in (1, 2, 3)]
    return torch.stack([
        *within,
        mean(error.abs() / target),
        mean(error.square() / target),
        mean(error.square()).sqrt(),
        mean(logs.square()).sqrt(),
        mean(logs.abs()) / math.log(10),
        (mean(logs.square()) - 0.5 * mean(logs).square()).sqrt(),
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"of {', '.join(WHAT)} (default: all)")
    parser.add_argument("--size", action="append", choices=SIZES, help="repeatable (default: l)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["bf16", "f32"], help="default: bf16 on a GPU, f32 on the CPU")
    parser.add_argument("--batches", help="of the encoder (default: as pixio-eval bench)")
    parser.add_argument("--tasks", default="nyuv2,ade20k")
    parser.add_argument("--protocol", choices=["pixio", "sample"], default="pixio")
    parser.add_argument("--images", type=int)
    parser.add_argument("--train-rows", type=int)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--compile", action="store_true", help="torch.compile encoder and heads")
    args = parser.parse_args()
    unknown = set(args.what) - set(WHAT)
    if unknown:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")
    cuda = torch.device(args.device).type == "cuda"
    args.batches = args.batches or ("16,32,64,128,256,512" if cuda else "1,4,8,16")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    bench = Bench(args)
    bench.run()
    print(json.dumps({
        "version": f"torch {torch.__version__}",
        "compile": args.compile,
        "device": args.device,
        "hardware": torch.cuda.get_device_name(args.device) if cuda else "cpu",
        "dtype": str(bench.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "rows": bench.rows,
    }, indent=1))


if __name__ == "__main__":
    main()
