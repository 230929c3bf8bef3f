//! From the files that a data set is published in to the folder that runs read.
//!
//! What may be fetched is fetched, and continued if it breaks off (`crate::download`); what only a person
//! can get is listed, all of it, before anything is fetched. Archives are read as what strangers wrote: a
//! member may not lead out of the folder, be a link, or grow beyond bounds. Everything is made in folders
//! beside the final one, which appears by one rename: it is whole, or not there. The same command goes on
//! wherever it was interrupted or killed.

mod archive;
mod error;
mod fetch;
mod gather;
mod imagenet;
#[cfg(test)]
#[path = "../../tests/prepare/make.rs"]
#[allow(dead_code)]
mod make;
mod mat;
mod member;
mod record;
mod rules;
mod unpack;
mod voc;
mod work;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tasks::data::{Build, Dataset};
use tasks::sample;

pub use self::error::{ByHand, PrepareError};
pub use self::member::Danger;
pub use self::record::{Origin, Record};

use self::fetch::Ready;
use self::gather::{Choice, Given};
use self::member::Places;
use self::rules::Rules;
use self::unpack::{Source, Targets, unpack};
use self::work::{Finished, Site, Work};
use crate::download::Digest;
use crate::hub::HubOptions;
use crate::lists::{self, ListOptions};
use crate::locate;
use crate::progress::Reporter;

/// Raised whenever another folder is made from the same files.
const REVISION: u32 = 1;

/// Bytes that take so long to read that it is said.
const LONG_READ: u64 = 1 << 30;

/// What to prepare, and how.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// Files, or folders that hold them, which are here already.
    pub from: Vec<PathBuf>,
    /// The folder to make.
    pub to: PathBuf,
    /// The set of files to make it from.
    pub set: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Keep what was fetched.
    pub keep_archives: bool,
    /// Never use the network.
    pub offline: bool,
    /// What stands before the path of every address of a file, instead of its server: `PIXIO_EVAL_SOURCES`.
    pub mirror: Option<String>,
    /// Where published lists are kept.
    pub cache: PathBuf,
}

impl<'a> Request<'a> {
    /// A data set into a folder, with what the environment says.
    pub fn new(dataset: &'a Dataset, to: PathBuf) -> Self {
        Self {
            dataset,
            from: Vec::new(),
            to,
            set: None,
            dry_run: false,
            keep_archives: false,
            offline: HubOptions::from_env(false).offline,
            mirror: std::env::var("PIXIO_EVAL_SOURCES").ok().filter(|mirror| !mirror.is_empty()),
            cache: locate::cache(),
        }
    }

    /// The command line that asks for the same, with one more folder.
    fn continued(&self) -> String {
        let mut command = format!("pixio-eval data prepare {}", self.dataset.name);
        let mut add = |flag: &str, value: &str| {
            let plain = |c: char| c.is_alphanumeric() || "/._-+=:".contains(c);
            match value.chars().all(plain) {
                true => command.push_str(&format!(" {flag} {value}")),
                false => command.push_str(&format!(" {flag} '{}'", value.replace('\'', r"'\''"))),
            }
        };
        if let Some(set) = &self.set {
            add("--set", set);
        }
        if self.to != locate::dataset(&self.dataset.name, &[]) {
            add("--to", &self.to.display().to_string());
        }
        for from in &self.from {
            add("--from", &from.display().to_string());
        }
        command + " --from FOLDER"
    }
}

/// What [`prepare`] came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The folder was made.
    Prepared {
        /// The data folder.
        folder: PathBuf,
        /// What it says of itself.
        record: Record,
    },
    /// The folder was there, whole.
    Already {
        /// The data folder.
        folder: PathBuf,
        /// What it says of itself.
        record: Record,
    },
    /// What would be done, in lines.
    Planned(String),
}

