//! Run folders under one out folder.

mod archive;
mod error;
mod files;
mod list;
mod remove;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schema::{FORMAT, Fingerprint, Outcome, RunPlan, RunRecord, SampleRows, Selection};

pub use archive::{ArchiveError, Imported, export_runs, import_runs};
pub use error::StoreError;
pub(crate) use files::{BEST, PREDICTIONS, folder_name};
use files::{FAILED, PLAN, PlanFile, RECORD};
pub use files::{remove_unfinished, write_whole};
pub use list::{Listed, Status};
pub use remove::{LOCK, delete_run};

use crate::predictions::{read_rows, write_rows};
use crate::statistics::{Samples, attach, fits};

/// The runs under one out folder; the format is documented at [`RunRecord`].
#[derive(Clone, Debug)]
pub struct Store {
    out: PathBuf,
}

/// The folder of one run that is being worked on.
#[derive(Debug)]
pub struct RunDir {
    folder: PathBuf,
    plan: RunPlan,
}

impl Store {
    /// Opens the store under `out`, which need not be there yet. Nothing is created.
    ///
    /// # Errors
    /// [`StoreError::NotAFolder`] when `out` is something else.
    pub fn open(out: &Path) -> Result<Self, StoreError> {
        match fs::metadata(out) {
            Ok(found) if !found.is_dir() => Err(StoreError::NotAFolder { path: out.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(StoreError::NotAFolder { path: out.to_owned() })
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("open", out)(error))
            }
            _ => Ok(Self { out: out.to_owned() }),
        }
    }

    /// The out folder.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Creates the out folder where needed and tries to write in it: for use before any work.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`] with the system's reason.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.out)
            .and_then(|()| files::temporary(&self.out).map(drop))
            .map_err(|source| StoreError::NotWritable { path: self.out.clone(), source })
    }

    /// The record of this plan, if it was carried out and its per-sample rows are still there. The
    /// plan is found by its key, whatever the backbone was called then.
    ///
    /// # Errors
    /// When a record is there and cannot be used: it cannot be read, has a newer format, or is of
    /// another run whose key begins alike.
    pub fn finished(&self, plan: &RunPlan) -> Result<Option<RunRecord>, StoreError> {
        let key = plan.key();
        let Some(folder) = self.existing(plan, &key)? else { return Ok(None) };
        let (stored, record) = match files::read_json::<RunRecord>(&folder, RECORD)? {
            Some(record) => (record.plan.key(), Some(record)),
            None => match files::read_json::<PlanFile>(&folder, PLAN) {
                Ok(Some(file)) => (file.plan.key(), None),
                // An unreadable plan of an unfinished run loses nothing: it is written again.
                Ok(None) | Err(StoreError::Json { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        if stored != key {
            return Err(StoreError::KeyMismatch { folder, expected: key, found: stored });
        }
        Ok(record.filter(|_| folder.join(PREDICTIONS).is_file()))
    }

    /// The plan of this key's run as it was begun, if it was and is not finished.
    ///
    /// # Errors
    /// As [`finished`](Self::finished).
    pub fn begun(&self, plan: &RunPlan) -> Result<Option<RunPlan>, StoreError> {
        let key = plan.key();
        if self.finished(plan)?.is_some() {
            return Ok(None);
        }
        let Some(folder) = self.existing(plan, &key)? else { return Ok(None) };
        match files::read_json::<PlanFile>(&folder, PLAN) {
            Ok(file) => Ok(file.map(|file| file.plan).filter(|plan| plan.key() == key)),
            Err(StoreError::Json { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts or restarts a run: its folder, its plan, and no word of an earlier failure.
    ///
    /// # Errors
    /// [`StoreError::AlreadyFinished`], or when the folder cannot be written.
    pub fn begin(&self, plan: &RunPlan) -> Result<RunDir, StoreError> {
        if self.finished(plan)?.is_some() {
            return Err(StoreError::AlreadyFinished { folder: self.folder(plan)? });
        }
        let folder = self.folder(plan)?;
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        let failed = folder.join(FAILED);
        match fs::remove_file(&failed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &failed)(error));
            }
            _ => {}
        }
        files::write_json(&folder, PLAN, &PlanFile { format: FORMAT, plan: plan.clone() })?;
        Ok(RunDir { folder, plan: plan.clone() })
    }

    /// The folder of this plan's run: where it is, or where it will be.
    ///
    /// # Errors
    /// When the out folder cannot be read.
    pub fn folder(&self, plan: &RunPlan) -> Result<PathBuf, StoreError> {
        let key = plan.key();
        let name = format!("{}-{}", folder_name(&plan.backbone.name), key.short());
        Ok(self.existing(plan, &key)?.unwrap_or_else(|| self.task_folder(plan).join(name)))
    }

    /// Every run folder, sorted by path, each with what is known of it.
    ///
    /// # Errors
    /// When the out folder itself cannot be read; what is wrong further down is listed.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        list::list(&self.out)
    }

    /// Every run folder under any number of out folders, in their order.
    ///
    /// # Errors
    /// When an out folder is none, or cannot be read.
    pub fn list_all(outs: &[PathBuf]) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        for out in outs {
            listed.extend(Self::open(out)?.list()?);
        }
        Ok(listed)
    }

    fn task_folder(&self, plan: &RunPlan) -> PathBuf {
        self.out.join(folder_name(&plan.task.dataset)).join(folder_name(&plan.task.head))
    }

    fn existing(&self, plan: &RunPlan, key: &Fingerprint) -> Result<Option<PathBuf>, StoreError> {
        let ending = format!("-{}", key.short());
        let named = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.ends_with(&ending))
        };
        Ok(list::folders(&self.task_folder(plan))?.into_iter().find(named))
    }
}

