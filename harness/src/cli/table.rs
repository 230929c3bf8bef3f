use results::{Format, Status, Store, TableOptions};

use super::args::{RunsArgs, TableArgs};
use super::{CliError, EXIT_DONE, print, write_file};

pub(super) fn table(args: &TableArgs) -> Result<u8, CliError> {
    let listed = Store::open(&args.out)?.list()?;
    let total = listed.len();
    let finished = listed.into_iter().filter_map(|run| match run.status {
        Status::Finished(record) => Some(*record),
        _ => None,
    });
    let records: Vec<_> = finished.collect();
    let others = total - records.len();
    if others > 0 {
        let out = args.out.display();
        eprintln!("note: {others} runs are not finished; `pixio-eval runs --out {out}` lists them");
    }
    let options = TableOptions {
        datasets: args.tasks.clone(),
        heads: args.heads.clone(),
        backbones: args.backbone.clone(),
        ..TableOptions::default()
    };
    if args.format == Format::Parquet && args.output.is_none() {
        return Err(CliError::NeedsFile(args.format));
    }
    let bytes = results::render(&records, args.format, &options)?;
    match &args.output {
        Some(path) => write_file(path, &bytes)?,
        None => print(&bytes)?,
    }
    Ok(EXIT_DONE)
}

pub(super) fn runs(args: &RunsArgs) -> Result<u8, CliError> {
    let listed = Store::open(&args.out)?.list()?;
    if args.json {
        let json = results::runs_json(&listed)
            .map_err(|e| CliError::Output { what: "JSON".to_owned(), why: e.to_string() })?;
        print(format!("{json}\n").as_bytes())?;
    } else {
        print(results::runs_table(&listed).as_bytes())?;
    }
    Ok(EXIT_DONE)
}