/// Makes a data folder.
///
/// # Errors
/// [`PrepareError`]; the folder is then as it was. What was fetched and unpacked is kept for the next
/// attempt, unless an archive was refused or damaged.
pub fn prepare(request: &Request<'_>, reporter: &Reporter) -> Result<Outcome, PrepareError> {
    let site = Site::new(&request.to)?;
    if let Some(record) = there(request, &site)? {
        if !request.dry_run {
            tidy(request, &site, &record, reporter);
        }
        return Ok(Outcome::Already { folder: site.to, record });
    }
    let given = Given::look(request)?;
    let drives = drives(request, reporter)?;
    let choice = gather::choose(request, &given, &site.downloads, &drives)?;
    if request.dry_run {
        let set = choice.set.map_or(String::new(), |set| format!(" from its set {set}"));
        let (name, to) = (&request.dataset.name, site.to.display());
        let text = format!("{name}: would be made{set} in {to}\n{}", choice.plan());
        return Ok(Outcome::Planned(text));
    }
    let items = choice.by_hand();
    if !items.is_empty() {
        let dataset = request.dataset.name.clone();
        let (then, command) = (choice.to_fetch(), request.continued());
        return Err(PrepareError::ByHand { dataset, items, then, command });
    }
    let mut work = Work::lock(&site, reporter)?;
    // Another may have made it meanwhile.
    if let Some(record) = there(request, &site)? {
        work.remove()?;
        return Ok(Outcome::Already { folder: site.to, record });
    }
    match fetched_and_made(request, &choice, &site, &mut work, reporter) {
        Ok(record) => {
            let text = serde_json::to_vec_pretty(&record).map_err(std::io::Error::from);
            let text = text.map_err(PrepareError::io("write", &site.to))?;
            work.publish(&site, &text)?;
            tidy(request, &site, &record, reporter);
            Ok(Outcome::Prepared { folder: site.to, record })
        }
        Err(error) => {
            let bad = error.bad_archive();
            if let Some(archive) = bad.filter(|path| path.starts_with(&site.downloads)) {
                reporter.say(format!("{} is of no use, and removed", archive.display()));
                let _ = work::remove(archive);
            }
            if bad.is_some() || work.is_new() {
                work.remove()?;
            }
            Err(error)
        }
    }
}

/// The record of a folder that is there and whole; `None` of one that is not there, or empty.
fn there(request: &Request<'_>, site: &Site) -> Result<Option<Record>, PrepareError> {
    let path = site.to.clone();
    let mut entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(PrepareError::io("use", &path))?,
    };
    let Some(first) = entries.next() else {
        return match work::is_mounted(&path) {
            true => Err(PrepareError::Place { path, found: "a file system is mounted there" }),
            false => Ok(None),
        };
    };
    let record = record::read(&path).filter(|record| record.dataset == request.dataset.name);
    let Some(record) = record else {
        let found = match (sample::is_sample(&path), first) {
            (Some(_), _) => "generated sample data".to_owned(),
            (None, Ok(first)) => format!("it has {}", first.file_name().display()),
            (None, Err(error)) => error.to_string(),
        };
        return Err(PrepareError::Occupied { path, found });
    };
    let (found, found_bytes) = record::count(&path).map_err(PrepareError::io("read", &path))?;
    let Record { files: expected, bytes: expected_bytes, .. } = record;
    if (found, found_bytes) != (expected, expected_bytes) {
        return Err(PrepareError::Changed { path, expected, expected_bytes, found, found_bytes });
    }
    if let (Some(asked), Some(set)) = (&request.set, &record.set)
        && asked != set
    {
        let (asked, set) = (asked.clone(), set.clone());
        return Err(PrepareError::OtherSet { path, asked, set });
    }
    Ok(Some(record))
}

/// Removes what was needed while the folder was made.
fn tidy(request: &Request<'_>, site: &Site, record: &Record, reporter: &Reporter) {
    if site.work.exists()
        && let Ok(work) = Work::lock(site, reporter)
        && let Err(error) = work.remove()
    {
        reporter.warn(error.to_string());
    }
    if !request.keep_archives
        && !record.archives_kept
        && let Err(error) = gather::remove_fetched(request.dataset, &site.downloads)
    {
        reporter.warn(format!("cannot remove {}: {error}", site.downloads.display()));
    }
}

