//! Flags that several commands share.

// `[@REV]` is a command line's way to say optional; a link escape would show in the help.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use candle_core::DType;
use clap::Args;
use tasks::dense::LabelForm;
use tasks::verify::Preparation;

use super::CliError;
use crate::device::{DeviceChoice, parse_dtype};
use crate::registry::nearest;
use crate::resolve::{Override, SourceOptions};
use crate::run::{BatchSize, Cell, Request, Settings, TokenChoice};
use crate::weights::Rule;

/// Where more names of backbones are.
#[derive(Args, Clone, Debug)]
pub struct OwnArgs {
    /// A file of your own backbones, [backbone.NAME] tables as in backbones.toml
    #[arg(long, value_name = "FILE", env = "PIXIO_EVAL_BACKBONES", hide_env_values = true)]
    pub backbones: Option<PathBuf>,
}

/// Which encoder.
#[derive(Args, Clone, Debug)]
pub struct BackboneArgs {
    /// Architecture of a single weights file: a name in `backbones list`, a family, or a config.json
    #[arg(long, value_name = "NAME|FILE")]
    pub arch: Option<String>,
    /// A backbone's field in another value, for example resolution=224 or config.num_hidden_layers=6
    /// (recipe.*, mean, std too); repeatable
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub overrides: Vec<Override>,
    /// Names of a file's tensors: * is any text, put back in order; an empty TO leaves them out.
    /// Applied in order; repeatable
    #[arg(long, value_name = "FROM=TO")]
    pub rename: Vec<Rule>,
    #[command(flatten)]
    /// Names of the user's own.
    pub own: OwnArgs,
    /// Never use the network
    #[arg(long)]
    pub offline: bool,
}

impl BackboneArgs {
    /// The same for a resolver.
    pub fn options(&self) -> SourceOptions {
        SourceOptions {
            arch: self.arch.clone(),
            overrides: self.overrides.clone(),
            rename: self.rename.clone(),
            own: self.own.backbones.clone(),
            offline: self.offline,
        }
    }
}

/// Where and how to compute.
#[derive(Args, Clone, Debug)]
pub struct ComputeArgs {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// f32, bf16 or f16 (default: bf16 on a GPU, f32 on the CPU)
    #[arg(long, value_name = "TYPE", value_parser = parse_dtype)]
    pub dtype: Option<DType>,
    /// Threads that decode images ahead of the encoder (default: all cores)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub workers: Option<usize>,
}

/// Which cells, where, and how.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    #[command(flatten)]
    /// Which cells.
    pub cell: CellOptions,
    #[command(flatten)]
    /// Where and how.
    pub common: CommonOptions,
    #[command(flatten)]
    /// What an ablation changes.
    pub changes: ChangeArgs,
}

