//! Heads on one stream, and validation.

use super::timing::Times;
use super::{Bench, Row, Subject, What};
use crate::run::{RunError, Trial};

/// Validation images on a GPU, and on the CPU.
const IMAGES: (usize, usize) = (64, 2);

impl Bench<'_> {
    /// Steps and predictions of a data set's heads, alone and on one encoded batch.
    pub(super) fn heads(&self, subject: &Subject, task: &str) -> Result<Vec<Row>, RunError> {
        let mut rows = Vec::new();
        let alone = [(What::Linear, "linear"), (What::Dpt, "dpt")];
        for (_, head) in alone.into_iter().filter(|(what, _)| self.wants(*what)) {
            let mut trial = self.trial(subject, task, &[head])?;
            rows.push(self.step(&mut trial, 0, &format!("{head} step {task} {}", subject.name))?);
            let key = format!("{head} forward {task} {}", subject.name);
            self.reporter.say(&key);
            let times = self.timer().time(1, || trial.predict(0))?;
            rows.push(Row::new(key, trial.batch(), "batch", times));
        }
        if self.wants(What::Shared) {
            rows.extend(self.shared(subject, task)?);
        }
        Ok(rows)
    }

    fn trial<'a>(
        &'a self,
        subject: &'a Subject,
        task: &str,
        heads: &[&str],
    ) -> Result<Trial<'a>, RunError> {
        let placed = subject
            .placed(self)
            .ok_or_else(|| RunError::Stream("a backbone without a record".to_owned()))?;
        Trial::new(&placed, (task, heads), &self.options.protocol, self.batch_size())
    }

    fn step(&self, trial: &mut Trial<'_>, head: usize, key: &str) -> Result<Row, RunError> {
        self.reporter.say(key);
        let times = self.timer().time(1, || trial.step(head))?;
        Ok(Row::new(key.to_owned(), trial.batch(), "step", times))
    }

    /// Both heads on one pass against the sum of what encoder and heads take alone.
    fn shared(&self, subject: &Subject, task: &str) -> Result<[Row; 2], RunError> {
        let mut trial = self.trial(subject, task, &["linear", "dpt"])?;
        let of = |what: &str| format!("{what} {task} {}", subject.name);
        let key = of("stream encode");
        self.reporter.say(&key);
        let encode = self.timer().time(1, || trial.encode())?;
        let encode = Row::new(key, trial.batch(), "batch", encode);
        let mut parts = encode.times.seconds;
        for head in 0..2 {
            parts += self.step(&mut trial, head, &of("shared: a head alone"))?.times.seconds;
        }
        let key = of("shared");
        self.reporter.say(&key);
        let times: Times = self.timer().time(1, || trial.shared())?;
        let row = Row::new(key, trial.batch(), "step", times);
        let share = parts / times.seconds;
        Ok([encode, Row { share_of_bound: Some(share), ..row }])
    }

    /// An image with a DPT head by sliding window: from its files, and on kept tokens.
    pub(super) fn validation(&self, subject: &Subject, task: &str) -> Result<Vec<Row>, RunError> {
        let trial = self.trial(subject, task, &["dpt"])?;
        let standard = if self.device.is_cuda() { IMAGES.0 } else { IMAGES.1 };
        let images = self.options.images.unwrap_or(standard);
        let scenes = trial.scenes(images)?;
        let (height, width) = scenes.size();
        let row = |(what, kept)| {
            let key = format!("{what} {task} {}", subject.name);
            self.reporter.say(format!("{key}: {images} images of {height}x{width}"));
            let times = self.timer().time(images, || trial.validate(&scenes, kept))?;
            Ok(Row::new(key, scenes.windows(), "image", times))
        };
        [("val", false), ("val on kept tokens", true)].into_iter().map(row).collect()
    }
}