/// The archives of the drives that KITTI's lists name.
fn drives(request: &Request<'_>, reporter: &Reporter) -> Result<Vec<String>, PrepareError> {
    let files = &request.dataset.source.files;
    if !files.iter().any(|file| file.build == Some(Build::Drives)) {
        return Ok(Vec::new());
    }
    let options = ListOptions { offline: request.offline, ..ListOptions::from_env(false) };
    let lists = match lists::obtain(request.dataset, &request.cache, &options, reporter) {
        Err(error) if request.dry_run => {
            reporter.warn(format!("which drives are needed is not known: {error}"));
            return Ok(Vec::new());
        }
        lists => lists?,
    };
    let Some(lists) = lists else { return Ok(Vec::new()) };
    // images/DATE/DRIVE/image_02/data/FRAME.png
    let drive = |line: &str| Some(format!("{}.zip", line.split('/').nth(2)?));
    let lines = lists.train.lines().chain(lists.val.lines());
    Ok(lines.filter_map(drive).collect::<BTreeSet<_>>().into_iter().collect())
}

#[derive(Serialize)]
struct Plan<'a> {
    dataset: &'a str,
    set: Option<&'a str>,
    revision: u32,
    /// Name, size and time of last change.
    archives: Vec<(&'a str, u64, String)>,
}

fn fetched_and_made(
    request: &Request<'_>,
    choice: &Choice<'_>,
    site: &Site,
    work: &mut Work,
    reporter: &Reporter,
) -> Result<Record, PrepareError> {
    let mut ready = fetch::fetch(request, choice, &site.downloads, reporter)?;
    // It says where the validation images go.
    ready.sort_by_key(|ready| ready.file.build != Some(Build::DevelopmentKit));
    let mut archives = Vec::new();
    for Ready { here, .. } in &ready {
        let found = fs::metadata(&here.path).map_err(PrepareError::io("read", &here.path))?;
        let changed = found.modified().map(|time| format!("{time:?}")).unwrap_or_default();
        archives.push((here.name.as_str(), found.len(), changed));
    }
    let (dataset, set) = (request.dataset.name.as_str(), choice.set);
    let plan = Plan { dataset, set, revision: REVISION, archives: archives.clone() };
    let text = serde_json::to_string_pretty(&plan).map_err(std::io::Error::from);
    work.begin(&text.map_err(PrepareError::io("write", &site.work))?, reporter)?;

    room("unpacking", &site.work, growth(&ready, work)?)?;
    let mut making = Making { work, places: Places::default(), named: HashMap::new(), reporter };
    let mut from = Vec::new();
    for (ready, (name, bytes, _)) in ready.iter().zip(&archives) {
        let checksum = making.make(ready)?;
        let (name, source) = ((*name).to_owned(), ready.source.clone());
        from.push(Origin { name, bytes: *bytes, checksum, source });
    }
    let tree = work.place("");
    let (files, bytes) = record::count(&tree).map_err(PrepareError::io("read", &tree))?;
    Ok(Record {
        dataset: dataset.to_owned(),
        set: set.map(str::to_owned),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at: jiff::Timestamp::now().to_string(),
        from,
        files,
        bytes,
        archives_kept: request.keep_archives,
    })
}

/// Bytes that the tree will still grow by.
fn growth(ready: &[Ready<'_>], work: &Work) -> Result<u64, PrepareError> {
    let tree = work.place("");
    let (_, there) = record::count(&tree).map_err(PrepareError::io("read", &tree))?;
    let (mut done, mut needed) = (0, 0_u64);
    for Ready { file, here, .. } in ready {
        match work.finished(&here.name) {
            Some(finished) => done += finished.files.iter().map(|(_, size)| size).sum::<u64>(),
            // What is read in place gets another name there, or is moved.
            None if file.is_kept() => {}
            None => {
                let rules = Rules(&file.unpack);
                let chosen = |path: &str| rules.target(path).is_some();
                needed = needed.saturating_add(archive::estimate(&here.path, &chosen));
            }
        }
    }
    Ok(needed.saturating_sub(there.saturating_sub(done)))
}

struct Making<'a> {
    work: &'a mut Work,
    places: Places,
    /// Where ImageNet's validation images go.
    named: HashMap<String, String>,
    reporter: &'a Reporter,
}

