//! Milliseconds per operation at the B encoder's shapes: batch 8, 264 tokens, width 768.
//!
//! `RAYON_NUM_THREADS=2 cargo run --release -p pixio-eval-ops --example op_speed`, next to
//! `python harness/ops/scripts/op_speed.py`.

use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use pixio_eval_ops as ops;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REPEATS: usize = 15;

fn time(name: &str, mut op: impl FnMut() -> Result<Tensor>) -> Result<()> {
    op()?;
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let start = Instant::now();
        std::hint::black_box(op()?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{name:<28} {:>8.2} {:>8.2}", times[0], times[REPEATS / 2]);
    Ok(())
}

fn main() -> Result<()> {
    let (batch, tokens, width, hidden, heads) = (8, 264, 768, 3072, 12);
    let random = |shape: &[usize], scale: f32| Tensor::randn(0f32, scale, shape, &Device::Cpu);
    let x = random(&[batch, tokens, width], 1.0)?;
    let h = random(&[batch, tokens, hidden], 1.0)?;
    let vector = random(&[width], 0.1)?;
    println!("{:<28} {:>8} {:>8}", "operation", "best ms", "median");
    for (out, input) in [(3 * width, width), (width, width), (hidden, width), (width, hidden)] {
        let (weight, bias) = (random(&[out, input], 0.02)?, random(&[out], 0.02)?);
        let x = if input == width { &x } else { &h };
        let residual = random(&[batch, tokens, out], 1.0)?;
        time(&format!("linear {input} -> {out}"), || ops::linear(x, &weight, Some(&bias)))?;
        if out == hidden {
            time("linear_gelu", || ops::linear_gelu(x, &weight, Some(&bias)))?;
        }
        if out == width {
            time("linear_residual", || ops::linear_residual(x, &weight, Some(&bias), &residual))?;
        }
    }
    time("gelu", || ops::gelu(&h))?;
    time("layer_norm", || ops::layer_norm(&x, &vector, &vector, 1e-6))?;
    let qkv = random(&[batch, tokens, 3 * width], 1.0)?;
    time("attention 8 x 264", || ops::attention(&qkv, heads, None))?;
    for tokens in [1032, 4008] {
        let qkv = random(&[1, tokens, 3 * width], 1.0)?;
        time(&format!("attention 1 x {tokens}"), || ops::attention(&qkv, heads, None))?;
    }
    Ok(())
}
