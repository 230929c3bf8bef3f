use results::Store;
use results::compare::{CompareOptions, compare as find};

use super::args::CompareArgs;
use super::{CliError, EXIT_DONE, print, print_json};

pub(super) fn compare(args: &CompareArgs) -> Result<u8, CliError> {
    let options = CompareOptions {
        backbones: args.backbones.clone(),
        tasks: args.task.clone(),
        metric: args.metric.clone(),
        selection: args.selection,
    };
    let found = find(&Store::list_all(&args.out)?, &options)?;
    match args.json {
        true => print_json(&found)?,
        false => print(found.text(args.pairs).as_bytes())?,
    }
    Ok(EXIT_DONE)
}
