use candle_core::DType;
use ops::Format;

use super::head::{Architecture, HeadConfig};

/// What training a head takes of its device's memory, in bytes: an estimate, from the tensors that
/// a step holds at its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingMemory {
    /// Held between steps: parameters, their gradients and moments.
    pub fixed: u64,
    /// Held within a step for each sample that goes through the head at a time.
    pub per_sample: u64,
}

impl TrainingMemory {
    /// With what convolutions in `format` take besides: on a GPU columns, or the workspace of cuDNN. There maps
    /// of 16 bits take half of the estimate, which is that of a CPU, where they are held in f32 too.
    #[must_use]
    pub fn in_format(mut self, format: Format) -> Self {
        self.fixed += format.workspace();
        self
    }
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
    /// with convolutions in `dtype`.
    pub fn training_memory(
        &self,
        grid: (usize, usize),
        crop: usize,
        dtype: DType,
    ) -> TrainingMemory {
        let (patches, width, outputs) = (grid.0 * grid.1, self.width, self.outputs);
        let pixels = crop * crop;
        // Resized logits and what the loss makes of them, with gradients.
        let loss = match outputs {
            1 => 36 * pixels,
            _ => (4 * outputs + 4) * pixels,
        };
        let (parameters, activations) = match self.architecture {
            Architecture::Linear => {
                (width * (2 + outputs) + outputs, 5 * width * patches + 2 * outputs * patches)
            }
            Architecture::Dpt { channels: [c0, c1, c2, c3], features: f } => {
                let reassemble =
                    width * (c0 + c1 + c2 + c3) + 16 * c0 * c0 + 4 * c1 * c1 + 9 * c3 * c3;
                let fuse = 9 * f * (c0 + c1 + c2 + c3) + 4 * (36 + 1) * f * f;
                // Maps in units of the tap's grid: the levels are 16, 4, 1 and 1/4 of it large.
                let levels = 17 * c0 + 5 * c1 + c2 + c3 + c3 / 4 + 22 * f;
                // A block's two residual units with their sums, its own sum and its 1x1 convolution.
                let units = 8 * 21 + 1;
                let resized = 64 + 16 + 4 + 1;
                let output = 64;
                // While the output's gradient is taken: the largest maps' gradients and what they are made from.
                let backward = 4 * 64;
                let maps = levels + (units + resized + output + backward) * f + 2 * 64 * outputs;
                (reassemble + fuse + 9 * f * f + f * outputs, maps * patches)
            }
        };
        // Halves keep a rounded copy of each parameter, and resizes and batch norm stay f32.
        let rounded = if dtype == DType::F32 { 0 } else { 2 * dtype.size_in_bytes() };
        TrainingMemory {
            fixed: (parameters * (4 * 4 + rounded)) as u64,
            per_sample: (4 * (activations + loss)) as u64,
        }
    }
}
