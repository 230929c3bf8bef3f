"""Makes harness/tests/families: what transformers' models compute with weights made from a formula.

    python harness/scripts/make_family_vectors.py

Needs torch, transformers, safetensors and numpy. Writes `cases.json` (configurations, tensor names and
shapes, image sizes), `vectors.safetensors` (tokens and pooled outputs) and `parameters.json` (the exact
number of parameters of every entry of backbones.toml, counted by transformers without weights).

No weights or images are stored: element i of tensor t (in the order of names) is made from the counter
t * 2^32 + i by SplitMix64, here and in harness/tests/families.rs alike.
"""

import json
import math
import pathlib
import tempfile
import tomllib

import numpy as np
import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "harness/tests/families"
IMAGE = 1 << 31  # the image's tensor number
EVERY = 4  # of the patch tokens, one in so many is kept


def uniform(tensor, count):
    """`count` values in -1..1 from counters tensor * 2^32 + i."""
    x = (np.uint64(tensor) << np.uint64(32)) + np.arange(count, dtype=np.uint64)
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def weight(index, name, shape):
    """Far from any initial value, so that nothing goes unnoticed."""
    u = uniform(index, math.prod(shape))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "lambda1":
        values = 0.6 + 0.3 * u
    elif len(shape) == 1 and leaf == "weight":
        values = 1.0 + 0.2 * u
    elif len(shape) == 1:
        values = 0.1 * u
    elif "token" in name or "position" in name or "probe" in name:
        values = 0.5 * u
    else:
        values = u * math.sqrt(3.0 / math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def sizes(**common):
    """Two sizes: width, blocks, heads, hidden."""
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return [dict(zip(keys, size)) | common for size in ((24, 3, 2, 40), (32, 5, 4, 56))]


def ratio(**common):
    return [{k: v for k, v in size.items() if k != "intermediate_size"} for size in sizes(**common)]


P16, P14 = ((64, 64), (48, 96)), ((56, 56), (42, 84))
# family: model, configuration, configurations, image sizes
CASES = {
    "mae": (tf.ViTMAEModel, tf.ViTMAEConfig, sizes(image_size=64, mask_ratio=0.0), ((64, 64), (48, 96))),
    "dinov2": (
        tf.Dinov2Model,
        tf.Dinov2Config,
        [c | {"use_swiglu_ffn": i == 1} for i, c in enumerate(ratio(image_size=70, mlp_ratio=2))],
        ((70, 70), (42, 84)),
    ),
    "dinov2_with_registers": (
        tf.Dinov2WithRegistersModel,
        tf.Dinov2WithRegistersConfig,
        [c | {"use_swiglu_ffn": i == 1} for i, c in enumerate(ratio(image_size=70, patch_size=14, mlp_ratio=2, num_register_tokens=3))],
        ((56, 56), (42, 84)),
    ),
    "clip": (tf.CLIPVisionModel, tf.CLIPVisionConfig, sizes(image_size=64, patch_size=16), P16),
    "siglip": (tf.SiglipVisionModel, tf.SiglipVisionConfig, sizes(image_size=56, patch_size=14), P14),
    "vit": (tf.ViTModel, tf.ViTConfig, sizes(image_size=48), P16),
    "dinov3_vit": (
        tf.DINOv3ViTModel,
        tf.DINOv3ViTConfig,
        [
            c | {"num_register_tokens": 4, "use_gated_mlp": i == 1, "hidden_act": ("gelu", "silu")[i]}
            for i, c in enumerate(sizes(image_size=64))
        ],
        P16,
    ),
}


def by_factor(e):
    """Position resize of these embeddings as DINOv2's own code does it: by the factor (new + 0.1) / old."""
    table, patch = e.position_embeddings, e.config.patch_size
    side = math.isqrt(table.shape[1] - 1)

    def resize(_x, height, width):
        rows, columns = height // patch, width // patch
        if (rows, columns) == (side, side):
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = torch.nn.functional.interpolate(grid, scale_factor=factors, mode="bicubic")
        assert grid.shape[2:] == (rows, columns)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)

    return resize


def blocks_of(model):
    found = [m for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m) > 1]
    assert len(found) == 1, [type(m) for m in found]
    return found[0]


def forward(family, model, image):
    """Tokens after every block (by hooks), after the final norm, and the pooled output."""
    kept = []
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: kept.append(out[0] if isinstance(out, tuple) else out))
        for block in blocks_of(model)
    ]
    arguments = {}
    if family in ("mae", "clip", "siglip", "vit"):
        arguments["interpolate_pos_encoding"] = True
    if family == "mae":
        count = image.shape[2] // 16 * (image.shape[3] // 16)
        arguments["noise"] = torch.arange(count, dtype=torch.float32)[None]
    with torch.no_grad():
        out = model(image, **arguments)
    for hook in hooks:
        hook.remove()
    final = out.last_hidden_state
    if family == "clip":  # transformers applies the final norm to the class token alone
        with torch.no_grad():
            final = model.post_layernorm(final)
    # ViT's pooler is a layer on top of the class token, and MAE has none.
    pooled = None if family in ("mae", "vit") else out.pooler_output
    return kept, final, pooled