/// What a cell is, beside its task.
#[derive(Args, Clone, Debug)]
pub struct CellOptions {
    /// Name, folder, weights file, hf:ORG/REPO[@REV], random:NAME, py:FILE.py:FUNCTION, pixels, or state
    /// (robot tasks: the simulator's true state); repeatable
    #[arg(long, value_name = "B")]
    pub backbone: Vec<String>,
    /// pixio, the published protocol; cortexbench-lite, robot tasks on a laptop; or sample, reduced
    /// (default: sample with --sample, else pixio)
    #[arg(long, value_name = "NAME", value_parser = ["pixio", "cortexbench-lite", "sample"])]
    pub protocol: Option<String>,
    /// Seed of heads, and of the stream: order, crops, --limit's shuffle
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Use N samples of each split, drawn by the seed
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Passes over the training data, for trained heads; 0 evaluates the initial head (default: the
    /// protocol's)
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Start from a saved head; with --epochs 0, evaluate it
    #[arg(long, value_name = "FILE")]
    pub head_weights: Option<PathBuf>,
    /// Numbers of neighbours for k-NN (default: the protocol's)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    pub k: Vec<usize>,
    /// Temperature of the k-NN vote (default: the protocol's 0.07)
    #[arg(long, value_name = "T", value_parser = above_zero)]
    pub temperature: Option<f64>,
}

/// Where everything is and how it is computed, whichever the cells.
#[derive(Args, Clone, Debug)]
pub struct CommonOptions {
    #[command(flatten)]
    /// Which encoder.
    pub source: BackboneArgs,
    #[command(flatten)]
    /// Where and how.
    pub compute: ComputeArgs,
    /// Images that go through the encoder, and through a head in training, at a time, or auto: as many
    /// as memory allows (default: 16). The batch of a protocol stays what it is
    #[arg(long, value_name = "N|auto", value_parser = batch_size)]
    pub batch_size: Option<BatchSize>,
    /// Memory to plan with, in GB (default: nine tenths of what is free on the device)
    #[arg(long, value_name = "GB", value_parser = not_below_zero)]
    pub memory_gb: Option<f64>,
    /// Folder of a data set (default: $PIXIO_EVAL_DATA/NAME, else data/NAME); repeatable
    #[arg(long, value_name = "NAME=DIR", value_parser = named_folder, conflicts_with = "sample")]
    pub data: Vec<(String, PathBuf)>,
    /// Folder for results
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: PathBuf,
    /// Use small generated data sets instead of real ones, made on first use
    #[arg(long)]
    pub sample: bool,
    /// How masks are stored when they do not tell: shifted (classes from 0) or original (from 1)
    #[arg(long, value_name = "FORM", value_parser = label_form)]
    pub labels: Option<LabelForm>,
    /// Run on data that was recognised as this wrong preparation (`data verify` names them); the
    /// result then says so; repeatable
    #[arg(long, value_name = "NAME", value_parser = preparation, conflicts_with = "sample")]
    pub accept_data: Vec<String>,
    /// Disk for validation features of depth and segmentation, kept over epochs and runs, in GB; 0
    /// keeps none
    #[arg(long, value_name = "GB", default_value = "20", value_parser = not_below_zero)]
    pub cache_gb: f64,
    /// Validation images to draw beside their truth and prediction, in each run's folder
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub pictures: usize,
    /// Leave unreadable images out, and say so in the result, instead of stopping
    #[arg(long)]
    pub skip_bad_images: bool,
    /// Say what would be run, in how many passes over the data, and whether everything is there; run
    /// nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print results as JSON (the table's long form) instead of a table
    #[arg(long)]
    pub json: bool,
}

impl CommonOptions {
    /// The request for these cells.
    pub fn request(&self, cells: Vec<Cell>, required: Vec<String>) -> Result<Request, CliError> {
        let known = tasks::data::Registry::builtin()?;
        for (name, _) in &self.data {
            if known.get(name).is_none() {
                let near = nearest(name, known.names());
                return Err(CliError::UnknownDataset { name: name.clone(), near });
            }
        }
        Ok(Request {
            cells,
            keys: Vec::new(),
            required,
            data: self.data.clone(),
            sample: self.sample,
            out: self.out.clone(),
            source: self.source.options(),
            device: self.compute.device,
            dtype: self.compute.dtype,
            batch_size: self.batch_size,
            memory: self.memory_gb.map(|gigabytes| (gigabytes * 1e9) as u64),
            workers: self.compute.workers,
            skip_bad_images: self.skip_bad_images,
            head_weights: None,
            labels: self.labels,
            accepted: self.accept_data.clone(),
            kept_bytes: (self.cache_gb * 1e9) as u64,
            pictures: self.pictures,
        })
    }
}

impl RunOptions {
    /// The settings of every cell of the command.
    pub fn settings(&self) -> Settings {
        let standard = if self.common.sample { "sample" } else { "pixio" };
        let (cell, changes) = (&self.cell, &self.changes);
        Settings {
            protocol: cell.protocol.clone().unwrap_or_else(|| standard.to_owned()),
            seed: cell.seed,
            stream_seed: changes.stream_seed,
            limit: cell.limit,
            epochs: cell.epochs,
            learning_rate: changes.learning_rate,
            weight_decay: changes.weight_decay,
            block: changes.block,
            taps: (!changes.taps.is_empty()).then(|| changes.taps.clone()),
            tokens: changes.tokens,
            class_tokens: changes.class_tokens,
            k: cell.k.clone(),
            temperature: cell.temperature,
            set: changes.set.clone(),
        }
    }
}

/// What an ablation changes in a protocol; the protocol's name then says so.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Changes to the protocol")]
pub struct ChangeArgs {
    /// Read the encoder's K-th block, 1 being the first (a DPT: four blocks K/4 apart, the deepest the
    /// K-th)
    #[arg(long, value_name = "K", value_parser = positive, conflicts_with = "taps")]
    pub block: Option<usize>,
    /// Read exactly these blocks, 0 being the first: four for dpt, else one
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub taps: Vec<usize>,
    /// Tokens a head sees: patch, class (their mean), or both joined (default: the backbone's recipe)
    #[arg(long, value_name = "TOKENS", value_enum, hide_possible_values = true)]
    pub tokens: Option<TokenChoice>,
    /// Average the first N class tokens alone
    #[arg(long, value_name = "N", value_parser = positive)]
    pub class_tokens: Option<usize>,
    /// Peak learning rate of a trained head
    #[arg(long, value_name = "RATE", value_parser = above_zero)]
    pub learning_rate: Option<f64>,
    /// Weight decay of a trained head
    #[arg(long, value_name = "X", value_parser = not_below_zero)]
    pub weight_decay: Option<f64>,
    /// Any other value of the protocol, for example training.warmup=0 or vote.k=[5,50]; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
    /// Seed of order, crops and --limit's shuffle (default: --seed)
    #[arg(long, value_name = "N")]
    pub stream_seed: Option<u64>,
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

pub(super) fn named_folder(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(folder)))
        }
        _ => Err("expected NAME=DIR, for example imagenet1k=/data/imagenet".to_owned()),
    }
}

pub(super) fn batch_size(text: &str) -> Result<BatchSize, String> {
    match text {
        "auto" => Ok(BatchSize::Auto),
        _ => positive(text).map(BatchSize::Images).map_err(|error| format!("{error}, or auto")),
    }
}

pub(super) fn not_below_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("expected a number, 0 or above".to_owned()),
    }
}

pub(super) fn preparation(text: &str) -> Result<String, String> {
    let readable = || Preparation::ALL.into_iter().filter(|known| known.is_readable());
    match readable().find(|known| known.name() == text) {
        Some(known) => Ok(known.name().to_owned()),
        None => {
            let known: Vec<&str> = readable().map(Preparation::name).collect();
            Err(format!("expected one of {}; no other can be read", known.join(", ")))
        }
    }
}

pub(super) fn label_form(text: &str) -> Result<LabelForm, String> {
    match text {
        "shifted" => Ok(LabelForm::Shifted),
        "original" => Ok(LabelForm::Original),
        _ => Err("expected shifted or original".to_owned()),
    }
}

pub(super) fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_or_refused() {
        assert_eq!(above_zero("0.07"), Ok(0.07));
        assert!(["0", "-1", "nan", "inf", "cold"].iter().all(|text| above_zero(text).is_err()));
    }
}
