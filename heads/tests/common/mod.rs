//! The vectors of `data/dense.{safetensors,json}`, which `scripts/make_dense_vectors.py` makes.

#![allow(dead_code, clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};
use pixio_eval_heads::dense::{
    Architecture, DenseHead, Expected, HeadConfig, HeadKind, Probe, Targets, assemble,
    from_tensors, initialise,
};
use schema::{Objective, TrainingStage};

pub const STEPS: usize = 4;
pub const WIDTH: usize = 24;
pub const RUNS: [&str; 4] =
    ["depth.linear", "depth.dpt", "segmentation.linear", "segmentation.dpt"];

pub struct Vectors {
    pub tensors: BTreeMap<String, Tensor>,
    pub json: serde_json::Value,
}

/// One batch of the vectors, as the four taps and the targets of both tasks.
pub struct Batch {
    pub taps: Vec<Tensor>,
    pub depth: Tensor,
    pub labels: Tensor,
}

impl Vectors {
    pub fn read() -> Self {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let bytes = std::fs::read(data.join("dense.safetensors")).unwrap();
        // Labels are the only bytes among floats.
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let dtype = match view.dtype() {
                safetensors::Dtype::U8 => DType::U8,
                _ => DType::F32,
            };
            let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu);
            tensors.insert(name.to_owned(), tensor.unwrap());
        }
        let json = std::fs::read_to_string(data.join("dense.json")).unwrap();
        Self { tensors, json: serde_json::from_str(&json).unwrap() }
    }

    pub fn batch(&self, step: usize) -> Batch {
        let named = |name: &str| self.tensors[&format!("batch{step}.{name}")].clone();
        let (patches, summary) = (named("patches"), named("summary"));
        let grid = &self.json["grids"][step % 2];
        let grid = (grid[0].as_u64().unwrap() as usize, grid[1].as_u64().unwrap() as usize);
        let tap = |i| assemble(&patches.get(i).unwrap(), Some(&summary.get(i).unwrap()), grid);
        let taps = (0..4).map(|i| tap(i).unwrap()).collect();
        Batch { taps, depth: named("depth"), labels: named("labels") }
    }

    pub fn objective(&self, run: &str) -> Objective {
        if run.starts_with("depth") {
            Objective::Depth { min: 0.001, max: 10.0 }
        } else {
            let classes = self.json["classes"].as_u64().unwrap() as usize;
            Objective::Segmentation { classes, ignore: 255 }
        }
    }

    pub fn expected(&self, run: &str) -> Expected {
        let kind = if run.ends_with("dpt") { HeadKind::Dpt } else { HeadKind::Linear };
        let outputs = pixio_eval_heads::dense::outputs(&self.objective(run));
        Expected { kind, width: WIDTH, outputs }
    }

    /// `{run}.{stage}.*` without the prefix.
    pub fn weights(&self, run: &str, stage: &str) -> BTreeMap<String, Tensor> {
        let prefix = format!("{run}.{stage}.");
        let strip = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix(&prefix)?.to_owned(), tensor.clone()))
        };
        self.tensors.iter().filter_map(strip).collect()
    }

    pub fn head(&self, run: &str) -> Box<dyn DenseHead> {
        let weights = self.weights(run, "init");
        from_tensors(Path::new(run), weights, self.expected(run), DType::F32, &Device::Cpu).unwrap()
    }

    pub fn training(&self, run: &str) -> TrainingStage {
        let record = &self.json["runs"][run];
        TrainingStage {
            revision: 1,
            epochs: 1,
            groups: self.json["groups"].as_u64().unwrap() as usize,
            group_size: 2,
            learning_rate: record["peak"].as_f64().unwrap(),
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            eps: 1e-8,
            warmup: record["warmup"].as_f64().unwrap(),
            power: 0.9,
        }
    }

    pub fn probe(&self, run: &str) -> Probe {
        let (objective, training) = (self.objective(run), self.training(run));
        Probe::new(self.head(run), objective, &training, STEPS as u64).unwrap()
    }
}

impl Batch {
    pub fn taps(&self, run: &str) -> &[Tensor] {
        if run.ends_with("dpt") { &self.taps } else { &self.taps[3..] }
    }

    pub fn targets(&self, run: &str) -> Targets {
        if run.starts_with("depth") {
            return Targets::depth(self.depth.clone());
        }
        labels(&self.labels)
    }

    pub fn size(&self) -> (usize, usize) {
        let (_, h, w) = self.depth.dims3().unwrap();
        (h, w)
    }
}

pub fn labels(labels: &Tensor) -> Targets {
    let (batch, h, w) = labels.dims3().unwrap();
    let values = labels.flatten_all().unwrap().to_vec1::<u8>().unwrap();
    Targets::labels(values, [batch, h, w])
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

/// A head drawn by a hash of both counters.
pub fn drawn(architecture: Architecture, width: usize, outputs: usize) -> Box<dyn DenseHead> {
    let config = HeadConfig { architecture, width, outputs };
    initialise(&config, DType::F32, &Device::Cpu, &mut uniform).unwrap()
}

/// SplitMix64 of the two counters, in [0, 1).
pub fn uniform(tensor: usize, element: usize) -> f64 {
    let mut z = ((tensor as u64) << 40 | element as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
