"""Writes tasks/tests/data/images: image files and what Pillow 12.0.0 makes of them.

Run from the repository's root; the same versions give the same files, byte for byte:

    pip install pillow==12.0.0 numpy torch torchvision
    python tasks/scripts/make_image_vectors.py

`vectors.json` holds, for each check, the inputs and the first half of a SHA-256 over the expected
result: height and width as little-endian 32-bit integers, then the values in row-major order. Inputs
of resizes are not stored: `pattern` below and in tests/images.rs generate the same pixels.
The files under `golden/` do not come from here.
"""

import base64
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features

assert PIL.__version__ == "12.0.0", f"Pillow 12.0.0 is the reference, found {PIL.__version__}"
turbo = features.version("libjpeg_turbo")
assert turbo and turbo.startswith("3."), f"libjpeg-turbo 3 is the reference, found {turbo}"
warnings.simplefilter("ignore")

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "images"


def digest(array):
    array = np.ascontiguousarray(array)
    size = struct.pack("<II", *array.shape[:2])
    return hashlib.sha256(size + array.tobytes()).hexdigest()[:32]


def hashed(index, seed):
    """32 well mixed bits from a counter."""
    with np.errstate(over="ignore"):
        v = index.astype(np.uint32) * np.uint32(0x9D2C5681) + np.uint32(seed * 0x61C88647 & 0xFFFFFFFF)
        for shift, factor in ((15, 0x5BD1E995), (13, 0x2545F491)):
            v = (v ^ (v >> np.uint32(shift))) * np.uint32(factor)
    return v ^ (v >> np.uint32(16))


def pattern(seed, height, width):
    """RGB pixels: noise, black and white blocks, or ramps, by `seed % 3`."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    if seed % 3 == 0:
        return (hashed((y * width + x) * 3 + c, seed) >> 24).astype(np.uint8)
    if seed % 3 == 1:
        return ((hashed((y // 3 * 4099 + x // 5) * 3 + c, seed) >> 31) * 255).astype(np.uint8)
    return (y * 7 + x * 5 + c * 60 + seed).astype(np.uint8)


def photo(seed, height, width):
    """Smooth colours with some edges and grain, so that JPEG coefficients are typical ones."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for c in range(3):
        a, b, p = (hashed(np.arange(3) + 3 * c, seed + 77) / 2**32).tolist()
        wave = np.sin(x * (0.05 + 0.3 * a) + 6 * p) * np.cos(y * (0.04 + 0.25 * b))
        disc = (x - width * a) ** 2 + (y - height * b) ** 2 < (0.3 * min(height, width)) ** 2
        planes.append(128 + 80 * wave + 70 * disc)
    grain = (hashed(np.arange(height * width * 3), seed) >> 24).astype(np.float64) / 8 - 16
    return np.clip(np.rint(np.stack(planes, 2) + grain.reshape(height, width, 3)), 0, 255).astype(np.uint8)


# Resizes ------------------------------------------------------------------------------------------


def resizes():
    rng = np.random.default_rng(20251)

    def side(low, high):
        return int(rng.integers(low, high + 1))

    cases = []
    for _ in range(260):
        cases.append((side(1, 70), side(1, 70), side(1, 70), side(1, 70)))
    for _ in range(60):  # one side stays
        h, w = side(1, 90), side(1, 90)
        cases += [(h, w, h, side(1, 120)), (h, w, side(1, 120), w)]
    for _ in range(60):  # more than twice as high as wide, down and up
        w = side(1, 40)
        h = 2 * w + side(1, 120)
        cases += [(h, w, side(1, h), side(1, w)), (h, w, h + side(1, 60), w + side(1, 60))]
    for n in (1, 2, 3, 5, 17, 64, 255, 256, 257):  # one pixel
        cases += [(1, n, 7, 9), (n, 1, 9, 7), (1, n, 1, 3), (n, 1, 3, 1), (7, 9, 1, n), (9, 7, n, 1)]
    cases += [(1, 1, 1, 1), (1, 1, 300, 200), (300, 200, 1, 1)]
    for n in (1, 2, 3, 7, 16):  # 4000 pixels
        cases += [(4000, n, 256, n), (n, 4000, n, 256), (4000, n, 1, 1), (n, 4000, 1, 5)]
        cases += [(n, 5, 4000, 5), (5, n, 5, 4000), (4000, n, 3999, n + 1), (n, 4000, n, 4001)]
    for h, w in ((375, 500), (500, 375), (333, 500), (500, 334), (120, 90), (1200, 400), (213, 1111)):
        long = 256 * max(h, w) // min(h, w)
        cases.append((h, w, 256, long) if h <= w else (h, w, long, 256))
    cases += [(256, 256, 256, 256), (100, 100, 50, 50), (50, 50, 100, 100), (255, 255, 256, 256)]
    rows = []
    for seed, (h, w, height, width) in enumerate(cases):
        image = Image.fromarray(pattern(seed, h, w)).resize((width, height), Image.BICUBIC)
        rows.append([seed, h, w, height, width, digest(np.asarray(image))])
    return rows


