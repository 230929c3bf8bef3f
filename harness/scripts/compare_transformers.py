"""Compares the encoder with transformers' PixioModel on the same random weights and pixels.

    cargo build --release
    python harness/scripts/compare_transformers.py [--size b|l|h] [--program target/release/pixio-eval]

Needs torch, transformers, safetensors, numpy and pillow. Builds a PixioModel with random weights, saves it,
writes one random image a size, runs `pixio-eval features` and prints max|difference| / max|value| for the
first, the middle and the last block, with and without the final norm. Ends with 1 above 2e-5.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import PixioConfig, PixioModel

SIZES = {"b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCE = 2e-5


def reference(model, image, blocks):
    """Tokens after each block, by hooks, as the tensors `pixio-eval features` writes."""
    kept = {}
    hooks = [
        model.layers[i].register_forward_hook(lambda _m, _i, out, i=i: kept.__setitem__(i, out))
        for i in blocks
    ]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        model(pixels[None])
        norm = {i: model.layernorm(x) for i, x in kept.items()}
    for hook in hooks:
        hook.remove()
    count = model.config.n_cls_tokens
    tokens = {}
    for suffix, source in (("", kept), ("_norm", norm)):
        for i, x in source.items():
            tokens[f"block{i}.cls_tokens{suffix}"] = x[:, :count]
            tokens[f"block{i}.patch_tokens{suffix}"] = x[:, count:]
    return tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="b")
    parser.add_argument("--program", default="target/release/pixio-eval")
    args = parser.parse_args()
    width, depth, heads = SIZES[args.size]
    torch.manual_seed(0)
    config = PixioConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads)
    model = PixioModel(config).eval()
    # transformers initialises biases with 0 and norms with 1; anything may go unnoticed there.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    blocks = [0, depth // 2, depth - 1]
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save_pretrained(folder / "model")
        for height, width in ((256, 256), (512, 512), (384, 640)):
            pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
            image = Image.fromarray(pixels)
            image.save(folder / "image.png")
            command = [args.program, "features", folder / "image.png", "--backbone", folder / "model"]
            command += ["--taps", ",".join(map(str, blocks)), "--size", f"{height}x{width}"]
            command += ["--device", "cpu", "--dtype", "f32", "--out", folder / "ours.safetensors", "--quiet"]
            subprocess.run(command, check=True)
            ours = load_file(folder / "ours.safetensors")
            theirs = reference(model, image, blocks)
            assert ours.keys() == theirs.keys(), (sorted(ours), sorted(theirs))
            errors = {k: ((ours[k] - theirs[k]).abs().max() / theirs[k].abs().max()).item() for k in theirs}
            name = max(errors, key=errors.get)
            worst = max(worst, errors[name])
            print(f"pixio-{args.size} {height}x{width}: {errors[name]:.2e} at {name} ({len(errors)} tensors)")
    print(f"tolerance {TOLERANCE:.0e}: {'agrees' if worst <= TOLERANCE else 'DIFFERS'}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
