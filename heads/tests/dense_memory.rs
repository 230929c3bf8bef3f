//! The memory that training is planned with, against what it takes.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use candle_core::{DType, Device, Tensor};
use ops::Format;
use pixio_eval_heads::dense::{Architecture, HeadConfig, Probe, Targets, initialise, outputs};
use schema::{Objective, TrainingStage};

/// Counts what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(layout.size(), SeqCst) + layout.size(), SeqCst);
        // SAFETY: as required of the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as required of the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes held during one training step beyond what was held before the probe, and the estimate.
fn step(architecture: Architecture, objective: &Objective, samples: usize) -> (f64, f64) {
    let (width, side, crop) = (192, 16, 256);
    let config = HeadConfig { architecture, width, outputs: outputs(objective) };
    let taps: Vec<Tensor> = (0..config.taps())
        .map(|_| Tensor::randn(0f32, 1.0, (samples, width, side, side), &Device::Cpu).unwrap())
        .collect();
    let shape = [samples, crop, crop];
    let targets = match objective {
        Objective::Depth { .. } => {
            Targets::depth(Tensor::full(2f32, &shape[..], &Device::Cpu).unwrap())
        }
        Objective::Segmentation { .. } => Targets::labels(vec![1; samples * crop * crop], shape),
    };
    let training = TrainingStage {
        revision: 1,
        epochs: 1,
        groups: 1,
        group_size: samples,
        learning_rate: 1e-4,
        weight_decay: 0.01,
        betas: [0.9, 0.999],
        eps: 1e-8,
        warmup: 0.0,
        power: 0.9,
    };
    let before = HELD.load(SeqCst);
    let mut draw = |_, element| (element % 7) as f64 / 7.0;
    let head = initialise(&config, DType::F32, &Device::Cpu, &mut draw).unwrap();
    let mut probe = Probe::new(head, objective.clone(), &training, 9).unwrap();
    MOST.store(before, SeqCst);
    for _ in 0..2 {
        probe.train_step(&taps, &targets).unwrap();
    }
    let took = MOST.load(SeqCst) - before;
    let memory = config.training_memory((side, side), crop, DType::F32, Format::Planes);
    let planned = memory.fixed + memory.workspace + samples as u64 * memory.per_sample;
    (took as f64, planned as f64)
}

#[test]
fn training_takes_what_is_planned() {
    let depth = Objective::Depth { min: 0.001, max: 10.0 };
    let classes = |classes| Objective::Segmentation { classes, ignore: 255 };
    let dpt = |features: usize| Architecture::Dpt {
        channels: [features, 2 * features, 4 * features, 4 * features],
        features,
    };
    for (name, architecture) in
        [("linear", Architecture::Linear), ("dpt", dpt(32)), ("dpt", dpt(64))]
    {
        for objective in [depth.clone(), classes(7), classes(150)] {
            for samples in [1, 4] {
                let (took, planned) = step(architecture, &objective, samples);
                let ratio = planned / took;
                println!("{name} {objective:?} {samples}: {took:.3e} {planned:.3e} {ratio:.2}");
                assert!((1.0..1.4).contains(&ratio), "{name} {objective:?} x {samples}: {ratio}");
            }
        }
    }
}
