use std::path::PathBuf;

use clap::Args;
use results::{Status, Store, model_card};
use tasks::data::Registry;

use super::{CliError, EXIT_DONE, print, write_file};
use crate::progress::Reporter;

/// `pixio-eval card`.
#[derive(Args, Clone, Debug)]
pub struct CardArgs {
    /// Backbone, by its name in the table
    #[arg(value_name = "BACKBONE")]
    pub backbone: String,
    /// Folder of results; repeatable
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: Vec<PathBuf>,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

pub(super) fn card(args: &CardArgs, reporter: &Reporter) -> Result<u8, CliError> {
    let listed = Store::list_all(&args.out)?;
    let finished = listed.iter().filter_map(|run| match &run.status {
        Status::Finished(record) => Some(&**record),
        _ => None,
    });
    let records: Vec<_> = finished.collect();
    if records.is_empty() {
        return Err(results::TableError::NoRuns.into());
    }
    let known = Registry::builtin()?;
    let title = |name: &str| known.get(name).map(|set| set.title.clone());
    let (card, left_out) = model_card(&records, &args.backbone, title)?;
    match &args.output {
        Some(path) => write_file(path, card.as_bytes())?,
        None => print(card.as_bytes())?,
    }
    if left_out > 0 {
        reporter.say(format!(
            "runs left out, which are no results: {left_out} (untrained, sample data or no finite value)"
        ));
    }
    Ok(EXIT_DONE)
}