impl RunDir {
    /// The run folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is being carried out.
    pub fn plan(&self) -> &RunPlan {
        &self.plan
    }

    /// Keeps the per-sample rows of the best epoch so far, in place of those of an earlier one.
    ///
    /// # Errors
    /// When they cannot be written; those kept before are then still there.
    pub fn keep_best(&self, rows: &SampleRows) -> Result<(), StoreError> {
        self.write_rows(BEST, rows)
    }

    /// Writes the per-sample rows, then the record, with the intervals that these and the kept rows of
    /// the best epoch give: from then on the run is finished.
    ///
    /// # Errors
    /// When a file cannot be written; the run is then still unfinished.
    pub fn finish(&self, outcome: &Outcome, rows: &SampleRows) -> Result<RunRecord, StoreError> {
        self.write_rows(PREDICTIONS, rows)?;
        let mut outcome = outcome.clone();
        attach(&mut outcome.metrics, rows);
        self.attach_best(&mut outcome)?;
        let record = RunRecord { format: FORMAT, plan: self.plan.clone(), outcome };
        files::write_json(&self.folder, RECORD, &record)?;
        Ok(record)
    }

    fn write_rows(&self, name: &str, rows: &SampleRows) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        let path = || self.folder.join(name);
        write_rows(&mut bytes, rows)
            .map_err(|source| StoreError::Predictions { path: path(), source })?;
        files::write(&self.folder, name, &bytes)
    }

    /// Rows that are not the best epoch's go: a run that was continued elsewhere may have found
    /// another best epoch.
    fn attach_best(&self, outcome: &mut Outcome) -> Result<(), StoreError> {
        let path = self.folder.join(BEST);
        if !path.is_file() {
            return Ok(());
        }
        let problem = match read_rows(&path) {
            Ok(rows) if fits(&outcome.metrics, Selection::Best, &Samples::new(&rows)) => {
                attach(&mut outcome.metrics, &rows);
                return Ok(());
            }
            Ok(_) => "the kept per-image rows are of another epoch".to_owned(),
            Err(error) => error.to_string(),
        };
        outcome.warnings.push(format!("no interval for the best epoch: {problem}"));
        fs::remove_file(&path).map_err(StoreError::io("remove", &path))
    }

    /// Notes why the run failed.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn fail(&self, message: &str) -> Result<(), StoreError> {
        files::write(&self.folder, FAILED, format!("{}\n", message.trim_end()).as_bytes())
    }
}

#[cfg(test)]
mod tests;
