use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schema::{RunPlan, RunRecord};

use super::StoreError;
use super::files::{self, FAILED, PLAN, PREDICTIONS, PlanFile, RECORD, ends_with_key};

/// A run folder and what is known of it.
#[derive(Debug)]
pub struct Listed {
    /// The run folder, `OUT/DATASET/HEAD/BACKBONE-KEY`.
    pub folder: PathBuf,
    /// How far the run is.
    pub status: Status,
}

/// How far a run is.
#[derive(Debug)]
pub enum Status {
    /// The record is there.
    Finished(Box<RunRecord>),
    /// The plan is there and the record is not: the same command continues the run.
    Unfinished(Box<RunPlan>),
    /// The run failed, with this message.
    Failed(Box<RunPlan>, String),
    /// Written by a newer version of the program.
    NewerFormat {
        /// The format it states.
        found: u32,
    },
    /// Something is wrong with the folder or its files.
    Unreadable {
        /// What, and where.
        why: String,
    },
}

/// Folders in a folder, sorted; none when it is not there. Hidden ones are passed over.
pub(super) fn folders(parent: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::io("read", parent))?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("read", parent))?;
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

pub(super) fn list(out: &Path) -> Result<Vec<Listed>, StoreError> {
    let mut level = folders(out)?;
    let mut listed = Vec::new();
    for _ in 0..2 {
        let mut next = Vec::new();
        for folder in level {
            match folders(&folder) {
                Ok(inside) => next.extend(inside),
                Err(error) => {
                    let status = Status::Unreadable { why: error.to_string() };
                    listed.push(Listed { folder, status });
                }
            }
        }
        level = next;
    }
    listed.par_extend(level.into_par_iter().filter(|folder| is_run(folder)).map(|folder| {
        let status = read(&folder).unwrap_or_else(|error| match error {
            StoreError::NewerFormat { found, .. } => Status::NewerFormat { found },
            error => Status::Unreadable { why: error.to_string() },
        });
        Listed { folder, status }
    }));
    listed.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(listed)
}

/// An out folder may hold other things; a run is known by its name or by one of its files.
fn is_run(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(ends_with_key)
        || [PLAN, RECORD, FAILED, PREDICTIONS].iter().any(|name| folder.join(name).exists())
}

fn read(folder: &Path) -> Result<Status, StoreError> {
    if let Some(record) = files::read_json::<RunRecord>(folder, RECORD)? {
        return Ok(Status::Finished(Box::new(record)));
    }
    let plan = match files::read_json::<PlanFile>(folder, PLAN)? {
        Some(file) => Box::new(file.plan),
        None => return Err(StoreError::NoPlan { folder: folder.to_owned() }),
    };
    Ok(match files::read(folder, FAILED)? {
        Some(message) => {
            Status::Failed(plan, String::from_utf8_lossy(&message).trim_end().to_owned())
        }
        None => Status::Unfinished(plan),
    })
}
