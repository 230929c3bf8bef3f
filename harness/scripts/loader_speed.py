"""Times our loader and PyTorch's side by side: JPEG files to normalised 256 x 256 crops, the same cores.

    cargo build --release --example loader_speed [--features jpeg-simd]
    python harness/scripts/loader_speed.py [--images 2000] [--rounds 5] [--workers 2]

Needs torch, torchvision, Pillow, numpy and webdataset. Makes JPEG files of 500 x 375 (textures with
edges; quality 90, 4:2:0, about 110 kB as in ImageNet) in a folder that it removes, compares the pixels of 64
of them, then lets them take turns: ours, torchvision's ImageFolder and WebDataset's Python loader over tar shards of the same
files, both in a DataLoader whose worker processes are kept from an untimed round before. Prints images a second and
the median ratios of the rounds (above 1: ours is faster).
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

import numpy as np
import PIL
import torch
import torchvision
import webdataset
from PIL import Image, ImageDraw, features
from torchvision import transforms

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BATCH = 64
HEIGHT, WIDTH = 375, 500


def texture(rng, side, slope):
    """Noise whose amplitude falls with frequency as `f ** -slope`, mean 0, deviation 1."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    f[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * f**-slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (side, side))
    return (noise / noise.std()).astype(np.float32)


def make(folder, count, seed=0):
    """An image folder of ten classes; returns the mean size of a file."""
    rng = np.random.default_rng(seed)
    coarse = [texture(rng, 2048, 1.4) for _ in range(3)]
    fine = [texture(rng, 2048, 0.6) for _ in range(3)]

    def cut(source):
        y, x = rng.integers(0, 2048 - HEIGHT), rng.integers(0, 2048 - WIDTH)
        return source[y : y + HEIGHT, x : x + WIDTH]

    total = 0
    for i in range(count):
        light, grain = cut(coarse[0]), cut(fine[i % 3]) * rng.uniform(13, 30)
        planes = [128 + 45 * light + 14 * cut(coarse[c]) + grain + cut(fine[c]) * 2 for c in range(3)]
        image = Image.fromarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(rng.integers(2, 7)):
            x, y, w, h = rng.integers(0, WIDTH), rng.integers(0, HEIGHT), rng.integers(10, 150), rng.integers(10, 150)
            draw.ellipse([int(x), int(y), int(x + w), int(y + h)], outline=tuple(map(int, rng.integers(0, 255, 3))), width=3)
        path = folder / f"class{i % 10}" / f"{i:06d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90, subsampling="4:2:0")
        total += path.stat().st_size
    return total / count


def pack(root, folder, shards):
    """The same files as tar shards of an image and its class each."""
    files = sorted(root.glob("*/*.JPEG"))
    for shard in range(shards):
        with webdataset.TarWriter(str(folder / f"imagenet1k-train-{shard:04d}.tar")) as tar:
            for path in files[shard::shards]:
                tar.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": int(path.parent.name[5:])})
    return sorted(map(str, folder.glob("*.tar")))


def transform():
    return transforms.Compose([
        transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(256),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])


def rate(loader):
    """Images a second of one pass."""
    began, images = time.perf_counter(), 0
    for batch in loader:
        images += len(batch[0])
    return images / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--program", default="target/release/examples/loader_speed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        root = work / "images"
        size = make(root, args.images)
        print(f"{args.images} JPEG files of {WIDTH} x {HEIGHT}, {size / 1e3:.0f} kB each; Pillow {PIL.__version__}, "
              f"libjpeg-turbo {features.version('libjpeg_turbo')}, torchvision {torchvision.__version__}")
        dataset = torchvision.datasets.ImageFolder(root, transform())
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=BATCH, num_workers=args.workers, persistent_workers=True)
        tars = work / "tars"
        tars.mkdir()

        def ours(folder, *more):
            command = [args.program, str(folder), "--workers", str(args.workers), *more]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            return float(re.search(r"images/s ([\d.]+)", printed)[1])

        samples = webdataset.WebDataset(pack(root, tars, 2 * args.workers), shardshuffle=False)
        samples = samples.decode("pil").to_tuple("jpg", "cls").map_tuple(transform())
        shards = webdataset.WebLoader(samples, batch_size=BATCH, num_workers=args.workers, persistent_workers=True)

        # Members of the shards are in order of class and name too.
        for folder in (root, tars):
            dumped = work / "pixels.f32"
            ours(folder, "--dump", str(dumped))
            pixels = np.fromfile(dumped, "<f4").reshape(-1, 3, 256, 256)
            for i, image in enumerate(pixels):
                if not np.array_equal(image, dataset[i][0].numpy()):
                    raise SystemExit(f"{folder.name}: pixels of image {i} differ")
            print(f"{folder.name}: pixels of {len(pixels)} images equal to the last bit")

        rate(loader), rate(shards)
        rounds = []
        for _ in range(args.rounds):
            a, b, c, d = ours(root), rate(loader), ours(tars), rate(shards)
            rounds.append((a / b, c / d))
            print(f"files: ours {a:.0f} images/s, ImageFolder {b:.0f} ({a / b:.2f}x)   "
                  f"shards: ours {c:.0f} images/s, WebDataset {d:.0f} ({c / d:.2f}x)")
        folder, tar = (statistics.median(ratios) for ratios in zip(*rounds))
        print(f"{args.workers} workers: {folder:.2f}x torchvision's ImageFolder, {tar:.2f}x WebDataset's loader")


if __name__ == "__main__":
    main()
