//! `pixio-eval bench`.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::options::{BackboneArgs, above_zero, batch_size, positive};
use super::{CliError, EXIT_DONE, print, print_json};
use crate::bench::{Options, Search, What, bench as time};
use crate::device::{DeviceChoice, parse_dtype};
use crate::progress::Reporter;
use crate::run::BatchSize;

/// `pixio-eval bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to time (default: all)
    #[arg(value_name = "WHAT", value_parser = what())]
    pub what: Vec<Asked>,
    /// Backbone, for example random:pixio-l; repeatable (default: random:pixio-l on a GPU,
    /// random:pixio-b on the CPU)
    #[arg(long, value_name = "B")]
    pub backbone: Vec<String>,
    #[command(flatten)]
    /// Which encoder.
    pub source: BackboneArgs,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// f32, bf16 or f16 (default: bf16 on a GPU, f32 on the CPU)
    #[arg(long, value_name = "TYPE", value_parser = parse_dtype)]
    pub dtype: Option<candle_core::DType>,
    /// encoder: images in a pass (default: 16 to 512 on a GPU, 1 to 16 on the CPU)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    pub batches: Vec<usize>,
    /// Heads: images that go through the encoder and a head at a time, or auto: as many as memory
    /// allows (default: auto on a GPU, 16 on the CPU)
    #[arg(long, value_name = "N|auto", value_parser = batch_size)]
    pub batch_size: Option<BatchSize>,
    /// Heads: data sets whose batch, classes and image size are used; none is read
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "nyuv2,ade20k")]
    pub tasks: Vec<String>,
    /// Heads: pixio, the published protocol, or sample, reduced
    #[arg(long, value_name = "NAME", default_value = "pixio", value_parser = ["pixio", "sample"])]
    pub protocol: String,
    /// val: images (default: 64 on a GPU, 2 on the CPU)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub images: Option<usize>,
    /// knn: rows that are searched (default: 1281167 on a GPU, 100000 on the CPU)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub train_rows: Option<usize>,
    /// knn: queries (default: 50000 on a GPU, 2000 on the CPU)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub queries: Option<usize>,
    /// knn: width of a feature
    #[arg(long, value_name = "N", default_value = "1024", value_parser = positive)]
    pub width: usize,
    /// knn: numbers of neighbours
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "10,20,100,200", value_parser = positive)]
    pub k: Vec<usize>,
    /// Peak of the device in TFLOPS, for what is used of it (default: that of a GPU known by name)
    #[arg(long, value_name = "TFLOPS", value_parser = above_zero)]
    pub peak: Option<f64>,
    /// Seconds to repeat each measurement for; three times at least
    #[arg(long, value_name = "S", default_value = "2", value_parser = above_zero)]
    pub seconds: f64,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// One thing, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(Option<What>);

fn what() -> impl TypedValueParser<Value = Asked> {
    let helps = What::ALL.map(|what| {
        let help = match what {
            What::Encoder => "images a second at several batch sizes",
            What::Knn => "a k-NN search among random features",
            What::Linear => "a training step and a prediction of the linear head",
            What::Dpt => "a training step and a prediction of the DPT head",
            What::Shared => "both heads on one encoded batch, against each part alone",
            What::Val => "validation of whole images by sliding window with the DPT head",
        };
        PossibleValue::new(what.as_str()).help(help)
    });
    let all = PossibleValue::new("all").help("everything");
    let of = |word: String| What::ALL.into_iter().find(|what| what.as_str() == word);
    PossibleValuesParser::new(helps.into_iter().chain([all])).map(move |word| Asked(of(word)))
}

pub(super) fn bench(args: &BenchArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let all = args.what.iter().any(|asked| asked.0.is_none());
    let mut k = args.k.clone();
    k.sort_unstable();
    k.dedup();
    let options = Options {
        what: if all { Vec::new() } else { args.what.iter().filter_map(|asked| asked.0).collect() },
        backbones: args.backbone.clone(),
        source: args.source.options(),
        device: args.device,
        dtype: args.dtype,
        batches: args.batches.clone(),
        batch_size: args.batch_size,
        tasks: args.tasks.clone(),
        protocol: args.protocol.clone(),
        images: args.images,
        search: Search { train: args.train_rows, queries: args.queries, width: args.width, k },
        peak: args.peak,
        seconds: args.seconds,
    };
    let report = time(&options, reporter)?;
    match args.json {
        true => print_json(&report)?,
        false => print(report.text().as_bytes())?,
    }
    Ok(EXIT_DONE)
}
