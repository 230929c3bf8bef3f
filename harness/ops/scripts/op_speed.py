"""PyTorch's milliseconds for the operations of examples/op_speed.rs, on two threads."""

import time

import torch
import torch.nn.functional as F

BATCH, TOKENS, WIDTH, HIDDEN, HEADS, REPEATS = 8, 264, 768, 3072, 12, 15


def measure(name, op):
    op()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        op()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    print(f"{name:<28} {times[0]:>8.2f} {times[REPEATS // 2]:>8.2f}")


def attention(qkv):
    batch, tokens, _ = qkv.shape
    q, k, v = (t.view(batch, tokens, HEADS, -1).transpose(1, 2) for t in qkv.split(WIDTH, -1))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, WIDTH)


@torch.no_grad()
def main():
    torch.set_num_threads(2)
    x, h = torch.randn(BATCH, TOKENS, WIDTH), torch.randn(BATCH, TOKENS, HIDDEN)
    vector = torch.randn(WIDTH) * 0.1
    print(f"{'operation':<28} {'best ms':>8} {'median':>8}")
    for out, width in ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)):
        weight, bias = torch.randn(out, width) * 0.02, torch.randn(out) * 0.02
        rows = x if width == WIDTH else h
        residual = torch.randn(BATCH, TOKENS, out)
        measure(f"linear {width} -> {out}", lambda: F.linear(rows, weight, bias))
        if out == HIDDEN:
            measure("linear_gelu", lambda: F.gelu(F.linear(rows, weight, bias)))
        if out == WIDTH:
            measure("linear_residual", lambda: residual + F.linear(rows, weight, bias))
    measure("gelu", lambda: F.gelu(h))
    measure("layer_norm", lambda: F.layer_norm(x, (WIDTH,), vector, vector, 1e-6))
    qkv = torch.randn(BATCH, TOKENS, 3 * WIDTH)
    measure(f"attention {BATCH} x {TOKENS}", lambda: attention(qkv))
    for tokens in (1032, 4008):
        packed = torch.randn(1, tokens, 3 * WIDTH)
        measure(f"attention 1 x {tokens}", lambda: attention(packed))


if __name__ == "__main__":
    main()
