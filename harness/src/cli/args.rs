//! The command line as clap sees it. Each flag's help is what `--help` prints.

// `[@REV]` is a command line's way to say optional; a link escape would show in the help.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::options::{BackboneArgs, ComputeArgs, OwnArgs, RunOptions, named_folder, positive};

/// How good is a frozen vision backbone?
#[derive(Debug, Parser)]
#[command(name = "pixio-eval", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "First time? `pixio-eval all --sample` needs no data and no weights.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more on stderr
    #[arg(short, long, global = true, conflicts_with = "quiet", display_order = 900)]
    pub verbose: bool,
    /// Say only warnings and errors on stderr
    #[arg(short, long, global = true, display_order = 901)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every task whose data is there, and print the table
    All(AllArgs),
    /// Run named tasks, for example imagenet1k/knn
    Run(RunArgs),
    /// Run a grid of cells from a file, sharing passes, on many devices or a cluster
    Sweep(super::sweep::SweepArgs),
    /// What a sweep starts: works on its units until nothing is left
    #[command(hide = true)]
    Work(super::sweep::WorkArgs),
    /// Print results as a table
    Table(TableArgs),
    /// Compare backbones on the same images: intervals, p-values, ranks
    Compare(CompareArgs),
    /// Draw results: bars, curves, Pareto fronts and more, as SVG, PNG or PDF
    Plot(super::plot::PlotArgs),
    /// Write one HTML file with tables, plots, pictures and the origin of every number
    Report(super::report::ReportArgs),
    /// Runs: list, show, diff, delete, export, import
    Runs(super::runs::RunsArgs),
    /// A backbone's results as metadata of a Hugging Face model card
    Card(super::card::CardArgs),
    /// Data sets: list, card, status, prepare, verify, sample
    #[command(subcommand)]
    Data(DataCommand),
    /// Backbones: list, show, pull, check
    #[command(subcommand)]
    Backbones(BackbonesCommand),
    /// Kept features: list, verify, prune
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Write the tokens of images to a safetensors file
    Features(FeaturesArgs),
    /// Robot simulators for CortexBench: install, check
    #[command(subcommand)]
    Simulators(super::simulators::SimulatorsCommand),
    /// Demonstrations of robot tasks: make, list
    #[command(subcommand)]
    Demos(super::demos::DemosCommand),
    /// Time a backbone, the heads and the search on this machine
    Bench(super::bench::BenchArgs),
    /// Check what this machine and this build can do
    Doctor(DoctorArgs),
}

/// `pixio-eval all`.
#[derive(Args, Clone, Debug)]
pub struct AllArgs {
    /// Data sets (default: every one that is there)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Heads (default: every one)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub heads: Vec<String>,
    #[command(flatten)]
    /// The rest.
    pub options: RunOptions,
}

/// `pixio-eval run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Tasks, for example imagenet1k/knn
    #[arg(required = true, value_name = "TASK/HEAD")]
    pub cells: Vec<String>,
    #[command(flatten)]
    /// The rest.
    pub options: RunOptions,
}

