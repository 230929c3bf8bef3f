//! Runs the built program in a folder of its own and makes its output comparable.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::unwrap_used)]

// CUDA's functions, of which candle's objects want to be linked with some.
#[cfg(feature = "cuda")]
use libcuda as _;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of golden data.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A working folder with its own cache, away from the user's settings.
pub struct World {
    pub folder: tempfile::TempDir,
}

pub struct Ran {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// One with the golden encoder in its folder `mini`.
    pub fn with_mini() -> Self {
        let world = Self::new();
        let mini = world.path("mini");
        std::fs::create_dir(&mini).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden().join(file), mini.join(file)).unwrap();
        }
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pixio-eval"));
        let removed = [
            "HF_TOKEN",
            "HF_HUB_OFFLINE",
            "HF_ENDPOINT",
            "HF_HUB_CACHE",
            "PIXIO_EVAL_DATA",
            "PIXIO_EVAL_LISTS",
            "PIXIO_EVAL_SOURCES",
            "PIXIO_EVAL_BACKBONES",
            "PIXIO_EVAL_SIMULATORS",
        ];
        for name in removed {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("PIXIO_EVAL_CACHE", self.path("cache"))
            .env("HF_HOME", self.path("hf"))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.finish(self.command(args))
    }

    pub fn finish(&self, mut command: Command) -> Ran {
        let output = command.output().unwrap();
        Ran {
            status: output.status.code(),
            stdout: self.plain(&output.stdout),
            stderr: self.plain(&output.stderr),
        }
    }

    /// Text with this world's paths replaced, and without the lines of progress that a slow machine has.
    pub fn plain(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let lines = text.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(" s left"));
        let text: String = lines.collect();
        let text = text.replace(self.folder.path().to_str().unwrap(), "WORLD");
        text.replace(golden().to_str().unwrap(), "GOLDEN")
    }

    /// The features a run has kept for a split, shard after shard, from each bank.
    pub fn kept_features(&self, split: &str) -> Vec<Vec<f32>> {
        let banks = std::fs::read_dir(self.path("cache/features-v2")).unwrap();
        let of_bank = |bank: PathBuf| {
            let files = std::fs::read_dir(bank).unwrap().map(|entry| entry.unwrap().path());
            let named =
                |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(split);
            let mut files: Vec<PathBuf> = files.filter(named).collect();
            files.sort();
            files.iter().flat_map(|file| values(file, "features")).collect()
        };
        banks.map(|bank| of_bank(bank.unwrap().path())).collect()
    }

    /// Every file of the runs under `out` that a result is made of, but for times: name to bytes.
    pub fn results(&self, out: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path(out)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let key = path.strip_prefix(self.path(out)).unwrap().to_path_buf();
                if path.is_dir() {
                    folders.push(path);
                } else if name.ends_with(".safetensors") || name.ends_with(".parquet") {
                    found.insert(key, std::fs::read(&path).unwrap());
                } else if name == "record.json" {
                    let record: serde_json::Value =
                        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                    let outcome = &record["outcome"];
                    let kept = [&record["plan"], &outcome["metrics"], &outcome["curve"]];
                    found.insert(key, serde_json::to_vec(&kept).unwrap());
                }
            }
        }
        found
    }

    /// The plans of every run in a folder.
    pub fn plans(&self, folder: &str) -> Vec<serde_json::Value> {
        let runs = std::fs::read_dir(self.path(folder)).unwrap();
        runs.map(|run| {
            let text = std::fs::read_to_string(run.unwrap().path().join("plan.json")).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["plan"].take()
        })
        .collect()
    }

    /// Copies a folder of small files into this world.
    pub fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.path(name);
        copy(from, &to);
        to
    }
}

/// A tensor of a safetensors file, flat.
pub fn values(path: &Path, name: &str) -> Vec<f32> {
    let file = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    file[name].flatten_all().unwrap().to_vec1().unwrap()
}

/// Every tensor of a safetensors file, one after another in the order of their names.
pub fn all_values(path: &Path) -> Vec<f32> {
    let file = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    let sorted: BTreeMap<_, _> = file.into_iter().collect();
    let flat = |tensor: candle_core::Tensor| {
        tensor.flatten_all().unwrap().to_dtype(candle_core::DType::F32).unwrap()
    };
    sorted.into_values().flat_map(|tensor| flat(tensor).to_vec1::<f32>().unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}