impl Making<'_> {
    /// Brings a file, or what is made of it, into the tree; returns its checksum.
    fn make(&mut self, ready: &Ready<'_>) -> Result<String, PrepareError> {
        let (file, here) = (ready.file, &ready.here);
        let is_kit = file.build == Some(Build::DevelopmentKit);
        if let Some(done) = self.work.finished(&here.name).filter(|_| !is_kit) {
            for (target, _) in &done.files {
                self.take(here.path.as_path(), target)?;
            }
            return Ok(done.checksum);
        }
        let checksum = self.checksum(ready)?;
        let source =
            Source { name: &here.name, path: &here.path, checked: file.checksum.is_some() };
        let files = match file.build {
            Some(Build::DevelopmentKit) => {
                self.named = imagenet::places(&source, self.reporter)?;
                Vec::new()
            }
            Some(Build::ValidationImages) => {
                let named = std::mem::take(&mut self.named);
                self.unpacked(&source, &Targets::Named(&named))?
            }
            Some(Build::BoundaryMasks) => {
                voc::masks(&source, self.work, &mut self.places, self.reporter)?
            }
            None if file.is_kept() => {
                self.take(&here.path, &here.name)?;
                self.work.bring(&here.path, &here.name, here.fetched)?;
                let size = fs::metadata(self.work.place(&here.name));
                vec![(here.name.clone(), size.map_or(0, |found| found.len()))]
            }
            Some(Build::Drives) | None => {
                self.unpacked(&source, &Targets::Rules(Rules(&file.unpack)))?
            }
        };
        self.work.finish(&here.name, &Finished { checksum: checksum.clone(), files })?;
        Ok(checksum)
    }

    fn unpacked(
        &mut self,
        source: &Source<'_>,
        targets: &Targets<'_>,
    ) -> Result<Vec<(String, u64)>, PrepareError> {
        unpack(source, targets, self.work, &mut self.places, self.reporter)
    }

    fn take(&mut self, archive: &Path, target: &str) -> Result<(), PrepareError> {
        self.places.take(target).map_err(|danger| PrepareError::Refused {
            archive: archive.to_path_buf(),
            member: target.to_owned(),
            danger,
        })
    }

    /// The published checksum, once it was found right; the SHA-256 where none is published.
    fn checksum(&self, ready: &Ready<'_>) -> Result<String, PrepareError> {
        if let Some(checked) = &ready.checksum {
            return Ok(checked.clone());
        }
        let path = &ready.here.path;
        let io = PrepareError::io("read", path);
        let bytes = fs::metadata(path).map_err(&io)?.len();
        if bytes > LONG_READ {
            let name = &ready.here.name;
            self.reporter.say(format!("{name}: computing the checksum of {bytes} bytes"));
        }
        let Some(published) = &ready.file.checksum else {
            return Ok(format!("sha256:{}", Digest::sha256(path).map_err(&io)?));
        };
        let size = ready.file.bytes.filter(|_| !ready.file.is_several());
        match Digest::published(published).difference(path, size).map_err(&io)? {
            None => Ok(published.to_string()),
            Some(difference) => Err(PrepareError::Mismatch {
                path: path.clone(),
                expected: difference.expected,
                found: difference.found,
            }),
        }
    }
}

/// An error where a folder's disk has too little room.
fn room(what: &str, folder: &Path, needed: u64) -> Result<(), PrepareError> {
    match locate::free(folder) {
        Some(free) if free < needed => Err(PrepareError::Space {
            what: what.to_owned(),
            path: folder.to_path_buf(),
            needed,
            free,
        }),
        _ => Ok(()),
    }
}