/// `pixio-eval table`.
#[derive(Args, Clone, Debug)]
pub struct TableArgs {
    /// Folder of results; repeatable
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: Vec<PathBuf>,
    /// wide (everything), depth, segmentation, cortexbench, sizes, blocks, ablation, or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "wide")]
    pub layout: String,
    /// With a layout of the paper's tables: its published figures above our runs
    #[arg(long)]
    pub published: bool,
    /// What else a table shows
    #[command(flatten)]
    pub shown: super::table::Shown,
    /// text, md, latex, html, csv, json or parquet; csv, json and parquet are the long form, one row a
    /// value at full precision
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: results::Format,
    #[command(flatten)]
    /// Which runs.
    pub filters: super::shown::Filters,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `pixio-eval compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Two or more backbones, by their name in the table
    #[arg(required = true, num_args = 2.., value_name = "BACKBONE")]
    pub backbones: Vec<String>,
    /// Folder of results; repeatable
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: Vec<PathBuf>,
    /// Only this data set, or TASK/HEAD; repeatable
    #[arg(long, value_name = "TASK")]
    pub task: Vec<String>,
    /// Compare by this metric (default: each task's first: top1 at the smallest k, rmse, miou)
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// The epoch compared, last or best (default: best where both runs have kept its per-image rows)
    #[arg(long, value_name = "EPOCH", value_parser = super::table::last_or_best)]
    pub selection: Option<schema::Selection>,
    /// With more than two backbones, also print every pair
    #[arg(long)]
    pub pairs: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `pixio-eval data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Every data set this version knows: task, counts, licence, where it comes from
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What is here, and whether it is complete
    Status {
        /// Data sets (default: all)
        names: Vec<String>,
        /// Folder of a data set (default: $PIXIO_EVAL_DATA/NAME, else data/NAME); repeatable
        #[arg(long, value_name = "NAME=DIR", value_parser = named_folder)]
        data: Vec<(String, PathBuf)>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a data set's folder: fetch what may be fetched, unpack, build the layout
    Prepare(super::prepare::PrepareArgs),
    /// What a data set is: terms, counts, where each file comes from, layouts, what to cite
    Card {
        /// Data sets
        #[arg(required = true)]
        names: Vec<String>,
        /// BibTeX of what to cite, and nothing else
        #[arg(long, conflicts_with = "json")]
        bibtex: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Whether the files are what they should be, and if not, what they are (exit 1 if anything is wrong)
    Verify(super::verify::VerifyArgs),
    /// Write small generated data sets in the real ones' layouts
    Sample {
        /// Data sets (default: all)
        names: Vec<String>,
        /// Folder to write to
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

/// `pixio-eval backbones`.
#[derive(Debug, Subcommand)]
pub enum BackbonesCommand {
    /// Every backbone that has a name
    List {
        #[command(flatten)]
        /// Names of the user's own.
        own: OwnArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One backbone's card
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        /// Names of the user's own.
        own: OwnArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch a backbone's weights and check them, for offline use later
    Pull {
        /// Name, or hf:ORG/REPO[@REV]
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        /// Names of the user's own.
        own: OwnArgs,
    },
    /// Load a backbone, run it, and print its size, speed and the fingerprint of its features
    Check(CheckArgs),
}

/// `pixio-eval backbones check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Name, folder, weights file, hf:ORG/REPO[@REV], random:NAME or py:FILE.py:FUNCTION
    pub backbone: String,
    #[command(flatten)]
    /// Which encoder.
    pub source: BackboneArgs,
    #[command(flatten)]
    /// Where and how.
    pub compute: ComputeArgs,
    /// Images in one encoder pass
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive)]
    pub batch_size: usize,
    /// Seconds of timing, at least three passes
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub seconds: u64,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `pixio-eval cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// What is kept, how large, and when it was last used
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read everything that is kept and name what is damaged (exit 1 if anything is)
    Verify {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Remove what is damaged; it is made again when it is needed
        #[arg(long)]
        remove: bool,
    },
    /// Remove what was not used for a while, and what older versions left
    Prune {
        /// Days without use; 0 removes everything that no process uses now
        #[arg(long, value_name = "N", default_value_t = 30)]
        unused_days: u64,
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// `pixio-eval features`.
#[derive(Args, Clone, Debug)]
pub struct FeaturesArgs {
    /// Images, JPEG or PNG
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Name, folder, weights file, hf:ORG/REPO[@REV], random:NAME or py:FILE.py:FUNCTION
    #[arg(long, value_name = "B")]
    pub backbone: String,
    #[command(flatten)]
    /// Which encoder.
    pub source: BackboneArgs,
    #[command(flatten)]
    /// Where and how.
    pub compute: ComputeArgs,
    /// Images in one encoder pass
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive)]
    pub batch_size: usize,
    /// Blocks to tap (default: the last)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub taps: Vec<usize>,
    /// N: shorter side to N, centre crop; HxW: resize to exactly that (default: the backbone's
    /// resolution)
    #[arg(long, value_name = "N|HxW", value_parser = size)]
    pub size: Option<Size>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `pixio-eval doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Folder of a data set (default: $PIXIO_EVAL_DATA/NAME, else data/NAME); repeatable
    #[arg(long, value_name = "NAME=DIR", value_parser = named_folder)]
    pub data: Vec<(String, PathBuf)>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// An image size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Shorter side, then centre crop.
    Crop(usize),
    /// Height and width.
    Exact(usize, usize),
}

fn size(text: &str) -> Result<Size, String> {
    let number = |text: &str| positive(text).map_err(|e| format!("{e}, or HxW"));
    match text.split_once('x') {
        None => number(text).map(Size::Crop),
        Some((height, width)) => Ok(Size::Exact(number(height)?, number(width)?)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_folders_are_read_or_refused() {
        assert_eq!(size("256"), Ok(Size::Crop(256)));
        assert_eq!(size("256x384"), Ok(Size::Exact(256, 384)));
        assert!(size("256x").is_err() && size("0").is_err());
        let (name, folder) = named_folder("imagenet1k=/a=b").unwrap();
        assert_eq!((name.as_str(), folder), ("imagenet1k", PathBuf::from("/a=b")));
        assert!(named_folder("/data").is_err());
    }
}
