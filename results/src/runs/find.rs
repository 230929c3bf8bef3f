//! Which of the listed runs are meant.

use schema::RunPlan;

use super::line;
use crate::store::{Listed, Status};

/// Which runs to list; an empty list lets everything through. A run whose plan cannot be read
/// passes no filter but that of its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Backbones by their recorded name.
    pub backbones: Vec<String>,
    /// Data sets.
    pub datasets: Vec<String>,
    /// Heads.
    pub heads: Vec<String>,
    /// `finished`, `unfinished`, `failed`, `newer-format` or `unreadable`.
    pub states: Vec<String>,
}

impl RunFilter {
    /// Whether any filter is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a run is let through.
    pub fn passes(&self, run: &Listed) -> bool {
        let planned = |wanted: &[String], get: fn(&RunPlan) -> &String| {
            wanted.is_empty() || run.plan().is_some_and(|plan| wanted.contains(get(plan)))
        };
        planned(&self.backbones, |plan| &plan.backbone.name)
            && planned(&self.datasets, |plan| &plan.task.dataset)
            && planned(&self.heads, |plan| &plan.task.head)
            && (self.states.is_empty() || self.states.iter().any(|state| state == line(run).status))
    }
}

/// Why an id names no run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunIdError {
    /// No run has it.
    #[error("there is no run {id:?} under {outs}")]
    Unknown {
        /// As given.
        id: String,
        /// Where it was looked for.
        outs: String,
    },
    /// Several runs have it.
    #[error("{id:?} is the beginning of {} runs: {}", runs.len(), runs.join(", "))]
    Ambiguous {
        /// As given.
        id: String,
        /// Their folders.
        runs: Vec<String>,
    },
}

impl Listed {
    /// The plan, where it could be read.
    pub fn plan(&self) -> Option<&RunPlan> {
        match &self.status {
            Status::Finished(record) => Some(&record.plan),
            Status::Unfinished(plan) | Status::Failed(plan, _) => Some(plan),
            Status::NewerFormat { .. } | Status::Unreadable { .. } => None,
        }
    }

    /// What commands call the run: the end of its folder's name.
    pub fn id(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        name.rsplit_once('-').map_or(&*name, |(_, key)| key).to_owned()
    }
}

/// The run an id names: its folder, or the beginning of [`Listed::id`] where only one begins so.
///
/// # Errors
/// [`RunIdError`] when that is none or several.
pub fn find_run<'a>(listed: &'a [Listed], id: &str, outs: &str) -> Result<&'a Listed, RunIdError> {
    let wanted = std::path::Path::new(id.trim_end_matches('/'));
    if let Some(run) = listed.iter().find(|run| run.folder == wanted) {
        return Ok(run);
    }
    let begins = |run: &&Listed| !id.is_empty() && run.id().starts_with(id);
    let found: Vec<&Listed> = listed.iter().filter(begins).collect();
    match found.as_slice() {
        [] => Err(RunIdError::Unknown { id: id.to_owned(), outs: outs.to_owned() }),
        [run] => Ok(run),
        several => Err(RunIdError::Ambiguous {
            id: id.to_owned(),
            runs: several.iter().map(|run| run.folder.display().to_string()).collect(),
        }),
    }
}
