//! Dense runs of one data set: as many on one stream as memory allows.

use std::ops::Range;
use std::time::Instant;

use jiff::Timestamp;
use results::RunDir;
use schema::{RunPlan, Stages};

use super::memory::{EncoderSize, ProbeSize};
use super::request::Report;
use super::session::{Host, Lazy, label};
use super::{RunError, dense, memory};
use crate::backbone::Backbone;
use crate::device;
use crate::fault::Fault;

impl Host<'_> {
    /// The runs that train together, in order: as many as memory allows.
    pub(super) fn streams(
        &self,
        lazy: &Lazy<'_>,
        name: &str,
        images: usize,
        runs: &[(RunPlan, RunDir)],
    ) -> Vec<Range<usize>> {
        let dimensions = lazy.resolved.dimensions();
        let side = lazy.resolved.preparation.resolution;
        let sized = runs.iter().filter_map(|(plan, _)| match &plan.protocol.stages {
            Stages::Dense(protocol) => {
                let encoder = EncoderSize::of(&plan.backbone, &dimensions, side, self.dtype);
                Some((
                    encoder,
                    ProbeSize::of(protocol, &plan.backbone, &encoder, (self.dtype, &self.device)),
                ))
            }
            Stages::Knn(_) | Stages::Policy(_) => None,
        });
        let (encoders, probes): (Vec<_>, Vec<_>) = sized.unzip();
        let Some(encoder) = encoders.first() else { return Vec::new() };
        let streams = memory::streams(&probes, encoder, images, self.memory);
        let giga = |bytes: u64| bytes as f64 / 1e9;
        let have = giga(self.memory);
        if streams.len() > 1 {
            self.reporter.say(format!(
                "{name}: {} heads do not fit into {have:.1} GB of memory together: they are trained \
                 in {} passes over the data (--memory-gb, --batch-size)",
                probes.len(),
                streams.len()
            ));
        }
        for (probe, (plan, _)) in probes.iter().zip(runs) {
            let needs = probe.alone(encoder, images);
            if needs > self.memory {
                let label = label(plan);
                self.reporter.warn(format!(
                    "{label} may need {:.1} GB of memory with {images} images at a time, and {have:.1} \
                     GB are there: a smaller --batch-size needs less",
                    giga(needs)
                ));
            }
        }
        streams
    }

    /// Trains every dense head of one data set on one stream; with half as many images at a time, and
    /// from the last checkpoints on, where the device had no memory for them.
    pub(super) fn dense(
        &self,
        lazy: &Lazy<'_>,
        data: &dense::Opened,
        mut images: usize,
        mut runs: Vec<(RunPlan, RunDir)>,
        report: &mut Report,
    ) -> Result<(), RunError> {
        let at = (Timestamp::now(), Instant::now());
        while !runs.is_empty() {
            let results = match lazy.get(self) {
                Ok(backbone) => self.train(backbone, data, images, &runs),
                // What ends the stream ends each of its runs.
                Err(error) => {
                    let why = error.to_string();
                    let rest = (1..runs.len()).map(|_| Err(RunError::Stream(why.clone())));
                    std::iter::once(Err(error)).chain(rest).collect()
                }
            };
            let short = |error: &RunError| error.fault() == Some(Fault::Memory);
            let error = results.iter().filter_map(|result| result.as_ref().err());
            let error = error.filter(|error| short(error)).map(ToString::to_string).next();
            let mut again = Vec::new();
            let mut interrupted = false;
            for ((plan, dir), result) in runs.into_iter().zip(results) {
                match result {
                    Err(RunError::Interrupted) => interrupted = true,
                    Err(failed)
                        if error.is_some()
                            && images > 1
                            && (short(&failed) || matches!(failed, RunError::Stream(_))) =>
                    {
                        again.push((plan, dir));
                    }
                    result => {
                        let measured = result.map(|trained| dense::measured(trained, data));
                        if self.end(lazy, plan, &dir, measured, at, report)? {
                            self.clear(dir.folder());
                        }
                    }
                }
            }
            if interrupted {
                return Err(RunError::Interrupted);
            }
            if let Some(why) = error.filter(|_| !again.is_empty()) {
                let device = device::name(&self.device);
                let halved = again.iter_mut().map(|(plan, dir)| (plan, dir)).collect();
                self.halve(halved, &RunError::OutOfMemory { device, why })?;
                images /= 2;
            }
            runs = again;
        }
        Ok(())
    }

    fn train(
        &self,
        backbone: &dyn Backbone,
        data: &dense::Opened,
        images: usize,
        runs: &[(RunPlan, RunDir)],
    ) -> Vec<Result<dense::Trained, RunError>> {
        let plans: Vec<_> = runs
            .iter()
            .filter_map(|(plan, dir)| match &plan.protocol.stages {
                Stages::Dense(protocol) => Some((plan, protocol, dir)),
                Stages::Knn(_) | Stages::Policy(_) => None,
            })
            .collect();
        let stream = dense::Stream {
            backbone,
            device: &self.device,
            uploader: &self.uploader,
            dtype: self.dtype,
            data,
            micro_batch: images,
            workers: self.workers(),
            head_weights: self.request.head_weights.as_deref(),
            cache: dense::Cache { folder: &self.cache, limit: self.request.kept_bytes },
            pictures: self.request.pictures,
            reporter: self.reporter,
        };
        dense::run(&stream, &plans)
    }
}
