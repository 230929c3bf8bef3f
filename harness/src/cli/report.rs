//! `pixio-eval report`.

use std::path::PathBuf;

use clap::Args;
use results::Store;
use results::report::{Terms, report as write};
use tasks::data::{Citation, Dataset, Registry};

use super::{CliError, EXIT_DONE, write_file};

/// `pixio-eval report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Folder of results; repeatable
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: Vec<PathBuf>,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
}

pub(super) fn report(args: &ReportArgs) -> Result<u8, CliError> {
    let terms: Vec<Terms> = Registry::builtin()?.datasets().iter().map(terms).collect();
    let page = write(Store::list_all(&args.out)?, &terms)?;
    write_file(&args.output, page.as_bytes())?;
    eprintln!("wrote {}; open it in a browser", args.output.display());
    Ok(EXIT_DONE)
}

/// What a report tells of a data set.
fn terms(set: &Dataset) -> Terms {
    let cited = |citation: &Citation| citation.bibtex.trim().to_owned();
    Terms {
        name: set.name.clone(),
        title: set.title.clone(),
        licence: set.licence.clone(),
        citations: set.citations.iter().map(cited).collect(),
    }
}
