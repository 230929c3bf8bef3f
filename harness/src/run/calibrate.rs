//! How long things take on this device: measured on a few passes and steps, or guessed from their size.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use heads::dense::{Architecture, HeadConfig, Probe, Targets, initialise, outputs};
use schema::{DenseProtocol, Objective, RunPlan, Stages};
use serde::{Deserialize, Serialize};

use super::RunError;
use super::memory::EncoderSize;
use super::session::{Host, Lazy};
use crate::backbone::{Backbone, BackboneError, Placement, Wanted};
use crate::resolve::Resolved;

/// Passes and steps that are timed; the fastest counts.
const TIMES: usize = 2;

/// Seconds of the encoder and of heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Floating-point operations a second that are assumed where nothing was measured.
    assumed: f64,
    /// Seconds of an image through the encoder, by backbone and resolution.
    encode: BTreeMap<String, f64>,
    /// Seconds of a sample in a training step, and of a window's prediction, by backbone and head.
    head: BTreeMap<String, (f64, f64)>,
}

impl Rates {
    /// Guesses for a kind of device.
    pub(super) fn of(device: &Device) -> Self {
        // An order of magnitude: a processor's cores, a data centre's GPU in bf16.
        let assumed =
            if device.is_cuda() { 2e14 } else { 5e10 * rayon::current_num_threads() as f64 };
        Self { assumed, encode: BTreeMap::new(), head: BTreeMap::new() }
    }

    /// Whether anything was measured.
    pub fn measured(&self) -> bool {
        !self.encode.is_empty()
    }

    /// Seconds of an image through the encoder.
    pub(super) fn encode(&self, plan: &RunPlan, flops: f64) -> f64 {
        let measured = self.encode.get(&encoder_key(plan)).copied();
        measured.unwrap_or(flops / self.assumed)
    }

    /// Seconds of a sample in training, and of a window in validation.
    pub(super) fn head(&self, plan: &RunPlan, encoder: &EncoderSize) -> (f64, f64) {
        let Stages::Dense(protocol) = &plan.protocol.stages else { return (0.0, 0.0) };
        if let Some(measured) = self.head.get(&head_key(plan, protocol)) {
            return *measured;
        }
        let config = config(plan.backbone.width, protocol);
        let once = config.flops(encoder.grid(), protocol.sample.crop) / self.assumed;
        // Forward, and backward to weights and to what is below.
        (3.0 * once, once)
    }

    /// Seconds of one query of a search among so many.
    pub(super) fn search(&self, train: u64, width: usize) -> f64 {
        2.0 * train as f64 * width as f64 / self.assumed
    }
}

fn encoder_key(plan: &RunPlan) -> String {
    let side = match &plan.protocol.stages {
        Stages::Dense(protocol) => protocol.sample.crop,
        Stages::Knn(protocol) => protocol.image.crop,
        Stages::Policy(protocol) => protocol.image.crop,
    };
    format!("{}/{side}", plan.backbone.identity.0)
}

fn head_key(plan: &RunPlan, protocol: &DenseProtocol) -> String {
    let (feature, objective) = (&protocol.feature, outputs(&protocol.objective));
    let key =
        (encoder_key(plan), &protocol.head, feature.summary, objective, &protocol.training.groups);
    schema::fingerprint(&key).0
}

/// The head of a protocol on an encoder of that width.
fn config(width: usize, protocol: &DenseProtocol) -> HeadConfig {
    let joined = if protocol.feature.summary { 2 } else { 1 };
    HeadConfig {
        architecture: Architecture::from(&protocol.head),
        width: joined * width,
        outputs: outputs(&protocol.objective),
    }
}

/// A head in training on an encoder of that width, `images` at a time, outside a run.
pub(super) fn probe(
    protocol: &DenseProtocol,
    width: usize,
    placement: &Placement,
    images: usize,
) -> Result<Probe, RunError> {
    let mut draw = |tensor: usize, element: usize| ((tensor + 7 * element) % 13) as f64 / 13.0;
    let Placement { device, dtype } = placement;
    let head = initialise(&config(width, protocol), *dtype, device, &mut draw)?;
    let probe = Probe::new(head, protocol.objective.clone(), &protocol.training, 1000)?;
    Ok(probe.in_parts_of(images))
}

