//! Times the encoder: `encoder_speed [NAME] [BATCH] [REPEATS]` prints seconds a forward pass at
//! 256x256, f32 on the CPU, one line a repeat after one to warm up.
//! `harness/scripts/encoder_speed.py` runs it beside transformers.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use pixio_eval::backbone::{Placement, Wanted};
use pixio_eval::progress::{Reporter, Verbosity};
use pixio_eval::resolve::{Resolver, SourceOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = args.first().map_or("pixio-b", String::as_str);
    let number =
        |at: usize, default: usize| args.get(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (batch, repeats) = (number(1, 8)?, number(2, 3)?);
    let reporter = Reporter::new(Verbosity::Quiet);
    let options = SourceOptions { offline: true, ..SourceOptions::default() };
    let resolver = Resolver::new(options, &reporter)?;
    let resolved = resolver.resolve(&format!("random:{name}"))?;
    let backbone = resolved.load(&Placement { device: Device::Cpu, dtype: DType::F32 })?;
    let last = backbone.dimensions().blocks - 1;
    let images = Tensor::rand(-1f32, 1f32, (batch, 3, 256, 256), &Device::Cpu)?;
    for repeat in 0..=repeats {
        let began = Instant::now();
        let taps = backbone.forward(&images, &[last], Wanted::SUMMARY)?;
        std::hint::black_box(taps);
        if repeat > 0 {
            println!("{:.4}", began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}