def keep(tokens, prefix):
    """One in so many patches; class tokens all."""
    return tokens[:, prefix:][:, ::EVERY].contiguous().clone()


def record(store, name, family, config, kept, final, pooled):
    class_tokens = 0 if family == "siglip" else 1
    prefix = class_tokens + getattr(config, "num_register_tokens", 0)
    last = len(kept) - 1
    taps = {f"block{i}": kept[i] for i in (0, last // 2, last)} | {"final": final}
    for tap, tokens in taps.items():
        store[f"{name}.{tap}.patches"] = keep(tokens, prefix)
        if class_tokens:
            store[f"{name}.{tap}.class"] = tokens[:, :1].contiguous().clone()
    if pooled is not None:
        store[f"{name}.pooled"] = pooled.contiguous().clone()


def trap(family, model, image):
    """What the model gives when the family's trap is fallen into: see harness/tests/families.rs."""
    if family == "mae":
        model.config.mask_ratio = model.embeddings.config.mask_ratio = 0.0
        with torch.no_grad():
            return model(image, interpolate_pos_encoding=True, noise=None).last_hidden_state[:, 1:]
    if family == "clip":
        for block in model.encoder.layers:
            block.mlp.activation_fn = torch.nn.GELU()
        return forward(family, model, image)[1][:, 1:]
    if family == "dinov3_vit":
        model.train()
        out = forward(family, model, image)[1]
        model.eval()
        return out[:, 1 + model.config.num_register_tokens :]
    return None


def make_cases():
    cases, store = [], {}
    torch.manual_seed(0)
    for family, (model_class, config_class, configs, images) in CASES.items():
        for number, options in enumerate(configs):
            config = config_class(**options)
            model = model_class(config).eval()
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                with safe_open(f"{folder}/model.safetensors", "pt") as file:
                    shapes = {n: file.get_slice(n).get_shape() for n in sorted(file.keys())}
                written = json.loads(pathlib.Path(folder, "config.json").read_text())
                weights = {n: weight(i, n, s) for i, (n, s) in enumerate(shapes.items())}
                save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})
                model = model_class.from_pretrained(folder, attn_implementation="eager").eval()
            case = f"{family}.{number}"
            cases.append({"name": case, "family": family, "config": written, "tensors": shapes, "images": images})
            for height, width in images:
                image = torch.from_numpy(uniform(IMAGE, 3 * height * width).astype(np.float32))
                image = image.reshape(1, 3, height, width) * 2
                name = f"{case}.{height}x{width}"
                record(store, name, family, config, *forward(family, model, image))
                if family == "dinov2":
                    model.embeddings.interpolate_pos_encoding = by_factor(model.embeddings)
                    record(store, f"{name}.original", family, config, *forward(family, model, image))
                    del model.embeddings.interpolate_pos_encoding
            wrong = trap(family, model, image)
            if wrong is not None:
                store[f"{name}.trap"] = wrong[:, ::EVERY].contiguous().clone()
    return cases, store


MODELS = {
    "mae": (tf.ViTMAEModel, tf.ViTMAEConfig),
    "dinov2": (tf.Dinov2Model, tf.Dinov2Config),
    "dinov2_with_registers": (tf.Dinov2WithRegistersModel, tf.Dinov2WithRegistersConfig),
    "clip": (tf.CLIPVisionModel, tf.CLIPVisionConfig),
    "siglip": (tf.SiglipVisionModel, tf.SiglipVisionConfig),
    "vit": (tf.ViTModel, tf.ViTConfig),
    "dinov3_vit": (tf.DINOv3ViTModel, tf.DINOv3ViTConfig),
    "pixio": (tf.PixioModel, tf.PixioConfig),
}


def count_parameters():
    """Parameters of each encoder, without the mask token of pre-training and ViT's pooler."""
    entries = tomllib.loads((ROOT / "backbones.toml").read_text())["backbone"]
    counts = {}
    for name, entry in sorted(entries.items()):
        model_class, config_class = MODELS[entry["family"]]
        with torch.device("meta"):
            model = model_class(config_class(**entry["config"]))
        outside = ("mask_token", "pooler.")
        counts[name] = sum(p.numel() for n, p in model.named_parameters() if not any(o in n for o in outside))
    return counts


def main():
    cases, store = make_cases()
    OUT.mkdir(exist_ok=True)
    (OUT / "cases.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    save_file(store, OUT / "vectors.safetensors")
    (OUT / "parameters.json").write_text(json.dumps(count_parameters(), indent=1) + "\n")
    for file in sorted(OUT.iterdir()):
        print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
