use candle_core::DType;
use ops::Format;

use super::head::{Architecture, HeadConfig};

/// What training a head takes of its device's memory, in bytes: an estimate, from the tensors that
/// a step holds at its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingMemory {
    /// Held between steps: parameters, their gradients and moments.
    pub fixed: u64,
    /// Held within a step whatever its samples: what convolutions take besides their tensors.
    pub workspace: u64,
    /// Held within a step for each sample that goes through the head at a time.
    pub per_sample: u64,
}

impl HeadConfig {
    /// Whether a batch may go through the head in parts: without batch norm a sample's gradient does
    /// not depend on its company.
    pub fn divisible(&self) -> bool {
        match self.architecture {
            Architecture::Linear => false,
            Architecture::Dpt { .. } => true,
        }
    }

    /// Floating-point operations of one sample through the head, about, on taps of `grid` = (h, w)
    /// patches and to `crop` pixels a side: for comparing one head's work with another's.
    pub fn flops(&self, grid: (usize, usize), crop: usize) -> f64 {
        let (patches, width, outputs) = (grid.0 * grid.1, self.width, self.outputs);
        let resized = 8 * outputs * crop * crop;
        let products = match self.architecture {
            Architecture::Linear => patches * width * (outputs + 5),
            Architecture::Dpt { channels: [c0, c1, c2, c3], features: f } => {
                let reassembled = width * (c0 + c1 + c2 + c3) + 16 * c0 * c0 + 4 * c1 * c1;
                // Levels are 16, 4, 1 and 1/4 of the grid large; the output's maps 64 times.
                let levels = 9 * f * (16 * c0 + 4 * c1 + c2 + c3 / 4) + 4 * 21 * 9 * f * f;
                patches * (reassembled + levels + 64 * f * (f + outputs))
            }
        };
        (2 * products + resized) as f64
    }

    /// Memory of training on taps of `grid` = (h, w) patches and targets of `crop` pixels a side,
    /// with convolutions in `dtype` and images in `format`.
    pub fn training_memory(
        &self,
        grid: (usize, usize),
        crop: usize,
        dtype: DType,
        format: Format,
    ) -> TrainingMemory {
        let (patches, width, outputs) = (grid.0 * grid.1, self.width, self.outputs);
        let pixels = crop * crop;
        // Resized logits and what the loss makes of them, with gradients; kernels of a GPU keep a norm and a label.
        let loss = match (format, outputs) {
            (Format::Pixels, ..=256) => 2 * pixels,
            (_, 1) => 36 * pixels,
            _ => (4 * outputs + 4) * pixels,
        };
        let wide = dtype == DType::F32;
        // Images of 16 bits are kept in f32 on a CPU.
        let bytes = match format {
            Format::Planes => 4,
            Format::Pixels => dtype.size_in_bytes(),
        };
        let (parameters, per_sample, workspace) = match self.architecture {
            Architecture::Linear => {
                let activations = 5 * width * patches + 2 * outputs * patches;
                (width * (2 + outputs) + outputs, 4 * (activations + loss), 0)
            }
            Architecture::Dpt { channels: [c0, c1, c2, c3], features: f } => {
                let reassemble =
                    width * (c0 + c1 + c2 + c3) + 16 * c0 * c0 + 4 * c1 * c1 + 9 * c3 * c3;
                let fuse = 9 * f * (c0 + c1 + c2 + c3) + 4 * (36 + 1) * f * f;
                // Maps in units of the tap's grid: the levels are 16, 4, 1 and 1/4 of it large.
                let levels = 17 * c0 + 5 * c1 + c2 + c3 + c3 / 4 + 22 * f;
                // Inputs of a block's five convolutions but the level itself; and of those of the output.
                let (units, output) = (4 * 21 + 1, 2 * 64);
                let rounded = if wide { 0 } else { 4 * width };
                let kept = (levels + rounded + units * f) * patches;
                // Then the loss is taken, or the gradients of the largest maps: two of them and one that was
                // kept, and beside them the ReLU of one where it is not taken on the way, or the 16 bits of those
                // in f32.
                let largest = if format == Format::Planes && wide { 3 } else { 4 };
                let logits = 64 * outputs * patches;
                let forward = bytes * (output * f * patches + logits) + 4 * (2 * logits + loss);
                let backward = bytes * (largest * 64 * f * patches + 2 * logits);
                let parameters = reassemble + fuse + 9 * f * f + f * outputs;
                (parameters, bytes * kept + forward.max(backward), format.workspace())
            }
        };
        // Besides a parameter, its moments and its gradient there is the sum of gradients over parts of a batch, or
        // the parameter as convolutions take it: turned round, or rounded with a rounded gradient.
        let copies = if wide { 4 } else { 2 * dtype.size_in_bytes() };
        TrainingMemory {
            fixed: (parameters * (4 * 4 + copies)) as u64,
            workspace,
            per_sample: per_sample as u64,
        }
    }
}
