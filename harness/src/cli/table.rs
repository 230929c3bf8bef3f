use results::{Format, Layout, Status, Store, TableOptions};

use super::args::{RunsArgs, TableArgs};
use super::{CliError, EXIT_DONE, print, write_file};

pub(super) fn table(args: &TableArgs) -> Result<u8, CliError> {
    let listed = Store::list_all(&args.out)?;
    if let Some(told) = results::left_out(&listed) {
        eprintln!("note: {told}; `pixio-eval runs` says why");
    }
    let finished = listed.into_iter().filter_map(|run| match run.status {
        Status::Finished(record) => Some(*record),
        _ => None,
    });
    let records: Vec<_> = finished.collect();
    let options = TableOptions {
        datasets: args.tasks.clone(),
        heads: args.heads.clone(),
        backbones: args.backbone.clone(),
        ..TableOptions::default()
    };
    if args.format == Format::Parquet && args.output.is_none() {
        return Err(CliError::NeedsFile(args.format));
    }
    let bytes = match args.layout.as_str() {
        "wide" if args.published => return Err(CliError::NeedsLayout),
        "wide" => results::render(&records, args.format, &options)?,
        layout => {
            let chosen: Vec<_> = match records.is_empty() {
                true => Vec::new(),
                false => results::choose(&records, &options)?.into_iter().cloned().collect(),
            };
            Layout::open(layout)?.render(&chosen, args.published, args.format)?
        }
    };
    match &args.output {
        Some(path) => write_file(path, &bytes)?,
        None => print(&bytes)?,
    }
    Ok(EXIT_DONE)
}

pub(super) fn runs(args: &RunsArgs) -> Result<u8, CliError> {
    let listed = Store::list_all(&args.out)?;
    if args.json {
        let json = results::runs_json(&listed)
            .map_err(|e| CliError::Output { what: "JSON".to_owned(), why: e.to_string() })?;
        print(format!("{json}\n").as_bytes())?;
    } else {
        print(results::runs_table(&listed).as_bytes())?;
    }
    Ok(EXIT_DONE)
}
