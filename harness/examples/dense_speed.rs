//! Times dense training and evaluation at 256x256, f32 on the CPU: `dense_speed [NAME] [BATCH]` reads
//! one kind of work a line from its input and prints the seconds one pass of it took.
//!
//! - `dpt-step`, `linear-step`: encode a batch, then a head's forward, loss, backward and AdamW;
//! - `image`: an image of 426x560 by sliding window, with the DPT head;
//! - `encode` (at the DPT head's taps), `dpt`, `linear`: the parts of a step;
//! - `shared`: both heads' steps on one encoder pass.
//!
//! `harness/scripts/dense_speed.py` runs it beside PyTorch.

use std::io::BufRead;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use heads::dense::{Architecture, HeadConfig, Probe, Targets, assemble, initialise};
use pixio_eval::backbone::{Backbone, Placement, Wanted};
use pixio_eval::progress::{Reporter, Verbosity};
use pixio_eval::resolve::{Resolver, SourceOptions};
use schema::{Objective, TrainingStage};
use tasks::metrics::windows;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const SIDE: usize = 256;
const STRIDE: usize = 170;
/// NYUv2 without its border.
const IMAGE: [usize; 2] = [426, 560];

fn main() -> Outcome<()> {
    pixio_eval::allocator::keep_freed_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = args.first().map_or("pixio-b", String::as_str);
    let batch = args.get(1).map_or(Ok(4), |text| text.parse())?;
    let mut bench = Bench::new(name, batch)?;
    for line in std::io::stdin().lock().lines() {
        let work = line?;
        let began = Instant::now();
        bench.run(&work)?;
        println!("{:.4}", began.elapsed().as_secs_f64());
    }
    Ok(())
}

struct Bench {
    backbone: Box<dyn Backbone>,
    blocks: Vec<usize>,
    images: Tensor,
    targets: Targets,
    /// `[3, 426, 560]`.
    whole: Tensor,
    /// What `dpt` and `linear` run on.
    taps: Vec<Tensor>,
    dpt: Probe,
    linear: Probe,
}

impl Bench {
    fn new(name: &str, batch: usize) -> Outcome<Self> {
        let device = Device::Cpu;
        let reporter = Reporter::new(Verbosity::Quiet);
        let options = SourceOptions { offline: true, ..SourceOptions::default() };
        let resolver = Resolver::new(options, &reporter)?;
        let placement = Placement { device: device.clone(), dtype: DType::F32 };
        let backbone = resolver.resolve(&format!("random:{name}"))?.load(&placement)?;
        let quarter = backbone.dimensions().blocks / 4;
        let blocks: Vec<usize> = (1..=4).map(|i| quarter * i - 1).collect();
        let width = 2 * backbone.dimensions().width;
        let dpt = Architecture::Dpt { channels: [256, 512, 1024, 1024], features: 256 };
        let images = Tensor::randn(0f32, 1f32, (batch, 3, SIDE, SIDE), &device)?;
        let taps = encode(&*backbone, &images, &blocks)?;
        Ok(Self {
            blocks,
            images,
            targets: Targets::depth(Tensor::rand(0.5f32, 9.5f32, (batch, SIDE, SIDE), &device)?),
            whole: Tensor::randn(0f32, 1f32, (3, IMAGE[0], IMAGE[1]), &device)?,
            taps,
            dpt: probe(dpt, width, batch, 1e-4)?,
            linear: probe(Architecture::Linear, width, batch, 2e-4)?,
            backbone,
        })
    }

