//! `pixio-eval data prepare`.

use std::path::PathBuf;

use clap::Args;
use tasks::data::Dataset;

use super::{CliError, EXIT_DONE, print};
use crate::locate;
use crate::prepare::{Outcome, Record, Request, prepare};
use crate::progress::Reporter;
use crate::run::CELLS;

/// `pixio-eval data prepare`.
#[derive(Args, Clone, Debug)]
pub struct PrepareArgs {
    /// Data set
    pub name: String,
    /// A file that it is made from, or a folder that holds such files; repeatable
    #[arg(long, value_name = "FILE_OR_FOLDER")]
    pub from: Vec<PathBuf>,
    /// Folder to make (default: $PIXIO_EVAL_DATA/NAME, else data/NAME)
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// The set of files to make it from, where there are several
    #[arg(long, value_name = "SET")]
    pub set: Option<String>,
    /// Say what would be fetched and made, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Keep what was fetched, in DIR.downloads
    #[arg(long)]
    pub keep_archives: bool,
    /// Never use the network
    #[arg(long)]
    pub offline: bool,
}

pub(super) fn run(
    args: PrepareArgs,
    dataset: &Dataset,
    reporter: &Reporter,
) -> Result<u8, CliError> {
    let usual = locate::dataset(&dataset.name, &[]);
    let mut request = Request::new(dataset, args.to.unwrap_or_else(|| usual.clone()));
    request.from = args.from;
    request.set = args.set;
    request.dry_run = args.dry_run;
    request.keep_archives = args.keep_archives;
    request.offline |= args.offline;
    let name = &dataset.name;
    let folder = match prepare(&request, reporter)? {
        Outcome::Planned(text) => {
            print(text.as_bytes())?;
            return Ok(EXIT_DONE);
        }
        Outcome::Prepared { folder, record } => {
            let Record { files, bytes, .. } = record;
            reporter.say(format!("{name}: prepared, {files} files of {bytes} bytes"));
            folder
        }
        Outcome::Already { folder, record } => {
            let Record { files, at, .. } = record;
            reporter
                .say(format!("{name}: prepared at {at} already, and its {files} files are there"));
            folder
        }
    };
    let task = match CELLS.iter().find(|(task, _)| *task == name.as_str()) {
        Some((task, head)) if *head != "policy" => format!("{task}/{head}"),
        _ => format!("cortexbench/{name}"),
    };
    let data = match request.to == usual {
        true => String::new(),
        false => format!(" --data {name}={}", request.to.display()),
    };
    reporter.say(format!("try: pixio-eval run {task} --backbone pixio-b{data}"));
    print(format!("{name}={}\n", folder.display()).as_bytes())?;
    Ok(EXIT_DONE)
}
