//! `pixio-eval report`.

use std::path::PathBuf;

use clap::Args;
use results::Store;
use results::report::report as write;

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
    let page = write(Store::list_all(&args.out)?)?;
    write_file(&args.output, page.as_bytes())?;
    eprintln!("wrote {}; open it in a browser", args.output.display());
    Ok(EXIT_DONE)
}