    fn run(&mut self, work: &str) -> Outcome<()> {
        let last = self.blocks.len() - 1;
        match work {
            "dpt-step" => {
                let taps = encode(&*self.backbone, &self.images, &self.blocks)?;
                self.dpt.train_step(&taps, &self.targets)?;
            }
            "linear-step" => {
                let taps = encode(&*self.backbone, &self.images, &self.blocks[last..])?;
                self.linear.train_step(&taps, &self.targets)?;
            }
            "shared" => {
                let taps = encode(&*self.backbone, &self.images, &self.blocks)?;
                self.dpt.train_step(&taps, &self.targets)?;
                self.linear.train_step(&taps[last..], &self.targets)?;
            }
            "encode" => {
                std::hint::black_box(encode(&*self.backbone, &self.images, &self.blocks)?);
            }
            "dpt" => {
                self.dpt.train_step(&self.taps, &self.targets)?;
            }
            "linear" => {
                self.linear.train_step(&self.taps[last..], &self.targets)?;
            }
            "image" => {
                std::hint::black_box(self.image()?);
            }
            other => return Err(format!("no work is called {other}").into()),
        }
        Ok(())
    }

    /// Depth `[426, 560]`, the mean over the windows, all windows in one batch.
    fn image(&self) -> Outcome<Vec<f32>> {
        let [height, width] = IMAGE;
        let places = windows(height, width, SIDE, STRIDE);
        let cut = |place: &tasks::metrics::Window| {
            self.whole
                .narrow(1, place.top, place.height)?
                .narrow(2, place.left, place.width)?
                .pad_with_zeros(1, 0, SIDE - place.height)?
                .pad_with_zeros(2, 0, SIDE - place.width)
        };
        let cut: Vec<Tensor> = places.iter().map(cut).collect::<candle_core::Result<_>>()?;
        let taps = encode(&*self.backbone, &Tensor::stack(&cut, 0)?, &self.blocks)?;
        let predicted = self.dpt.predict(&taps, (SIDE, SIDE))?.flatten_all()?.to_vec1::<f32>()?;
        let (mut sums, mut counts) = (vec![0f32; height * width], vec![0f32; height * width]);
        for (place, predicted) in places.iter().zip(predicted.chunks(SIDE * SIDE)) {
            for row in 0..place.height {
                let to = (place.top + row) * width + place.left;
                let values = &predicted[row * SIDE..row * SIDE + place.width];
                for (at, value) in values.iter().enumerate() {
                    sums[to + at] += value;
                    counts[to + at] += 1.0;
                }
            }
        }
        Ok(sums.into_iter().zip(counts).map(|(sum, count)| sum / count).collect())
    }
}

/// Head inputs `[B, 2D, 16, 16]` at `blocks`.
fn encode(backbone: &dyn Backbone, images: &Tensor, blocks: &[usize]) -> Outcome<Vec<Tensor>> {
    let wanted = Wanted { patches_norm: true, summary_norm: true, ..Wanted::default() };
    let taps = backbone.forward(images, blocks, wanted)?;
    let assembled = taps.iter().map(|tap| {
        let patches = tap.patches_norm.as_ref().ok_or("no patch tokens")?;
        Ok(assemble(patches, tap.summary_norm.as_ref(), tap.grid.ok_or("no grid")?)?)
    });
    assembled.collect()
}

fn probe(
    architecture: Architecture,
    width: usize,
    batch: usize,
    learning_rate: f64,
) -> Outcome<Probe> {
    // A low-discrepancy sequence: time does not depend on the values.
    let mut draw = |tensor: usize, element: usize| {
        ((tensor * 7919 + element) as f64 * 0.618_033_988_749_895).fract()
    };
    let config = HeadConfig { architecture, width, outputs: 1 };
    let head = initialise(&config, DType::F32, &Device::Cpu, &mut draw)?;
    let training = TrainingStage {
        revision: 1,
        epochs: 60,
        groups: 1,
        group_size: batch,
        learning_rate,
        weight_decay: 0.01,
        betas: [0.9, 0.999],
        eps: 1e-8,
        warmup: 0.1,
        power: 0.9,
    };
    Ok(Probe::new(head, Objective::Depth { min: 0.001, max: 10.0 }, &training, 60 * 757)?)
}
