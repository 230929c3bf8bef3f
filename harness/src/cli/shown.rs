//! What commands that show runs have in common.

use std::path::PathBuf;

use clap::Args;
use results::{Listed, Store, TableOptions};

use super::CliError;

/// Which runs are shown.
#[derive(Args, Clone, Debug)]
pub struct Filters {
    /// Only these backbones, by their name in the table
    #[arg(long, value_name = "NAME")]
    pub backbone: Vec<String>,
    /// Only these data sets
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Only these heads
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub heads: Vec<String>,
}

impl Filters {
    /// The same for a table.
    pub(super) fn options(&self) -> TableOptions {
        TableOptions {
            datasets: self.tasks.clone(),
            heads: self.heads.clone(),
            backbones: self.backbone.clone(),
            ..TableOptions::default()
        }
    }
}

/// Every run of the folders; says on stderr which of them are left out of what is shown.
pub(super) fn listed(out: &[PathBuf]) -> Result<Vec<Listed>, CliError> {
    let listed = Store::list_all(out)?;
    if let Some(told) = results::left_out(&listed) {
        eprintln!("note: {told}; `pixio-eval runs` says why");
    }
    Ok(listed)
}
