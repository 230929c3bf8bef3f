//! Models that the references made: configurations, tensors from a formula, and what they compute
//! (`harness/scripts/make_family_vectors.py`).
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use pixio_eval::backbone::{Backbone, Placement};
use pixio_eval::progress::{Reporter, Verbosity};
use pixio_eval::resolve::{Resolved, Resolver, SourceOptions};
use serde_json::Value;

use crate::common::World;

/// max|difference| / max|value|.
pub const BOUND: f32 = 5e-5;
/// Of the patch tokens, one in so many is stored.
pub const EVERY: usize = 4;

/// One model of a reference.
#[derive(serde::Deserialize)]
pub struct Case {
    pub name: String,
    pub family: String,
    pub config: Value,
    pub tensors: BTreeMap<String, Vec<usize>>,
    pub images: Vec<(usize, usize)>,
    /// Names and shapes of timm's model of the same encoder.
    pub timm: Option<BTreeMap<String, Vec<usize>>>,
}

pub fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(file)
}

pub fn cases() -> Vec<Case> {
    serde_json::from_str(&fs::read_to_string(data("cases.json")).unwrap()).unwrap()
}

pub fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

pub fn vectors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(data("vectors.safetensors"), &Device::Cpu).unwrap()
}

/// Values in -1..1 from counters `tensor * 2^32 + i`, by SplitMix64.
fn uniform(tensor: u64, count: usize) -> impl Iterator<Item = f64> {
    (0..count as u64).map(move |i| {
        let mut x = ((tensor << 32) + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
        (x >> 11) as f64 / 2f64.powi(52) - 1.0
    })
}

fn weight(index: usize, name: &str, shape: &[usize]) -> Tensor {
    let leaf = name.rsplit('.').next().unwrap();
    let inputs: usize = shape[1..].iter().product();
    let (offset, scale) = if leaf == "lambda1" {
        (0.6, 0.3)
    } else if leaf == "running_var" {
        (1.0, 0.5)
    } else if shape.len() == 1 && leaf == "weight" {
        (1.0, 0.2)
    } else if shape.len() == 1 {
        (0.0, 0.1)
    } else if ["token", "position", "probe", "pos_embed"].iter().any(|part| name.contains(part)) {
        (0.0, 0.5)
    } else {
        (0.0, (3.0 / inputs as f64).sqrt())
    };
    let values: Vec<f32> = uniform(index as u64, shape.iter().product())
        .map(|u| (offset + scale * u) as f32)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub fn image(height: usize, width: usize) -> Tensor {
    let values: Vec<f32> = uniform(1 << 31, 3 * height * width).map(|u| 2.0 * (u as f32)).collect();
    Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).unwrap()
}

impl Case {
    pub fn weights(&self) -> HashMap<String, Tensor> {
        let all = self.tensors.iter().enumerate();
        all.map(|(i, (name, shape))| (name.clone(), weight(i, name, shape))).collect()
    }

    /// Writes config.json and model.safetensors; `config` replaces fields of the configuration.
    pub fn folder(&self, world: &World, name: &str, config: Value) -> PathBuf {
        let folder = world.path(name);
        fs::create_dir_all(&folder).unwrap();
        let mut whole = self.config.clone();
        whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        fs::write(folder.join("config.json"), whole.to_string()).unwrap();
        candle_core::safetensors::save(&self.weights(), folder.join("model.safetensors")).unwrap();
        folder
    }
}

pub fn resolve(path: &Path, arch: Option<&Path>) -> Resolved {
    let reporter = Reporter::new(Verbosity::Quiet);
    let arch = arch.map(|arch| arch.to_str().unwrap().to_owned());
    let options = SourceOptions { arch, offline: true, ..SourceOptions::default() };
    Resolver::new(options, &reporter).unwrap().resolve(path.to_str().unwrap()).unwrap()
}

pub fn load(path: &Path) -> Box<dyn Backbone> {
    resolve(path, None).load(&Placement { device: Device::Cpu, dtype: DType::F32 }).unwrap()
}