/// Targets of a batch, every pixel valid: all depths of the range, or all classes.
pub(super) fn targets(protocol: &DenseProtocol, device: &Device) -> Result<Targets, RunError> {
    let (training, crop) = (&protocol.training, protocol.sample.crop);
    let shape = [training.groups * training.group_size, crop, crop];
    let pixels = shape.iter().product::<usize>();
    let made = match &protocol.objective {
        Objective::Depth { max, .. } => {
            let metres = |i: usize| (max * (1 + i % 17) as f64 / 18.0) as f32;
            let metres = (0..pixels).map(metres).collect();
            Targets::depth_from_host(metres, shape, &protocol.objective, device)
        }
        Objective::Segmentation { classes, .. } => {
            let labels: Vec<u8> = (0..pixels).map(|i| (i % (*classes).max(1)) as u8).collect();
            Targets::labels(labels, shape).on(device)
        }
    };
    Ok(made.map_err(BackboneError::Candle)?)
}

/// Times one backbone, and each kind of head on it.
pub(super) fn measure(
    host: &Host<'_>,
    resolved: &Resolved,
    plans: &[&RunPlan],
    rates: &mut Rates,
) -> Result<(), RunError> {
    let lazy = Lazy::of(resolved);
    for plan in plans {
        if let std::collections::btree_map::Entry::Vacant(place) =
            rates.encode.entry(encoder_key(plan))
        {
            host.reporter.detail(format!("{}: timing the encoder", plan.backbone.name));
            let side = resolved.preparation.resolution;
            place.insert(encode(host, lazy.get(host)?, plan.micro_batch, side)?);
        }
        let Stages::Dense(protocol) = &plan.protocol.stages else { continue };
        if let std::collections::btree_map::Entry::Vacant(place) =
            rates.head.entry(head_key(plan, protocol))
        {
            host.reporter
                .detail(format!("{}: timing the head of {}", plan.backbone.name, plan.task));
            let grid = protocol.sample.crop / resolved.dimensions().patch.max(1);
            place.insert(head(host, plan, protocol, grid)?);
        }
    }
    resolved.release();
    Ok(())
}

fn encode(
    host: &Host<'_>,
    backbone: &dyn Backbone,
    images: usize,
    side: usize,
) -> Result<f64, RunError> {
    let candle = |error| RunError::Backbone(BackboneError::Candle(error));
    let batch = Tensor::zeros((images, 3, side, side), DType::F32, &host.device).map_err(candle)?;
    let last = backbone.dimensions().blocks - 1;
    let wanted = Wanted {
        patches_norm: backbone.dimensions().patches,
        summary: backbone.dimensions().summary_tokens > 0,
        ..Wanted::default()
    };
    fastest(&host.device, images, || {
        backbone.forward(&batch, &[last], wanted)?;
        Ok(())
    })
}

fn head(
    host: &Host<'_>,
    plan: &RunPlan,
    protocol: &DenseProtocol,
    grid: usize,
) -> Result<(f64, f64), RunError> {
    let candle = |error| RunError::Backbone(BackboneError::Candle(error));
    let placement = Placement { device: host.device.clone(), dtype: host.dtype };
    let (training, device) = (&protocol.training, &host.device);
    let batch = training.groups * training.group_size;
    let mut probe = probe(protocol, plan.backbone.width, &placement, plan.micro_batch)?;
    let shape = (batch, probe.head().config().width, grid, grid);
    let taps: Vec<Tensor> = protocol
        .feature
        .blocks
        .iter()
        .map(|_| Tensor::rand(-1f32, 1f32, shape, device))
        .collect::<Result<_, _>>()
        .map_err(candle)?;
    let targets = targets(protocol, device)?;
    let trained = fastest(device, batch, || {
        probe.train_step(&taps, &targets)?;
        Ok(())
    })?;
    let images = plan.micro_batch.min(batch);
    let some = |tap: &Tensor| tap.narrow(0, 0, images)?.contiguous();
    let taps: Vec<Tensor> = taps.iter().map(some).collect::<Result<_, _>>().map_err(candle)?;
    let window = protocol.evaluation.window;
    let predicted = fastest(device, images, || {
        let maps = probe.predict(&taps, (window, window))?;
        drop(maps.flatten_all().and_then(|maps| maps.to_vec1::<f32>()).map_err(candle)?);
        Ok(())
    })?;
    Ok((trained, predicted))
}

/// Seconds of one of `images`, by the fastest of a few times after one that counts for nothing.
fn fastest(
    device: &Device,
    images: usize,
    mut once: impl FnMut() -> Result<(), RunError>,
) -> Result<f64, RunError> {
    let candle = |error| RunError::Backbone(BackboneError::Candle(error));
    once()?;
    let mut best = f64::INFINITY;
    for _ in 0..TIMES {
        device.synchronize().map_err(candle)?;
        let began = Instant::now();
        once()?;
        device.synchronize().map_err(candle)?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best / images.max(1) as f64)
}
