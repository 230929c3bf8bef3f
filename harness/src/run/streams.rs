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
                Some((encoder, ProbeSize::of(protocol, &plan.backbone, &encoder, self.dtype)))
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

    /// Trains every dense head of one data set on one stream.
    pub(super) fn dense(
        &self,
        lazy: &Lazy<'_>,
        data: &dense::Opened,
        images: usize,
        runs: Vec<(RunPlan, RunDir)>,
        report: &mut Report,
    ) -> Result<(), RunError> {
        let at = (Timestamp::now(), Instant::now());
        let plans: Vec<_> = runs
            .iter()
            .filter_map(|(plan, dir)| match &plan.protocol.stages {
                Stages::Dense(protocol) => Some((plan, protocol, dir)),
                Stages::Knn(_) | Stages::Policy(_) => None,
            })
            .collect();
        let trained = lazy.get(self).map(|backbone| {
            let stream = dense::Stream {
                backbone,
                device: &self.device,
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
        });
        match trained {
            Ok(results) => {
                let mut interrupted = false;
                for ((plan, dir), result) in runs.into_iter().zip(results) {
                    if matches!(result, Err(RunError::Interrupted)) {
                        interrupted = true;
                        continue;
                    }
                    let measured = result.map(|trained| dense::measured(trained, data));
                    if self.end(lazy, plan, &dir, measured, at, report)? {
                        self.clear(dir.folder());
                    }
                }
                if interrupted {
                    return Err(RunError::Interrupted);
                }
            }
            // What ends the stream ends each of its runs.
            Err(error) => {
                let why = error.to_string();
                let mut first = Some(error);
                for (plan, dir) in runs {
                    let shared = || RunError::Stream(why.clone());
                    let error = first.take().unwrap_or_else(shared);
                    self.end(lazy, plan, &dir, Err(error), at, report)?;
                }
            }
        }
        Ok(())
    }
}
