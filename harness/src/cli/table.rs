use clap::Args;
use results::{Format, Layout, LayoutOptions, Status, TableOptions};
use schema::Selection;

use super::args::TableArgs;
use super::shown::listed;
use super::{CliError, EXIT_DONE, print, write_file};

/// What a table shows of its runs.
#[derive(Args, Clone, Copy, Debug)]
pub struct Shown {
    /// The epoch shown of a trained head: last, best (one, chosen by rmse or mIoU) or best-each (each
    /// metric at its own) (default: best, in a layout of the paper's tables best-each)
    #[arg(long, value_name = "EPOCH", value_parser = any_selection)]
    pub selection: Option<Selection>,
    /// 95% intervals over validation images behind the values
    #[arg(long)]
    pub intervals: bool,
    /// With a layout: one row for all seeds, mean and standard deviation
    #[arg(long)]
    pub mean_over_seeds: bool,
}

fn any_selection(word: &str) -> Result<Selection, String> {
    match word {
        "best-each" => Ok(Selection::BestEach),
        word => last_or_best(word).map_err(|_| "expected last, best or best-each".to_owned()),
    }
}

/// For flags that name one epoch.
pub fn last_or_best(word: &str) -> Result<Selection, String> {
    match word {
        "last" => Ok(Selection::Last),
        "best" => Ok(Selection::Best),
        _ => Err("expected last or best".to_owned()),
    }
}

pub(super) fn table(args: &TableArgs) -> Result<u8, CliError> {
    let finished = listed(&args.out)?.into_iter().filter_map(|run| match run.status {
        Status::Finished(record) => Some(*record),
        _ => None,
    });
    let records: Vec<_> = finished.collect();
    let options = TableOptions {
        selection: args.shown.selection,
        intervals: args.shown.intervals,
        ..args.filters.options()
    };
    if args.format == Format::Parquet && args.output.is_none() {
        return Err(CliError::NeedsFile(args.format));
    }
    let bytes = match args.layout.as_str() {
        "wide" if args.published => return Err(CliError::NeedsLayout("--published")),
        "wide" if args.shown.mean_over_seeds => {
            return Err(CliError::NeedsLayout("--mean-over-seeds"));
        }
        "wide" => results::render(&records, args.format, &options)?,
        layout => {
            let chosen: Vec<_> = match records.is_empty() {
                true => Vec::new(),
                false => results::choose(&records, &options)?.into_iter().cloned().collect(),
            };
            let options = LayoutOptions {
                published: args.published,
                intervals: args.shown.intervals,
                mean_over_seeds: args.shown.mean_over_seeds,
                selection: args.shown.selection,
            };
            Layout::open(layout)?.render(&chosen, options, args.format)?
        }
    };
    match &args.output {
        Some(path) => write_file(path, &bytes)?,
        None => print(&bytes)?,
    }
    Ok(EXIT_DONE)
}
