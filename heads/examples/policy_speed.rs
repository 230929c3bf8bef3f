//! Training steps and actions a second of policies, at CortexBench's sizes with ViT-B features.
//!
//! Run: `cargo run --release -p pixio-eval-heads --example policy_speed`.

use std::time::Instant;

use candle_core::{Device, Tensor};
use pixio_eval_heads::policy::{Policy, PolicyConfig, PolicyError};
use schema::PolicyTraining;

// As in the program: what a step allocates would otherwise be mapped anew at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), PolicyError> {
    let norm = PolicyTraining {
        revision: 1,
        hidden: vec![256; 3],
        input_norm: Some(0.01),
        rate: 1e-3,
        weight_decay: 0.0,
        betas: [0.9, 0.999],
        eps: 1e-8,
        batch: 256,
    };
    let plain = PolicyTraining {
        hidden: vec![2000; 2],
        input_norm: None,
        rate: 1e-4,
        batch: 32,
        ..norm.clone()
    };
    for (name, training, inputs, actions) in
        [("norm, 3 x 256", norm, 3844, 4), ("2 x 2000", plain, 2601, 9)]
    {
        let device = &Device::Cpu;
        let mut policy = Policy::new(PolicyConfig { inputs, actions }, &training, 0, device)?;
        let x = Tensor::randn(0_f32, 1.0, (training.batch, inputs), device)?;
        let y = Tensor::randn(0_f32, 1.0, (training.batch, actions), device)?;
        let steps = rate(100, || policy.step(&x, &y).map(drop))?;
        let one = x.narrow(0, 0, 1)?;
        let acts = rate(100, || policy.act(&one).map(drop))?;
        let batch = training.batch;
        println!("{name}: {steps:.1} steps/s of {batch} x {inputs}, {acts:.1} actions/s alone");
    }
    Ok(())
}

fn rate(
    times: usize,
    mut act: impl FnMut() -> Result<(), PolicyError>,
) -> Result<f64, PolicyError> {
    for _ in 0..5 {
        act()?;
    }
    let start = Instant::now();
    for _ in 0..times {
        act()?;
    }
    Ok(times as f64 / start.elapsed().as_secs_f64())
}
