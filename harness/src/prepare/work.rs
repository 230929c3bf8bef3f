//! Where a data set is made: folders beside the final one, which appears by one rename.
//!
//! ```text
//! DIR.downloads/NAME            fetched and checked; NAME.part while it is fetched
//! DIR.preparing/lock            held by the process that works here
//! DIR.preparing/plan.json       what is made of which archives: of others, everything begins anew
//! DIR.preparing/part            the file that is being written
//! DIR.preparing/tree/           files under their final names, each whole
//! DIR.preparing/done/NAME.json  an archive of which every member is in the tree
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use results::write_whole;
use serde::{Deserialize, Serialize};

use super::PrepareError;
use super::archive::Member;
use crate::hub::lock;
use crate::interrupt;
use crate::progress::Reporter;

/// The folders of a data set.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The data folder.
    pub to: PathBuf,
    /// What is fetched.
    pub downloads: PathBuf,
    /// What is being made.
    pub work: PathBuf,
}

impl Site {
    pub fn new(to: &Path) -> Result<Self, PrepareError> {
        let absolute = || match fs::canonicalize(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(to),
            found => found,
        };
        if fs::symlink_metadata(to).is_ok() && !to.exists() {
            let found = "a link to what is not there";
            return Err(PrepareError::Place { path: to.to_path_buf(), found });
        }
        let whole = absolute().map_err(PrepareError::io("use", to))?;
        let name = whole.file_name().ok_or_else(|| PrepareError::NoFolder(to.to_path_buf()))?;
        let beside = |ending: &str| {
            let mut name = name.to_owned();
            name.push(ending);
            whole.with_file_name(name)
        };
        let (downloads, work) = (beside(".downloads"), beside(".preparing"));
        Ok(Self { downloads, work, to: whole })
    }
}

/// An archive that is wholly in the tree.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Finished {
    /// `ALGORITHM:DIGITS`.
    pub checksum: String,
    /// Relative to the data folder, with sizes.
    pub files: Vec<(String, u64)>,
}

/// The working folder, locked.
pub(super) struct Work {
    folder: PathBuf,
    tree: PathBuf,
    lock: File,
    /// The folder that was made last.
    made: PathBuf,
}

