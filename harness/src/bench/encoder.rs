//! Passes of an encoder.

use candle_core::Tensor;

use super::{Bench, Row, Subject};
use crate::backbone::{BackboneError, Wanted};
use crate::run::RunError;

/// Batch sizes on a GPU,
const LARGE: [usize; 6] = [16, 32, 64, 128, 256, 512];
/// and on the CPU.
const SMALL: [usize; 4] = [1, 4, 8, 16];

impl Bench<'_> {
    /// Tokens of the last block as k-NN uses them, at every batch size; a row each and one for the best. Images
    /// are on the device already.
    pub(super) fn encoder(&mut self, subject: &Subject) -> Result<(), RunError> {
        let side = subject.resolved.preparation.resolution;
        let dimensions = subject.backbone.dimensions();
        let last = dimensions.blocks.saturating_sub(1);
        let wanted = match dimensions.summary_tokens {
            0 => Wanted { patches: true, ..Wanted::default() },
            _ => Wanted::SUMMARY,
        };
        let flops = subject.resolved.flops(side, side)?;
        let standard = if self.device.is_cuda() { &LARGE[..] } else { &SMALL[..] };
        let asked = self.options.batches.is_empty();
        let batches = if asked { standard.to_vec() } else { self.options.batches.clone() };
        let key = format!("encoder {}", subject.name);
        let mut rows: Vec<Row> = Vec::new();
        for batch in batches {
            self.reporter.say(format!("{key}: batch {batch}"));
            let pass = || -> Result<_, RunError> {
                let images = Tensor::rand(-2f32, 2f32, (batch, 3, side, side), &self.device);
                let images = images.map_err(BackboneError::Candle)?;
                self.timer().time(batch, || {
                    std::hint::black_box(subject.backbone.forward(&images, &[last], wanted)?);
                    Ok(())
                })
            };
            match pass() {
                Ok(times) => {
                    let row = Row::new(format!("{key} batch {batch}"), batch, "image", times);
                    rows.push(row.counted(flops, self.peak));
                }
                // A larger batch than fits is no error where smaller ones were measured.
                Err(RunError::Backbone(error)) if !rows.is_empty() => {
                    self.reporter.warn(format!("{key}: batch {batch}: {error}"));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let best = rows.iter().min_by(|a, b| a.times.seconds.total_cmp(&b.times.seconds));
        let best = best.map(|row| Row { key, ..row.clone() });
        self.rows.extend(rows);
        self.rows.extend(best);
        Ok(())
    }
}
