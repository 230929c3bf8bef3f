//! What a request would do, before it does anything.

use std::collections::BTreeMap;

use schema::{Fingerprint, PolicyProtocol, RunPlan, Stages};

use super::calibrate::{self, Rates};
use super::memory::{EncoderSize, ProbeSize};
use super::prepare::{Data, prepared};
use super::request::Request;
use super::session::Host;
use super::{RunError, dense, knn};
use crate::progress::Reporter;
use crate::resolve::Resolved;

/// What a run reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Images of all steps; for k-NN, of the train split; for policies, of demonstrations.
    pub(super) trained: u64,
    /// Windows of one validation; for k-NN, images of the val split; for policies, frames of rollouts.
    pub(super) windows: u64,
    /// Validations.
    pub(super) validations: u64,
}

/// One run that a request comes to.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Its place among the request's cells: the first one that comes to it.
    pub cell: usize,
    /// What is to be done.
    pub plan: RunPlan,
    /// Runs of one stream share the encoder's passes.
    pub stream: Fingerprint,
    /// Whether it is done already.
    pub finished: bool,
    /// Images that go through the encoder.
    pub encoded: u64,
    /// Seconds of the encoder, which the runs of a stream share; an estimate.
    pub encode_seconds: f64,
    /// Seconds of its own: training and prediction, or search; an estimate.
    pub head_seconds: f64,
    /// Bytes of kept features that it needs on disk; an estimate.
    pub features: u64,
    /// Bytes that its stream takes whatever the heads, and the bytes of this head; estimates.
    pub memory: (u64, u64),
}

/// Every run that a request comes to.
#[derive(Clone, Debug)]
pub struct Outlines {
    /// In the order of the cells.
    pub runs: Vec<Outline>,
    /// Bytes of the device's memory that were planned with.
    pub memory: u64,
    /// Where the seconds come from.
    pub rates: Rates,
}

/// Finds data and backbones as [`execute`](super::execute) does, and says what it would do; with
/// `measure`, seconds come from a few passes of each backbone and steps of each head on this device.
pub fn outline(
    request: &Request,
    measure: bool,
    reporter: &Reporter,
) -> Result<Outlines, RunError> {
    prepared(request, reporter, |host, prepared| {
        let mut rates = Rates::of(&host.device);
        if measure {
            for (at, resolved) in prepared.resolved.iter().enumerate() {
                let of_it = prepared.planned.iter().filter(|planned| planned.backbone == at);
                let plans: Vec<&RunPlan> = of_it.map(|planned| &planned.plan).collect();
                calibrate::measure(host, resolved, &plans, &mut rates)?;
            }
        }
        let mut runs = Vec::new();
        for planned in &prepared.planned {
            let resolved = &prepared.resolved[planned.backbone];
            let Some(data) = prepared.data.get(&planned.data) else { continue };
            runs.push(one(host, resolved, (planned.cell, &planned.plan), data, &rates)?);
        }
        Ok(Outlines { runs, memory: host.memory, rates })
    })
}

fn one(
    host: &Host<'_>,
    resolved: &Resolved,
    (cell, plan): (usize, &RunPlan),
    data: &Data<'_>,
    rates: &Rates,
) -> Result<Outline, RunError> {
    let dimensions = resolved.dimensions();
    let side = resolved.preparation.resolution;
    let encoder = EncoderSize::of(&plan.backbone, &dimensions, side, host.dtype);
    let encode_flops = resolved.flops(side, side)?.unwrap_or(2.0 * plan.backbone.parameters as f64);
    let (stream, work) = match (data, &plan.protocol.stages) {
        (Data::Images(data), _) => (knn::stream(plan), knn::work(data)),
        (Data::Pairs(data), _) => (dense::stream(plan), dense::work(plan, data)?),
        (Data::Robots(_), Stages::Policy(policy)) => (None, robots(policy)),
        (Data::Robots(_), _) => (None, Work::default()),
    };
    // Windows are encoded at each validation, or once where they are kept.
    let mut encodings = work.validations;
    let mut features = 0;
    let (memory, trained, predicted) = match &plan.protocol.stages {
        Stages::Dense(protocol) => {
            let probe =
                ProbeSize::of(protocol, &plan.backbone, &encoder, (host.dtype, &host.device));
            let tokens = probe.tap_bytes(&encoder) * work.windows;
            if tokens <= host.request.kept_bytes {
                encodings = 1;
            }
            let (trained, predicted) = rates.head(plan, &encoder);
            (probe.parts(&encoder, plan.micro_batch), trained, predicted)
        }
        Stages::Knn(protocol) => {
            let width = super::embed::width(protocol.feature.tokens, &dimensions);
            features = (work.trained + work.windows) * 4 * width as u64;
            // Features are in the machine's memory, not the device's, and one run's at a time.
            ((encoder.pass(plan.micro_batch), 0), 0.0, rates.search(work.trained, width))
        }
        Stages::Policy(_) => ((encoder.pass(plan.micro_batch), 0), 0.0, 0.0),
    };
    let encoded = work.trained + work.windows * encodings;
    let predictions = (work.windows * work.validations) as f64;
    Ok(Outline {
        cell,
        stream: stream.unwrap_or_else(|| plan.key()),
        finished: host.store.finished(plan)?.is_some(),
        encoded,
        encode_seconds: encoded as f64 * rates.encode(plan, encode_flops),
        head_seconds: work.trained as f64 * trained + predictions * predicted,
        features,
        memory,
        plan: plan.clone(),
    })
}

/// A suite's frames, at most.
fn robots(policy: &PolicyProtocol) -> Work {
    let seeds = policy.seeds.len() as u64;
    let tasks = policy.tasks.iter();
    let (mut trained, mut windows) = (0, 0);
    for task in tasks {
        trained += (task.demonstrations * task.horizon) as u64;
        windows += (task.evaluations.len() * task.episodes * task.horizon) as u64 * seeds;
    }
    Work { trained, windows, validations: 1 }
}

/// Runs by the stream they share, in order.
pub(crate) fn streams(runs: &[Outline]) -> Vec<Vec<usize>> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut streams: Vec<Vec<usize>> = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let place = *places.entry(&run.stream.0).or_insert_with(|| {
            streams.push(Vec::new());
            streams.len() - 1
        });
        streams[place].push(at);
    }
    streams
}