def prepared():
    from torchvision import transforms

    sizes = [(10, 13), (13, 10), (256, 256), (256, 301), (302, 256), (257, 513), (37, 400), (401, 37)]
    sizes += [(300, 301), (90, 90), (1, 4), (333, 500), (500, 375), (259, 258)]
    rows = []
    for resize, crop in ((256, 256), (64, 50), (64, 51), (50, 64), (33, 48)):
        steps = [transforms.Resize(resize, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(crop)]
        for seed, (h, w) in enumerate(sizes):
            image = transforms.Compose(steps)(Image.fromarray(pattern(seed, h, w)))
            rows.append([seed, h, w, resize, crop, digest(np.asarray(image))])
    return rows


def normalised():
    from torchvision import transforms

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])(image)
    return hashlib.sha256(tensor.numpy().astype("<f4").tobytes()).hexdigest()[:32]


# JPEG ---------------------------------------------------------------------------------------------


class Scan:
    """Entropy-coded data. Codes are flat: four bits for DC, eight for AC, indices into the tables."""

    DC = list(range(12))
    AC = [0x00, 0xF0] + [run << 4 | size for run in range(16) for size in range(1, 11)]

    def __init__(self):
        self.out, self.held, self.count = bytearray(), 0, 0

    def bits(self, value, count):
        self.held, self.count = self.held << count | value, self.count + count
        while self.count >= 8:
            self.count -= 8
            byte = self.held >> self.count
            self.held &= (1 << self.count) - 1
            self.out += bytes([byte, 0]) if byte == 0xFF else bytes([byte])

    def flush(self):
        if self.count:
            self.bits((1 << (8 - self.count)) - 1, 8 - self.count)

    def magnitude(self, value):
        size = abs(value).bit_length()
        return size, value if value >= 0 else value + (1 << size) - 1

    def dc(self, difference):
        size, bits = self.magnitude(difference)
        self.bits(self.DC.index(size), 4)
        self.bits(bits, size)

    def ac(self, values):
        run = 0
        last = max((i for i, v in enumerate(values) if v), default=-1)
        for value in values[: last + 1]:
            if value == 0:
                run += 1
                continue
            while run > 15:
                self.bits(self.AC.index(0xF0), 8)
                run -= 16
            size, bits = self.magnitude(value)
            self.bits(self.AC.index(run << 4 | size), 8)
            self.bits(bits, size)
            run = 0
        if last + 1 < len(values):
            self.bits(self.AC.index(0x00), 8)


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(seed, height, width, sampling, mode="interleaved", ids=None, adobe=None, jfif=False, restart=0):
    """A JPEG of random coefficients: any sampling factors `[(h, v), ...]`, as one interleaved scan, as
    `separate` scans, or `progressive` (DC in two bits' steps, AC in two bands)."""
    rng = np.random.default_rng(seed)
    hmax, vmax = max(h for h, _ in sampling), max(v for _, v in sampling)
    across, down = -(-width // (8 * hmax)), -(-height // (8 * vmax))
    ids = ids or list(range(1, len(sampling) + 1))
    blocks = []
    for h, v in sampling:
        grid = np.zeros((down * v, across * h, 64), np.int64)
        grid[..., 0] = rng.integers(-120, 120, grid.shape[:2])
        for k in range(1, 64):
            strength = 30 // (k + 1) + 2
            hit = rng.random(grid.shape[:2]) < 1.6 / (k + 2)
            grid[..., k] = rng.integers(-strength, strength + 1, grid.shape[:2]) * hit
        blocks.append(grid)

    def order(members):
        """Block positions of each unit of a scan over `members`."""
        if len(members) > 1:
            for my in range(down):
                for mx in range(across):
                    yield [
                        (c, my * sampling[c][1] + y, mx * sampling[c][0] + x)
                        for c in members
                        for y in range(sampling[c][1])
                        for x in range(sampling[c][0])
                    ]
            return
        (c,) = members
        h, v = sampling[c]
        for y in range(-(-(-(-height * v // vmax)) // 8)):
            for x in range(-(-(-(-width * h // hmax)) // 8)):
                yield [(c, y, x)]

    def scan(members, start, end, high, low):
        coder, last = Scan(), dict.fromkeys(members, 0)
        for number, unit in enumerate(order(members)):
            if restart and number and number % restart == 0:
                coder.flush()
                coder.out += bytes([0xFF, 0xD0 + (number // restart - 1) % 8])
                last = dict.fromkeys(members, 0)
            for c, y, x in unit:
                block = blocks[c][y, x]
                if start == 0 and high:
                    coder.bits(int(block[0]) >> low & 1, 1)
                elif start == 0:
                    value = int(block[0]) >> low
                    coder.dc(value - last[c])
                    last[c] = value
                if end:
                    coder.ac([int(value) for value in block[max(start, 1) : end + 1]])
        coder.flush()
        body = bytes([len(members)]) + b"".join(bytes([ids[c], 0]) for c in members)
        return segment(0xDA, body + bytes([start, end, high << 4 | low])) + bytes(coder.out)

    everything = list(range(len(sampling)))
    out = b"\xff\xd8"
    if jfif:
        out += segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    if adobe is not None:
        out += segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, adobe))
    out += segment(0xDB, b"\0" + bytes(8 if k == 0 else 6 + k // 2 for k in range(64)))
    frame = struct.pack(">BHHB", 8, height, width, len(sampling))
    frame += b"".join(bytes([i, h << 4 | v, 0]) for i, (h, v) in zip(ids, sampling))
    out += segment(0xC2 if mode == "progressive" else 0xC1, frame)
    for kind, symbols, bits in ((0x00, Scan.DC, 4), (0x10, Scan.AC, 8)):
        lengths = [len(symbols) if n == bits else 0 for n in range(1, 17)]
        out += segment(0xC4, bytes([kind] + lengths + symbols))
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    if mode == "interleaved":
        out += scan(everything, 0, 63, 0, 0)
    elif mode == "separate":
        out += b"".join(scan([c], 0, 63, 0, 0) for c in everything)
    else:
        out += scan(everything, 0, 0, 0, 1)
        out += b"".join(scan([c], 1, 9, 0, 0) for c in everything)
        out += scan(everything, 0, 0, 1, 0)
        out += b"".join(scan([c], 10, 63, 0, 0) for c in everything)
    return out + b"\xff\xd9"


# 21x19 pixels, sequential and progressive, by libjpeg-turbo's `cjpeg -arithmetic`: Pillow reads
# arithmetic coding but does not write it.
ARITHMETIC = {
    "arithmetic": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
        "UlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT0//yQARCAATABUDASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD+GuBuRF/mTENRv9hZMgr3u1MY9MKN"
        "afnUfDbvp+t+pkZgxDHkaCR42ekLlACKAVhzqNnoIAGkDkQcASB7LoNd5h2ydVGnijaOqENo2e6opBIzJAkoCqXLso6tJV78KlRw"
        "Bnz1tqTz+fQ2Hah6en/Cmoj/2Q=="
    ),
    "arithmetic-progressive": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
        "UlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT0//ygARCAATABUDASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAfv3cv74d62bgubnq8h9IBuB2P/MAAQQBf/a"
        "AAgBAQABBQIdcDD22+ReSju6/8wABBEF/9oACAEDAQE/AUQugp3TnvrQkP/MAAQRBf/aAAgBAgEBPwE4XnJmmtBA/8wABBAF/9oA"
        "CAEBAAY/AsD/zAAEEAX/2gAIAQEAAT8hsP0LDqE/iifoum9UVDj/2gAMAwEAAgADAAAAEFhQR//MAAQRBf/aAAgBAwEBPxAwNB62"
        "OXScoP/MAAQRBf/aAAgBAgEBPxD5T7Ur/8wABBAF/9oACAEBAAE/EJ2mXRi8HhKVVeYuzu1iZjjBXhQjE3NFk/hFQezwRmt1GlRz"
        "0P/Z"
    ),
}  # fmt: skip


def jpegs():
    files = {name: base64.b64decode(text) for name, text in ARITHMETIC.items()}
    luma = {
        "444": (1, 1), "422": (2, 1), "420": (2, 2), "440": (1, 2), "411": (4, 1), "410": (4, 2), "441": (1, 4),
        "311": (3, 1), "331": (3, 2),
    }  # fmt: skip
    samplings = {name: [factor, (1, 1), (1, 1)] for name, factor in luma.items()}
    samplings |= {
        "mixed-22-21-12": [(2, 2), (2, 1), (1, 2)],
        "mixed-22-12-11": [(2, 2), (1, 2), (1, 1)],
        "chroma-wider": [(1, 1), (2, 1), (1, 2)],
        "all-21": [(2, 1), (2, 1), (2, 1)],
        "fractional": [(3, 1), (2, 1), (1, 1)],  # not in libjpeg: refused
    }
    seed = 0
    for name, sampling in samplings.items():
        for height, width in ((1, 1), (5, 7), (16, 16), (33, 17), (19, 35), (50, 3)):
            seed += 1
            files[f"{name}-{height}x{width}"] = jpeg(seed, height, width, sampling, jfif=seed % 2 == 0)
        for mode in ("separate", "progressive"):
            seed += 1
            files[f"{name}-{mode}"] = jpeg(seed, 21, 43, sampling, mode)
        files[f"{name}-restart"] = jpeg(seed + 1000, 40, 51, sampling, restart=2)
    four = [(1, 1)] * 4
    sub = [(2, 2), (1, 1), (1, 1), (2, 2)]
    files |= {
        "grey": jpeg(501, 29, 31, [(1, 1)]),
        "grey-factor-22": jpeg(502, 29, 31, [(2, 2)]),
        "grey-progressive": jpeg(503, 29, 31, [(1, 1)], "progressive"),
        "rgb-by-id": jpeg(504, 23, 26, [(1, 1)] * 3, ids=list(b"RGB")),
        "rgb-adobe": jpeg(505, 23, 26, [(1, 1)] * 3, adobe=0),
        "ycc-adobe": jpeg(506, 23, 26, samplings["420"], adobe=1),
        "ids-123-no-marker": jpeg(507, 23, 26, samplings["422"]),
        "ids-odd": jpeg(508, 23, 26, samplings["422"], ids=[7, 9, 200]),
        "cmyk-plain": jpeg(509, 23, 26, four),
        "cmyk-adobe": jpeg(510, 23, 26, four, adobe=0),
        "cmyk-subsampled": jpeg(511, 37, 26, sub, adobe=0),
        "ycck": jpeg(512, 23, 26, four, adobe=2),
        "ycck-420": jpeg(513, 37, 29, sub, adobe=2),
        "ycck-420-progressive": jpeg(514, 37, 29, sub, "progressive", adobe=2),
        "ycck-422-restart": jpeg(515, 37, 29, [(2, 1), (1, 1), (1, 1), (2, 1)], adobe=2, restart=3),
    }

    def saved(name, image, **options):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        files[name] = buffer.getvalue()

    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for seed, (height, width, quality) in enumerate(((61, 83, 75), (40, 97, 30), (37, 41, 100))):
            image = Image.fromarray(photo(seed, height, width))
            name = f"photo-{subsampling.replace(':', '')}-q{quality}"
            options = {"quality": quality, "subsampling": subsampling}
            saved(name, image, **options)
            saved(f"{name}-progressive", image, progressive=True, **options)
            saved(f"{name}-optimized", image, optimize=True, restart_marker_blocks=3, **options)
    image = Image.fromarray(photo(9, 45, 71))
    saved("photo-grey", image.convert("L"), quality=85)
    saved("photo-grey-progressive", image.convert("L"), quality=85, progressive=True)
    saved("photo-cmyk", image.convert("CMYK"), quality=85)
    saved("photo-cmyk-progressive", image.convert("CMYK"), quality=85, progressive=True)
    saved("photo-rgb", image, quality=85, keep_rgb=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved("photo-exif-rotated", image, quality=85, exif=exif)
    # A progressive file that ends, cleanly, before its refinements: libjpeg smooths between blocks.
    whole = files["photo-420-q75-progressive"]
    starts = [i for i in range(len(whole) - 1) if whole[i : i + 2] == b"\xff\xda"]
    for count in (1, 3, len(starts) - 2):
        files[f"unfinished-{count}-scans"] = whole[: starts[count]] + b"\xff\xd9"
    return {f"{name}.jpg": data for name, data in files.items()}


# PNG ----------------------------------------------------------------------------------------------

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filtered(rows, step, rng):
    """Applies a random filter to each row (RFC 2083, section 6)."""
    out, above = bytearray(), bytes(len(rows[0]))
    for row in rows:
        kind = int(rng.integers(0, 5))
        out.append(kind)
        for i, value in enumerate(row):
            a, c = (row[i - step], above[i - step]) if i >= step else (0, 0)
            b = above[i]
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            out.append(value - (0, a, b, (a + b) // 2, nearest)[kind] & 255)
        above = row
    return bytes(out)


def png(seed, height, width, color, depth, interlaced=False, palette=None, trns=None):
    rng = np.random.default_rng(seed)
    limit = len(palette) // 3 if palette else 1 << depth
    samples = rng.integers(0, min(limit, 1 << depth), (height, width, CHANNELS[color]))
    if color == 0 and depth == 16:
        samples[: height // 2] %= 300  # around the value at which 16-bit grey saturates
    step = max(1, CHANNELS[color] * depth // 8)
    data = b""
    for top, left, dy, dx in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[top::dy, left::dx]
        if part.size == 0:
            continue
        bits = (part[..., None] >> np.arange(depth)[::-1] & 1).reshape(part.shape[0], -1)
        data += filtered([bytes(row) for row in np.packbits(bits.astype(np.uint8), axis=1)], step, rng)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))
    if palette is not None:
        out += chunk(b"PLTE", palette)
    if trns is not None:
        out += chunk(b"tRNS", trns)
    packed = zlib.compress(data, 9)
    middle = len(packed) // 2
    return out + chunk(b"IDAT", packed[:middle]) + chunk(b"IDAT", packed[middle:]) + chunk(b"IEND", b"")


def pngs():
    files, seed = {}, 0
    kinds = {"grey": (0, (1, 2, 4, 8, 16)), "rgb": (2, (8, 16)), "palette": (3, (1, 2, 4, 8)),
             "grey-alpha": (4, (8, 16)), "rgba": (6, (8, 16))}  # fmt: skip
    for name, (color, depths) in kinds.items():
        for depth in depths:
            for interlaced in (False, True):
                for height, width in ((1, 1), (13, 11), (9, 30)):
                    seed += 1
                    palette = hashed(np.arange(3 << depth), seed).astype(np.uint8).tobytes() if color == 3 else None
                    kind = "-interlaced" if interlaced else ""
                    data = png(seed, height, width, color, depth, interlaced, palette)
                    files[f"{name}-{depth}{kind}-{height}x{width}"] = data
    colors = bytes(range(10, 70, 2))
    files |= {
        "palette-8-transparent": png(901, 12, 15, 3, 8, palette=colors, trns=bytes([0, 255, 7])),
        "palette-4-short": png(902, 12, 15, 3, 4, palette=colors[:15]),
        "grey-8-transparent": png(903, 12, 15, 0, 8, trns=struct.pack(">H", 9)),
        "grey-16-transparent": png(904, 12, 15, 0, 16, trns=struct.pack(">H", 9)),
        "rgb-8-transparent": png(905, 12, 15, 2, 8, trns=struct.pack(">HHH", 1, 2, 3)),
        "rgb-16-suggested-palette": png(906, 12, 15, 2, 16, palette=colors),
    }
    undefined = png(907, 12, 15, 3, 4, palette=colors)  # indices beyond its palette
    start = undefined.index(b"PLTE") - 4
    files["palette-4-undefined"] = undefined[:start] + chunk(b"PLTE", colors[:12]) + undefined[start + 12 + len(colors) :]
    return {f"{name}.png": data for name, data in files.items()}


# --------------------------------------------------------------------------------------------------


def opened(data):
    """Pillow's pixels, or None where it raises."""
    try:
        return digest(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    except (OSError, SyntaxError):
        return None


def damaged(files):
    """JPEGs cut to a length, or with one byte replaced after the headers; Pillow's pixels or null.

    Damage makes coefficients that no encoder writes, on which libjpeg-turbo's own assembler and C
    routines disagree (on everything in `decode` they agree). These are of the C routines.
    """
    assert os.environ["JSIMD_FORCENONE"] == "1"
    names = ["photo-420-q75", "photo-422-q75-optimized", "photo-420-q75-progressive", "photo-cmyk", "420-33x17",
             "440-restart", "ycck-420-progressive", "grey"]  # fmt: skip
    rng = np.random.default_rng(7)
    rows = []
    for name in names:
        data = files[f"{name}.jpg"]
        for length in sorted({3, 20, len(data) - 1, len(data) - 2, len(data) - 3, *rng.integers(4, len(data), 12).tolist()}):
            rows.append([f"{name}.jpg", "cut", length, 0, opened(data[:length])])
        body = data.index(b"\xff\xda") + 14
        for _ in range(25):
            at, value = int(rng.integers(body, len(data))), int(rng.integers(0, 256))
            broken = bytearray(data)
            broken[at] = value
            rows.append([f"{name}.jpg", "byte", at, value, opened(bytes(broken))])
    return rows


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def main():
    if sys.argv[1:] == ["damaged"]:
        print(json.dumps(damaged(jpegs())))
        return
    plain = os.environ | {"JSIMD_FORCENONE": "1"}
    jpeg_files, png_files = jpegs(), pngs()
    write(OUT / "jpeg", jpeg_files)
    write(OUT / "png", png_files)
    decoded, gray16, masks = [], [], []
    for folder, files in (("jpeg", jpeg_files), ("png", png_files)):
        decoded += [[f"{folder}/{name}", opened(data)] for name, data in files.items()]
    for name, data in png_files.items():
        image = Image.open(io.BytesIO(data))
        if image.mode == "I;16":
            gray16.append([f"png/{name}", digest(np.asarray(image).astype("<u2"))])
        if image.mode == "P" or name.startswith("grey-8"):
            masks.append([f"png/{name}", digest(np.asarray(image))])
    vectors = {
        "pillow": PIL.__version__,
        "libjpeg_turbo": turbo,
        "resize": resizes(),
        "prepare": prepared(),
        "normalise": normalised(),
        "decode": decoded,
        "gray16": gray16,
        "mask": masks,
        "damaged": json.loads(subprocess.check_output([sys.executable, __file__, "damaged"], env=plain)),
    }
    lines = []
    for key, value in vectors.items():
        if isinstance(value, list):
            value = "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"
        else:
            value = json.dumps(value)
        lines.append(f"{json.dumps(key)}: {value}")
    (OUT / "vectors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for key, value in vectors.items():
        print(f"{key}: {len(value)} cases" if isinstance(value, list) else f"{key}: {value}")
    refused = [name for name, pixels in decoded if pixels is None]
    print("refused by Pillow:", ", ".join(refused) or "none")


if __name__ == "__main__":
    main()
