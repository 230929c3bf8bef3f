//! Job arrays of Slurm, through its own programs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::records::{self, Entry, Record};
use super::{
    Config, Job, JobKind, Launch, LaunchError, Launched, Launcher, absolute, check, folder, plain,
    script, stem, write,
};

/// Submits jobs with sbatch.
#[derive(Clone, Debug)]
pub struct Slurm {
    /// Where its programs are looked for, in the form of `$PATH`.
    pub search: OsString,
    /// What jobs ask for.
    pub config: Config,
}

/// Tasks of one job that are in the same state at the same place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueLine {
    /// The launch it belongs to.
    pub launch: String,
    /// Slurm's id of the whole array.
    pub id: String,
    /// What the job does.
    pub kind: JobKind,
    /// Slurm's word, for example `PENDING` or `RUNNING`.
    pub state: String,
    /// The node, or why there is none yet.
    pub place: String,
    /// How many tasks.
    pub tasks: usize,
}

/// One job that was still in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// The launch it belongs to.
    pub launch: String,
    /// What the job does.
    pub kind: JobKind,
    /// Slurm's id of the whole array.
    pub id: String,
    /// How many of its tasks had not ended.
    pub tasks: usize,
    /// What scancel said where it did not cancel it.
    pub refused: Option<String>,
}

impl Launcher for Slurm {
    fn launch(&self, launch: &Launch, jobs: &[Job]) -> Result<Launched, LaunchError> {
        check(launch, jobs)?;
        let sbatch = find(&self.search, "sbatch")?;
        let state = absolute(&launch.state)?;
        // Slurm puts the folder before a relative log, and then replaces % and \ in the whole.
        let path = state.to_string_lossy();
        if path.contains(['%', '\\']) || path.contains(char::is_control) {
            return Err(LaunchError::State(state));
        }
        let folder = folder(launch, "slurm")?;
        let mut scripts = Vec::new();
        let mut entries = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            let stem = stem(index, job.kind);
            let name = format!("{}.{}.{stem}", plain(&launch.name), launch.id);
            let resources = self.config.resources(job);
            let script = folder.join(format!("{stem}.sbatch"));
            write(&script, &script::sbatch(launch, jobs, index, &name, &resources)?)?;
            scripts.push(script);
            entries.push(Entry { kind: job.kind, name, tasks: job.tasks, id: None, cluster: None });
        }
        // The names come first: a submission whose answer is lost can still be found.
        let mut record = Record::new(launch.id.clone(), entries);
        record.write(&folder)?;
        for (index, job) in jobs.iter().enumerate() {
            let mut command = Command::new(&sbatch);
            command.current_dir(&state).arg("--parsable");
            if let Some(id) = job.after.and_then(|after| record.jobs[after].id.as_ref()) {
                command.arg(format!("--dependency=afterany:{id}"));
            }
            let submitted = submit(command.arg(&scripts[index])).and_then(|(id, cluster)| {
                (record.jobs[index].id, record.jobs[index].cluster) = (Some(id), cluster);
                record.write(&folder).map_err(|error| error.to_string())
            });
            if let Err(why) = submitted {
                let stem = stem(index, job.kind);
                let (cancelled, left) = self.take_back(&record.jobs[..=index]);
                return Err(LaunchError::Submit { stem, why, cancelled, left });
            }
        }
        let ids = record.jobs.into_iter().filter_map(|job| job.id).collect();
        Ok(Launched { folder, scripts, ids })
    }
}

impl Slurm {
    /// Cancels what was submitted: ids that are cancelled, and those that are left. The last job may
    /// have no id: sbatch failed, but where it only waited in vain for an answer the job is there.
    fn take_back(&self, jobs: &[Entry]) -> (Vec<String>, Vec<String>) {
        let (mut cancelled, mut left) = (Vec::new(), Vec::new());
        let scancel = find(&self.search, "scancel");
        for job in jobs {
            let done = scancel.as_ref().is_ok_and(|scancel| {
                output(&mut cancelling(scancel, job, job.id.as_deref())).is_ok()
            });
            if let Some(id) = &job.id {
                if done { &mut cancelled } else { &mut left }.push(id.clone());
            }
        }
        (cancelled, left)
    }
}

/// By name too, since Slurm uses an id again after some time.
fn cancelling(scancel: &Path, job: &Entry, id: Option<&str>) -> Command {
    let mut command = Command::new(scancel);
    command.args(on(&job.cluster)).arg(format!("--name={}", job.name)).args(id);
    command
}

fn on(cluster: &Option<String>) -> Option<String> {
    cluster.as_ref().map(|cluster| format!("--clusters={cluster}"))
}

