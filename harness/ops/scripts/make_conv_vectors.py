"""Writes tests/data/conv_vectors.safetensors: image operations and their gradients, computed by PyTorch in f64.

Inputs are f32; results and gradients are rounded to f32 once. Needs torch and safetensors. A key is
`operation.case.tensor`, where the case holds the operation's integers in the order of its arguments.
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

TO = pathlib.Path(__file__).parent.parent / "tests/data/conv_vectors.safetensors"

# batch, channels, outputs, height, width, kernel height, kernel width, stride, padding, bias
CONVOLUTIONS = [
    (1, 3, 5, 7, 9, 3, 3, 1, 1, True),
    (3, 5, 4, 9, 11, 3, 3, 2, 1, True),
    (3, 7, 3, 8, 5, 1, 1, 1, 0, False),
    (1, 4, 6, 10, 13, 1, 1, 2, 0, True),
    (3, 2, 3, 11, 8, 5, 3, 3, 2, False),
    (1, 3, 2, 6, 6, 4, 4, 2, 0, True),
    (1, 2, 2, 5, 7, 2, 3, 1, 3, True),
    (3, 17, 9, 6, 6, 3, 3, 1, 1, False),
]
# batch, channels, outputs, height, width, stride, bias
TRANSPOSED = [(1, 5, 3, 4, 7, 2, True), (3, 3, 4, 3, 5, 4, True), (1, 6, 2, 5, 3, 3, False), (3, 4, 5, 3, 3, 1, True)]
# batch, channels, height, width, new height, new width
RESIZES = [
    (1, 3, 4, 5, 8, 10), (3, 2, 7, 9, 13, 5), (1, 2, 1, 6, 5, 11), (3, 1, 6, 1, 1, 4), (1, 2, 11, 7, 4, 3), (1, 1, 5, 5, 5, 5),
]
# batch, channels, height, width
NORMS = [(1, 3, 5, 7), (3, 5, 4, 3), (2, 2, 1, 1)]


def main():
    torch.manual_seed(3)
    out = {}

    def record(name, op, inputs):
        leaves = {k: v.double().requires_grad_() for k, v in inputs.items()}
        y = op(**leaves)
        gradient = torch.randn(y.shape)
        gradients = torch.autograd.grad(y, list(leaves.values()), gradient.double())
        tensors = {**inputs, "y": y, "grad_y": gradient}
        tensors.update({f"grad_{k}": g for k, g in zip(leaves, gradients)})
        out.update({f"{name}.{k}": v.detach().float().clone() for k, v in tensors.items()})

    def key(op, *integers):
        return f"{op}.{'_'.join(map(str, integers))}"

    for b, c, o, h, w, kh, kw, stride, padding, bias in CONVOLUTIONS:
        inputs = {"x": torch.randn(b, c, h, w), "weight": torch.randn(o, c, kh, kw)}
        if bias:
            inputs["bias"] = torch.randn(o)
        record(
            key("conv2d", b, c, o, h, w, kh, kw, stride, padding),
            lambda x, weight, bias=None: F.conv2d(x, weight, bias, stride, padding),
            inputs,
        )
    for b, c, o, h, w, stride, bias in TRANSPOSED:
        inputs = {"x": torch.randn(b, c, h, w), "weight": torch.randn(c, o, stride, stride)}
        if bias:
            inputs["bias"] = torch.randn(o)
        record(
            key("conv_transpose2d", b, c, o, h, w, stride),
            lambda x, weight, bias=None: F.conv_transpose2d(x, weight, bias, stride),
            inputs,
        )
    for b, c, h, w, height, width in RESIZES:
        record(
            key("resize_bilinear", b, c, h, w, height, width),
            lambda x: F.interpolate(x, (height, width), mode="bilinear", align_corners=True),
            {"x": torch.randn(b, c, h, w)},
        )
    for shape in NORMS:
        b, c, h, w = shape
        inputs = {"x": torch.randn(shape) * 2 + 1, "weight": torch.randn(c), "bias": torch.randn(c)}
        mean, variance = torch.zeros(c).double(), torch.ones(c).double()
        name = key("batch_norm_train", *shape)
        record(name, lambda x, weight, bias: F.batch_norm(x, mean, variance, weight, bias, True, 1.0, 1e-5), inputs)
        out[f"{name}.mean"], out[f"{name}.variance"] = mean.float(), variance.float()
        record(
            key("batch_norm_eval", *shape),
            lambda x, weight, bias: F.batch_norm(x, mean.detach(), variance.detach(), weight, bias, False, 0.0, 1e-5),
            inputs,
        )
        out[f"{key('batch_norm_eval', *shape)}.mean"] = mean.float()
        out[f"{key('batch_norm_eval', *shape)}.variance"] = variance.float()
    x = torch.randn(2, 3, 4, 5)
    x[0, 0] = 0.0
    record("relu.0", lambda x: F.relu(x), {"x": x})
    TO.parent.mkdir(exist_ok=True)
    save_file(out, TO)
    print(f"{TO.name}: {len(out)} tensors, {TO.stat().st_size} bytes")


if __name__ == "__main__":
    main()