impl Work {
    /// Takes the working folder.
    pub fn lock(site: &Site, reporter: &Reporter) -> Result<Self, PrepareError> {
        let folder = site.work.clone();
        let path = folder.join("lock");
        loop {
            fs::create_dir_all(&folder).map_err(PrepareError::io("make", &folder))?;
            let file = match lock::open(&path) {
                // Another has just finished and removed the folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(PrepareError::io("open", &path))?,
            };
            match file.try_lock() {
                Ok(()) if lock::is_at(&file, &path) => {
                    let tree = folder.join("tree");
                    return Ok(Self { folder, tree, lock: file, made: PathBuf::new() });
                }
                Ok(()) => {}
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    reporter.warn(format!(
                        "no locks on the file system of {}: prepare this data set once at a time",
                        folder.display()
                    ));
                    let tree = folder.join("tree");
                    return Ok(Self { folder, tree, lock: file, made: PathBuf::new() });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(PrepareError::io("lock", &path)(error));
                }
                Err(TryLockError::WouldBlock) => {
                    let by = lock::holder(&file).unwrap_or_else(|| "another process".to_owned());
                    return Err(PrepareError::Busy { path: folder, by });
                }
            }
        }
    }

    /// Whether nothing was made in it yet.
    pub fn is_new(&self) -> bool {
        !self.folder.join("plan.json").exists()
    }

    /// Goes on with what was made by the same plan, else begins anew.
    pub fn begin(&mut self, plan: &str, reporter: &Reporter) -> Result<(), PrepareError> {
        let path = self.folder.join("plan.json");
        let known = fs::read_to_string(&path).ok();
        if known.as_deref() != Some(plan) {
            if known.is_some() {
                reporter.say("the archives are others than when this was begun: beginning anew");
            }
            for old in [&self.tree, &self.folder.join("done")] {
                remove(old).map_err(PrepareError::io("remove", old))?;
            }
            write_whole(&path, plan.as_bytes()).map_err(PrepareError::io("write", &path))?;
        }
        let part = self.folder.join("part");
        remove(&part).map_err(PrepareError::io("remove", &part))?;
        for folder in [&self.tree, &self.folder.join("done")] {
            fs::create_dir_all(folder).map_err(PrepareError::io("make", folder))?;
        }
        Ok(())
    }

    /// Whether a file is in the tree. Files get their names there when they are whole; the size is for
    /// file systems that lost power.
    pub fn has(&self, target: &str, size: u64) -> bool {
        let found = fs::symlink_metadata(self.tree.join(target));
        found.is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// A file of the tree, or where it would be.
    pub fn place(&self, target: &str) -> PathBuf {
        self.tree.join(target)
    }

    /// Writes a member, whole or not at all.
    pub fn write(
        &mut self,
        archive: &Path,
        member: &Member,
        target: &str,
        bytes: &mut dyn Read,
    ) -> Result<(), PrepareError> {
        let path = self.folder.join("part");
        let io = PrepareError::io("write", &path);
        let damaged = |why: String| PrepareError::Damaged {
            archive: archive.to_path_buf(),
            member: Some(member.path.clone()),
            why,
        };
        let mut file = created(&path).map_err(&io)?;
        let (mut buffer, mut written) = (vec![0; 1 << 18], 0);
        loop {
            if interrupt::requested() {
                return Err(PrepareError::Interrupted);
            }
            let read = bytes
                .read(&mut buffer)
                .map_err(|error| PrepareError::unreadable(archive, Some(&member.path), &error))?;
            if read == 0 {
                break;
            }
            written += read as u64;
            if written > member.size {
                break;
            }
            file.write_all(&buffer[..read]).map_err(&io)?;
        }
        if written != member.size {
            let found = if written > member.size { "more".to_owned() } else { written.to_string() };
            return Err(damaged(format!("expected {} bytes, found {found}", member.size)));
        }
        drop(file);
        self.settle(&path, target)
    }

    /// Writes a file of these bytes.
    pub fn put(&mut self, target: &str, bytes: &[u8]) -> Result<(), PrepareError> {
        let path = self.folder.join("part");
        let written = created(&path).and_then(|mut file| file.write_all(bytes));
        written.map_err(PrepareError::io("write", &path))?;
        self.settle(&path, target)
    }

    /// Puts a file that is elsewhere into the tree: as another name of it, else as a copy; or, if it may
    /// go, by moving it.
    pub fn bring(&mut self, from: &Path, target: &str, may_go: bool) -> Result<(), PrepareError> {
        let path = self.folder.join("part");
        remove(&path).map_err(PrepareError::io("remove", &path))?;
        // Another name of a link would be a link.
        let from = fs::canonicalize(from).map_err(PrepareError::io("read", from))?;
        if fs::hard_link(&from, &path).is_err() {
            let moved = may_go && fs::rename(&from, &path).is_ok();
            if !moved {
                fs::copy(&from, &path).map_err(PrepareError::io("copy", &from))?;
            }
        }
        self.settle(&path, target)
    }

    fn settle(&mut self, written: &Path, target: &str) -> Result<(), PrepareError> {
        let place = self.tree.join(target);
        if let Some(folder) = place.parent().filter(|folder| *folder != self.made) {
            fs::create_dir_all(folder).map_err(PrepareError::io("make", folder))?;
            self.made = folder.to_path_buf();
        }
        fs::rename(written, &place).map_err(PrepareError::io("write", &place))?;
        // Nothing is renamed where both are names of one file.
        remove(written).map_err(PrepareError::io("remove", written))
    }

    /// What was unpacked of an archive by an earlier command, if all of it is still there.
    pub fn finished(&self, name: &str) -> Option<Finished> {
        let text = fs::read(self.note(name)).ok()?;
        let finished: Finished = serde_json::from_slice(&text).ok()?;
        finished.files.iter().all(|(path, size)| self.has(path, *size)).then_some(finished)
    }

    /// Notes that every member of an archive is in the tree.
    pub fn finish(&self, name: &str, finished: &Finished) -> Result<(), PrepareError> {
        self.sync();
        let path = self.note(name);
        let text = serde_json::to_vec(finished).map_err(io::Error::from);
        let written = text.and_then(|text| write_whole(&path, &text));
        written.map_err(PrepareError::io("write", &path))
    }

    fn note(&self, name: &str) -> PathBuf {
        self.folder.join("done").join(format!("{}.json", name.replace('/', "_")))
    }

    /// Makes what was written outlast a loss of power.
    fn sync(&self) {
        #[cfg(target_os = "linux")]
        if let Ok(folder) = File::open(&self.tree) {
            let _ = rustix::fs::syncfs(folder);
        }
    }

    /// Gives the tree its final name.
    pub fn publish(mut self, site: &Site, record: &[u8]) -> Result<(), PrepareError> {
        self.put(super::record::FILE, record)?;
        self.sync();
        fs::rename(&self.tree, &site.to).map_err(PrepareError::io("make", &site.to))?;
        if let Some(Ok(above)) = site.to.parent().map(File::open) {
            let _ = above.sync_all();
        }
        self.remove()
    }

    /// Removes the working folder, with all that was made.
    pub fn remove(self) -> Result<(), PrepareError> {
        // The lock last: whoever comes meanwhile finds it held, or no folder.
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name() != "lock" {
                let path = entry.path();
                remove(&path).map_err(PrepareError::io("remove", &path))?;
            }
        }
        // Another that waits may already have made a new lock in it: then the folder is that one's.
        let _ = remove(&self.folder.join("lock"));
        let _ = fs::remove_dir(&self.folder);
        drop(self.lock);
        Ok(())
    }
}

/// Whether a folder is on another device than the one above it: nothing can be renamed to it.
pub(super) fn is_mounted(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        folder.parent().is_some_and(|above| device(above) != device(folder))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        false
    }
}

/// A new file: one that was left there may be another name of a file of the tree, or of whoever gave it.
fn created(path: &Path) -> io::Result<File> {
    remove(path)?;
    File::create_new(path)
}

/// Removes a file or folder, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