/// The id and cluster that sbatch answers with, or its words.
fn submit(command: &mut Command) -> Result<(String, Option<String>), String> {
    let answer = output(command).map_err(|(status, said)| match said.as_str() {
        "" => format!("sbatch ended with {status}"),
        said => said.to_owned(),
    })?;
    let (id, cluster) = match answer.trim().split_once(';') {
        Some((id, cluster)) => (id, Some(cluster.to_owned())),
        None => (answer.trim(), None),
    };
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("expected a job's id from sbatch, found {answer:?}"));
    }
    Ok((id.to_owned(), cluster))
}

/// What it wrote on stdout, or how it ended and what it wrote on stderr.
fn output(command: &mut Command) -> Result<String, (String, String)> {
    let ran = command.stdin(Stdio::null()).output().map_err(|e| (e.to_string(), String::new()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ran.status.success() {
        return Ok(text(&ran.stdout));
    }
    Err((ran.status.to_string(), text(&ran.stderr)))
}

fn find(search: &OsStr, program: &'static str) -> Result<PathBuf, LaunchError> {
    let mut places = std::env::split_paths(search).map(|folder| folder.join(program));
    match places.find(|path| path.is_file()) {
        Some(path) => absolute(&path),
        None => Err(LaunchError::Missing(program)),
    }
}

/// Which tasks of a sweep's launches wait or run, by job and place. Empty where nothing was
/// submitted or this machine has no squeue.
///
/// # Errors
/// Records that cannot be read, or a squeue that fails.
pub fn queue(state: &Path, search: &OsStr) -> Result<Vec<QueueLine>, LaunchError> {
    let Ok(squeue) = find(search, "squeue") else { return Ok(Vec::new()) };
    Ok(ask(&squeue, &records::read(state)?)?.into_iter().map(|(line, _)| line).collect())
}

fn ask<'a>(
    squeue: &Path,
    records: &'a [Record],
) -> Result<Vec<(QueueLine, &'a Entry)>, LaunchError> {
    let mut clusters: BTreeMap<&Option<String>, Vec<&str>> = BTreeMap::new();
    let mut known = BTreeMap::new();
    for record in records {
        for job in &record.jobs {
            clusters.entry(&job.cluster).or_default().push(&job.name);
            known.insert(job.name.as_str(), (record, job));
        }
    }
    let mut lines: BTreeMap<QueueLine, (usize, &Entry)> = BTreeMap::new();
    for (cluster, names) in clusters {
        let mut command = Command::new(squeue);
        // One line a task: array's id, state, name, node, reason.
        command.args(on(cluster)).args(["--noheader", "--array", "--format=%F|%T|%j|%N|%r"]);
        let answer = output(command.arg(format!("--name={}", names.join(","))));
        let answer = answer.map_err(|(status, said)| LaunchError::Program {
            program: "squeue",
            status,
            said,
        })?;
        for line in answer.lines() {
            let mut fields = line.splitn(5, '|').map(str::trim);
            let mut next = || fields.next().unwrap_or_default();
            let (id, state, name, node, reason) = (next(), next(), next(), next(), next());
            // A cluster's name comes on a line of its own.
            let Some((record, job)) = known.get(name) else { continue };
            let line = QueueLine {
                launch: record.launch.clone(),
                id: id.to_owned(),
                kind: job.kind,
                state: state.to_owned(),
                place: if node.is_empty() { reason } else { node }.to_owned(),
                tasks: 0,
            };
            lines.entry(line).or_insert((0, job)).0 += 1;
        }
    }
    Ok(lines.into_iter().map(|(line, (tasks, job))| (QueueLine { tasks, ..line }, job)).collect())
}

/// Cancels every job of a sweep's launches that has not ended. The file [`super::CANCELLED`] should be
/// there first: a task that has just been told to end would else go back into the queue.
///
/// # Errors
/// Records that cannot be read, or Slurm's programs missing or failing; what scancel refuses is in
/// the answer.
pub fn cancel(state: &Path, search: &OsStr) -> Result<Vec<Cancelled>, LaunchError> {
    let records = records::read(state)?;
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let (squeue, scancel) = (find(search, "squeue")?, find(search, "scancel")?);
    let mut all: Vec<Cancelled> = Vec::new();
    for (QueueLine { launch, id, kind, tasks, .. }, job) in ask(&squeue, &records)? {
        match all.last_mut().filter(|last| last.launch == launch && last.id == id) {
            // Other tasks of the same job.
            Some(last) => last.tasks += tasks,
            None => {
                let failed = output(&mut cancelling(&scancel, job, Some(&id))).err();
                let refused = failed.map(|(status, said)| match said.as_str() {
                    "" => status,
                    said => said.to_owned(),
                });
                all.push(Cancelled { launch, kind, id, tasks, refused });
            }
        }
    }
    Ok(all)
}
