"""Makes harness/tests/families: what the reference models compute with weights made from a formula.

    python harness/scripts/make_family_vectors.py

The reference is transformers; for VC-1, whose authors use it, timm; for R3M torchvision. Positions are
resized as each family's own code does, and as transformers does where that differs.

Needs torch, torchvision, transformers, timm, scipy, safetensors and numpy. Writes `cases.json` (configurations, tensor names and
shapes, image sizes), `vectors.safetensors` (tokens and pooled outputs) and `parameters.json` (the exact
number of parameters of every entry of backbones.toml, counted by the reference without weights).

No weights or images are stored: element i of tensor t (in the order of names) is made from the counter
t * 2^32 + i by SplitMix64, here and in harness/tests/common/vectors.rs alike.
"""

import copy
import functools
import json
import math
import pathlib
import tempfile
import tomllib

import numpy as np
import scipy.ndimage
import timm
import torch
import transformers as tf
from timm.layers import resample_abs_pos_embed
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
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
    elif leaf == "running_var":
        values = 1.0 + 0.5 * u
    elif len(shape) == 1 and leaf == "weight":
        values = 1.0 + 0.2 * u
    elif len(shape) == 1:
        values = 0.1 * u
    elif any(part in name for part in ("token", "position", "probe", "pos_embed")):
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


def timm_vit(c, image=None, **options):
    """timm's ViT of the sizes in a configuration of transformers."""
    return timm.models.VisionTransformer(
        img_size=image or c["image_size"],
        patch_size=c.get("patch_size", 16),
        embed_dim=c["hidden_size"],
        depth=c["num_hidden_layers"],
        num_heads=c["num_attention_heads"],
        mlp_ratio=c.get("mlp_ratio") or c["intermediate_size"] / c["hidden_size"],
        num_classes=0,
        **options,
    )


def resnet(c):
    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[c["layer_type"]]
    model = ResNet(block, list(c["depths"]))
    model.fc = torch.nn.Identity()
    return model


def depth_config(**backbone):
    width = backbone["hidden_size"]
    return tf.DepthAnythingConfig(
        backbone_config=tf.Dinov2Config(reshape_hidden_states=False, **backbone),
        reassemble_hidden_size=width,
        neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4,
        head_hidden_size=4,
    )


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
    "theia": (tf.ViTModel, tf.ViTConfig, sizes(image_size=48), P16),
    "sam": (
        tf.SamVisionModel,
        tf.SamVisionConfig,
        [
            c | {"mlp_dim": c.pop("intermediate_size"), "global_attn_indexes": ([1], [1, 4])[i]}
            for i, c in enumerate(sizes(image_size=64, window_size=3, output_channels=8))
        ],
        P16,
    ),
    "depth_anything": (
        tf.DepthAnythingForDepthEstimation,
        depth_config,
        [c | {"out_indices": [0, 1, 2, 3]} for c in ratio(image_size=70, mlp_ratio=2)],
        ((70, 70), (42, 84)),
    ),
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


def by_factor(e, patch):
    """Position resize of these embeddings as DINOv2's own code does it: by the factor (new + 0.1) / old."""
    table = e.position_embeddings
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


def between_corners(grid, rows, columns):
    """Position resize as the code of ViT's and SigLIP's authors does it."""
    side = grid.shape[0]
    return torch.from_numpy(scipy.ndimage.zoom(grid.numpy(), (rows / side, columns / side, 1), order=1))


def as_timm(grid, rows, columns):
    """Position resize as timm does it."""
    table = grid.reshape(1, -1, grid.shape[-1])
    return resample_abs_pos_embed(table, [rows, columns], grid.shape[:2], num_prefix_tokens=0)


def by_size(grid, rows, columns):
    """Bicubic, as ViTDet and VC-1 do it."""
    grid = grid.permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(grid, size=(rows, columns), mode="bicubic")[0].permute(1, 2, 0)


