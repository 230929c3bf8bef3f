//! `pixio-eval plot`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use results::TableOptions;
use results::plot::{Cost, Kind, PlotOptions, Runs, Width, plot as find};

use super::shown::{Filters, listed};
use super::{CliError, EXIT_DONE, write_file};

/// `pixio-eval plot`.
#[derive(Args, Clone, Debug)]
pub struct PlotArgs {
    /// What to draw
    #[arg(value_name = "KIND", value_parser = kind())]
    pub kind: Kind,
    /// Folder of results; repeatable
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: Vec<PathBuf>,
    /// The file to write; its extension decides: svg, png or pdf
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// A column of a paper (3.5 inches) or both (7.2 inches)
    #[arg(long, value_name = "WIDTH", default_value = "single", value_parser = width())]
    pub width: Width,
    #[command(flatten)]
    /// Which runs.
    pub filters: Filters,
    /// Only these protocols, by their whole name
    #[arg(long, value_name = "NAME")]
    pub protocol: Vec<String>,
    /// The metric (default: each task's first: top1 at the smallest k, rmse, miou)
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// setting: the setting along the horizontal axis, for example learning_rate, block or k (default:
    /// the one that the runs differ in)
    #[arg(long, value_name = "SETTING")]
    pub x: Option<String>,
    /// setting: a second one, for a heat map
    #[arg(long, value_name = "SETTING", requires = "x")]
    pub y: Option<String>,
    /// pareto: against the encoder's parameters, or the images a second that runs measured
    #[arg(long, value_name = "COST", default_value = "parameters", value_parser = cost())]
    pub against: Cost,
    /// The most backbones in one chart, the best of them
    #[arg(long, value_name = "N")]
    pub most: Option<usize>,
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    let helps = Kind::ALL.map(|kind| {
        let help = match kind {
            Kind::Bars => "results with 95% intervals, a bar a head",
            Kind::Blocks => "a metric against the depth of the tapped block",
            Kind::Setting => "a metric against a setting that runs differ in; a heat map for two",
            Kind::Pareto => "a metric against size or speed, with the Pareto front",
            Kind::Curves => "training loss and validation metric by epoch",
            Kind::Classes => "IoU of every class",
            Kind::Errors => "how a metric is spread over images",
            Kind::Wins => "on how many images one backbone beats another",
        };
        PossibleValue::new(kind.as_str()).help(help)
    });
    PossibleValuesParser::new(helps)
        .map(|word| Kind::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or(Kind::Bars))
}

fn width() -> impl TypedValueParser<Value = Width> {
    PossibleValuesParser::new(["single", "double"])
        .map(|word| if word == "double" { Width::Double } else { Width::Single })
}

fn cost() -> impl TypedValueParser<Value = Cost> {
    PossibleValuesParser::new(["parameters", "speed"])
        .map(|word| if word == "speed" { Cost::Speed } else { Cost::Parameters })
}

pub(super) fn plot(args: &PlotArgs) -> Result<u8, CliError> {
    let extension = args.output.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    let Some(format @ ("svg" | "png" | "pdf")) = extension.as_deref() else {
        return Err(CliError::PictureFormat(args.output.display().to_string()));
    };
    let listed = listed(&args.out)?;
    let options = PlotOptions {
        runs: TableOptions { protocols: args.protocol.clone(), ..args.filters.options() },
        metric: args.metric.clone(),
        x: args.x.clone(),
        y: args.y.clone(),
        cost: args.against,
        width: args.width,
        most: args.most,
    };
    let plot = find(&Runs::finished(listed), args.kind, &options)?;
    let bytes = match format {
        "png" => plot.png()?,
        "pdf" => plot.pdf()?,
        _ => plot.svg()?.into_bytes(),
    };
    write_file(&args.output, &bytes)?;
    eprintln!("wrote {}", args.output.display());
    Ok(EXIT_DONE)
}