def with_resize(e, patch, way):
    """`interpolate_pos_encoding` of these embeddings with another way to resize."""
    if hasattr(e, "position_embedding"):
        table, prefix = e.position_embedding.weight[None], 1 if hasattr(e, "class_embedding") else 0
    else:
        table, prefix = e.position_embeddings, 1
    side = math.isqrt(table.shape[1] - prefix)

    def resize(_x, height, width):
        grid = table[0, prefix:].detach().reshape(side, side, -1)
        grid = way(grid, height // patch, width // patch)
        return torch.cat([table[:, :prefix], grid.reshape(1, -1, table.shape[-1])], 1)

    return resize


def other_ways(family, model):
    """Where positions enter, and other ways than transformers' to resize them, by name."""
    inner = model.backbone if family == "depth_anything" else model
    if family in ("dinov2", "theia", "depth_anything"):
        return inner.embeddings, {"original": by_factor(inner.embeddings, inner.config.patch_size)}
    ways = {"vit": ("original", "timm"), "siglip": ("original", "timm"), "clip": ("timm",)}.get(family, ())
    resizes = {"original": between_corners, "timm": as_timm}
    e = getattr(inner, "embeddings", None)
    return e, {way: with_resize(e, model.config.patch_size, resizes[way]) for way in ways}


def blocks_of(model):
    model = getattr(model, "backbone", model)
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
    if family in ("mae", "clip", "siglip", "vit", "theia"):
        arguments["interpolate_pos_encoding"] = True
    if family == "mae":
        count = image.shape[2] // 16 * (image.shape[3] // 16)
        arguments["noise"] = torch.arange(count, dtype=torch.float32)[None]
    with torch.no_grad():
        if family == "depth_anything":
            model.backbone(image)
            final = model.backbone.layernorm(kept[-1])
        else:
            out = (in_size(model, image) if family == "sam" else model)(image, **arguments)
            final = out.last_hidden_state
    for hook in hooks:
        hook.remove()
    if family == "depth_anything":
        return kept, final, None
    if family == "sam":  # the neck's map; blocks have no final norm
        kept = [tokens.flatten(1, 2) for tokens in kept]
        return kept, kept[-1], final.flatten(2).transpose(1, 2)
    if family == "clip":  # transformers applies the final norm to the class token alone
        with torch.no_grad():
            final = model.post_layernorm(final)
    # ViT's pooler is a layer on top of the class token, and MAE has none.
    pooled = None if family in ("mae", "vit", "theia") else out.pooler_output
    return kept, final, pooled


def in_size(model, image):
    """A copy of SAM's encoder that takes images of another size: transformers' takes its own alone."""
    model = copy.deepcopy(model)
    encoder = model.vision_encoder
    size, patch = image.shape[2:], model.config.patch_size
    table = by_size(encoder.pos_embed.data[0], *(side // patch for side in size))
    encoder.pos_embed = torch.nn.Parameter(table[None])
    encoder.patch_embed.image_size = tuple(size)
    return model


def keep(tokens, prefix):
    """One in so many patches; class tokens all."""
    return tokens[:, prefix:][:, ::EVERY].contiguous().clone()


def record(store, name, family, config, kept, final, pooled):
    class_tokens = 0 if family in ("siglip", "sam") else 1
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
    torch.manual_seed(0)
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


PREFIX = {"theia": "backbone.model."}


def timm_names(family, c):
    """Names and shapes of timm's model of the same encoder."""
    if family not in ("mae", "vit", "clip", "dinov2"):
        return None
    options = {}
    if family == "clip":
        options = {"pre_norm": True}
    if family == "dinov2":
        options = {"init_values": 1.0}
        if c["use_swiglu_ffn"]:
            hidden = 2 * (-(-c["hidden_size"] * c["mlp_ratio"] * 2 // 3 // 8) * 8)
            options |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
            c = c | {"mlp_ratio": hidden / c["hidden_size"]}
    return {n: list(t.shape) for n, t in timm_vit(c, **options).state_dict().items()}


def filled(model, prefix):
    """Gives a model weights by the formula, under the names they have in files; returns names and shapes."""
    state = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    shapes = {f"{prefix}{n}": list(state[n].shape) for n in sorted(state)}
    weights = {n.removeprefix(prefix): weight(i, n, s) for i, (n, s) in enumerate(shapes.items())}
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    return shapes


def image_of(height, width):
    image = torch.from_numpy(uniform(IMAGE, 3 * height * width).astype(np.float32))
    return image.reshape(1, 3, height, width) * 2


def make_others(cases, store):
    """VC-1 by timm, R3M by torchvision."""
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    for number, c in enumerate(sizes(image_size=48)):
        case, images = f"vc1.{number}", P16
        model = timm_vit(c, norm_layer=norm).eval()
        shapes = filled(model, "")
        cases.append({"name": case, "family": "vc1", "config": c | {"model_type": "vc1"}, "tensors": shapes, "images": images})
        for height, width in images:
            # As its authors load a checkpoint for another size.
            state = model.state_dict()
            table = state["pos_embed"]
            side = math.isqrt(table.shape[1] - 1)
            grid = by_size(table[0, 1:].reshape(side, side, -1), height // 16, width // 16)
            state["pos_embed"] = torch.cat([table[:, :1], grid.reshape(1, -1, table.shape[2])], 1)
            sized = timm_vit(c, image=(height, width), norm_layer=norm).eval()
            sized.load_state_dict(state)
            kept = []
            for block in sized.blocks:
                block.register_forward_hook(lambda _m, _i, out: kept.append(out))
            with torch.no_grad():
                final = sized.forward_features(image_of(height, width))
            record(store, f"{case}.{height}x{width}", "vc1", None, kept, final, None)
    depths = [("basic", [2, 1, 1, 1]), ("bottleneck", [1, 1, 2, 1])]
    for number, (kind, depth) in enumerate(depths):
        c = {"model_type": "r3m", "layer_type": kind, "depths": depth}
        case, images = f"r3m.{number}", ((64, 64), (32, 96))
        model = resnet(c).eval()
        shapes = filled(model, "module.convnet.")
        cases.append({"name": case, "family": "r3m", "config": c, "tensors": shapes, "images": images})
        for height, width in images:
            stages = []
            hooks = [
                getattr(model, f"layer{i}").register_forward_hook(lambda _m, _i, out: stages.append(out))
                for i in range(1, 5)
            ]
            with torch.no_grad():
                final = model(image_of(height, width))
            for hook in hooks:
                hook.remove()
            name = f"{case}.{height}x{width}"
            for stage in (0, 1, 3):
                store[f"{name}.block{stage}.class"] = stages[stage].mean((2, 3))[:, None].contiguous()
            store[f"{name}.final.class"] = final[:, None].contiguous()


def make_cases():
    cases, store = [], {}
    for family, (model_class, config_class, configs, images) in CASES.items():
        for number, options in enumerate(configs):
            config = config_class(**options)
            model = model_class(config).eval()
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                with safe_open(f"{folder}/model.safetensors", "pt") as file:
                    shapes = {n: file.get_slice(n).get_shape() for n in sorted(file.keys())}
                written = json.loads(pathlib.Path(folder, "config.json").read_text())
                shapes = dict(sorted(shapes.items()))
                weights = {n: weight(i, PREFIX.get(family, "") + n, s) for i, (n, s) in enumerate(shapes.items())}
                save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})
                model = model_class.from_pretrained(folder, attn_implementation="eager").eval()
            case = f"{family}.{number}"
            if family == "theia":
                written["model_type"] = "theia"
            prefix = PREFIX.get(family, "")
            listed = {f"{prefix}{n}": s for n, s in shapes.items()}
            cases.append({"name": case, "family": family, "config": written, "tensors": listed, "images": images})
            if names := timm_names(family, written):
                cases[-1]["timm"] = names
            for height, width in images:
                image = image_of(height, width)
                name = f"{case}.{height}x{width}"
                record(store, name, family, config, *forward(family, model, image))
                embeddings, ways = other_ways(family, model)
                for way, resize in ways.items():
                    embeddings.interpolate_pos_encoding = resize
                    record(store, f"{name}.{way}", family, config, *forward(family, model, image))
                    del embeddings.interpolate_pos_encoding
            wrong = trap(family, model, image)
            if wrong is not None:
                store[f"{name}.trap"] = wrong[:, ::EVERY].contiguous().clone()
    make_others(cases, store)
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
    "theia": (tf.ViTModel, tf.ViTConfig),
    "sam": (tf.SamVisionModel, tf.SamVisionConfig),
    "depth_anything": (tf.Dinov2Model, functools.partial(tf.Dinov2Config, image_size=518)),
}


OTHERS = {"vc1": lambda c: timm_vit(c | {"image_size": 224}), "r3m": resnet}


def count_parameters():
    """Parameters of each encoder, without the mask token of pre-training and ViT's pooler."""
    entries = tomllib.loads((ROOT / "backbones.toml").read_text())["backbone"]
    counts = {}
    for name, entry in sorted(entries.items()):
        family, config = entry["family"], entry["config"]
        with torch.device("meta"):
            if family in OTHERS:
                model = OTHERS[family](config)
            else:
                model_class, config_class = MODELS[family]
                model = model_class(config_class(**config))
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
