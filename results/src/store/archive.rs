//! Runs as one file: a tar, compressed by gzip where its name ends in `.gz`.
//!
//! The first entry, `runs.json`, lists every run's files with their sizes and BLAKE3 hashes; the
//! others follow in its order, as `DATASET/HEAD/BACKBONE-KEY/FILE`. Nothing else may be in it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use schema::RunRecord;
use serde::{Deserialize, Serialize};

use super::files::{self, RECORD, ends_with_key, folder_name};
use super::{Listed, Status, Store, StoreError};

const MANIFEST: &str = "runs.json";
/// Version of the archive.
const FORMAT: u32 = 1;
/// A manifest of a hundred thousand files is smaller.
const LARGEST_MANIFEST: u64 = 32 << 20;

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    runs: Vec<ArchivedRun>,
}

#[derive(Serialize, Deserialize)]
struct ArchivedRun {
    /// `DATASET/HEAD/BACKBONE-KEY`.
    folder: String,
    files: Vec<ArchivedFile>,
}

#[derive(Serialize, Deserialize)]
struct ArchivedFile {
    /// Relative to the run's folder, `/` between folders.
    path: String,
    bytes: u64,
    blake3: String,
}

/// Why runs cannot be exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A run that is not finished.
    #[error("{} is not finished: only finished runs are exported", folder.display())]
    NotFinished {
        /// The run folder.
        folder: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Not an archive of runs, a damaged one, or one made to do harm.
    #[error("{} is no whole archive of runs: {why}", path.display())]
    Content {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Larger than is taken.
    #[error("{} holds {bytes} bytes, more than the {limit} that are taken", path.display())]
    TooLarge {
        /// The archive.
        path: PathBuf,
        /// What it says it holds.
        bytes: u64,
        /// What is taken.
        limit: u64,
    },
    /// Written by a newer version of the program.
    #[error("{} has archive format {found}, this version reads up to {FORMAT}: use a newer pixio-eval", path.display())]
    NewerFormat {
        /// The archive.
        path: PathBuf,
        /// The format it states.
        found: u32,
    },
    /// Another run is where an imported one would go.
    #[error("{} is there already and differs from the archive's: nothing was imported", folder.display())]
    Occupied {
        /// The run folder.
        folder: PathBuf,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { path: path.clone(), source }
}

/// Writes finished runs to one file, which has its name only when it is whole. Returns its size.
///
/// # Errors
/// [`ArchiveError::NotFinished`], or what the system says.
pub fn export_runs(runs: &[&Listed], to: &Path) -> Result<u64, ArchiveError> {
    let mut manifest = Manifest { format: FORMAT, runs: Vec::new() };
    for run in runs {
        let Status::Finished(record) = &run.status else {
            return Err(ArchiveError::NotFinished { folder: run.folder.clone() });
        };
        let task = &record.plan.task;
        let name = run.folder.file_name().unwrap_or_default().to_string_lossy();
        let folder = format!("{}/{}/{name}", folder_name(&task.dataset), folder_name(&task.head));
        let mut paths = Vec::new();
        walk(&run.folder, "", &mut paths)?;
        let file = |path: String| {
            let at = run.folder.join(&path);
            let bytes = fs::read(&at).map_err(io_at(&at))?;
            let blake3 = blake3::hash(&bytes).to_hex().to_string();
            Ok(ArchivedFile { path, bytes: bytes.len() as u64, blake3 })
        };
        let files = paths.into_iter().map(file).collect::<Result<_, ArchiveError>>()?;
        manifest.runs.push(ArchivedRun { folder, files });
    }
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = files::temporary(parent).map_err(io_at(to))?;
    let gzip = to.extension().is_some_and(|extension| extension == "gz" || extension == "tgz");
    let mut out = BufWriter::new(file.as_file_mut());
    if gzip {
        let mut encoder = GzEncoder::new(&mut out, Compression::default());
        write_tar(&mut encoder, &manifest, runs, to)?;
        encoder.finish().map_err(io_at(to))?;
    } else {
        write_tar(&mut out, &manifest, runs, to)?;
    }
    out.flush().map_err(io_at(to))?;
    drop(out);
    file.as_file().sync_all().map_err(io_at(to))?;
    let bytes = file.as_file().metadata().map_err(io_at(to))?.len();
    file.persist(to).map_err(|error| io_at(to)(error.error))?;
    Ok(bytes)
}

/// Regular files under a folder, sorted; hidden ones belong to this machine.
fn walk(root: &Path, under: &str, into: &mut Vec<String>) -> Result<(), ArchiveError> {
    let folder = root.join(under);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io_at(&folder))? {
        let entry = entry.map_err(io_at(&folder))?;
        let kind = entry.file_type().map_err(io_at(&folder))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push((name, kind));
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, kind) in names {
        let path = if under.is_empty() { name } else { format!("{under}/{name}") };
        if kind.is_dir() {
            walk(root, &path, into)?;
        } else if kind.is_file() {
            into.push(path);
        }
    }
    Ok(())
}

fn write_tar(
    out: impl Write,
    manifest: &Manifest,
    runs: &[&Listed],
    to: &Path,
) -> Result<(), ArchiveError> {
    let mut tar = tar::Builder::new(out);
    let mut append = |path: &str, bytes: u64, content: &mut dyn Read| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, path, content).map_err(io_at(to))
    };
    let json = serde_json::to_vec_pretty(manifest).map_err(|e| io_at(to)(io::Error::other(e)))?;
    append(MANIFEST, json.len() as u64, &mut json.as_slice())?;
    for (archived, run) in manifest.runs.iter().zip(runs) {
        for file in &archived.files {
            let at = run.folder.join(&file.path);
            let content = File::open(&at).map_err(io_at(&at))?;
            // A file that grows meanwhile is cut, and then its hash is wrong when it is imported.
            let mut content = content.take(file.bytes);
            append(&format!("{}/{}", archived.folder, file.path), file.bytes, &mut content)?;
        }
    }
    tar.into_inner().and_then(|mut out| out.flush()).map_err(io_at(to))
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Folders of the runs that are new.
    pub added: Vec<PathBuf>,
    /// Folders of the runs that were there already, the same.
    pub kept: Vec<PathBuf>,
}

/// Takes the runs of an archive into a store: all of them or none. Every size and hash is checked,
/// and every record against its folder, before the first run gets its name.
///
/// # Errors
/// [`ArchiveError`]; the store is then as it was.
pub fn import_runs(from: &Path, store: &Store, limit: u64) -> Result<Imported, ArchiveError> {
    store.check_writable()?;
    let file = BufReader::new(File::open(from).map_err(io_at(from))?);
    let mut start = Vec::new();
    let mut file = file;
    file.by_ref().take(2).read_to_end(&mut start).map_err(io_at(from))?;
    let whole = io::Cursor::new(start.clone()).chain(file);
    match start.as_slice() {
        [0x1f, 0x8b] => unpack(MultiGzDecoder::new(whole), from, store, limit),
        _ => unpack(whole, from, store, limit),
    }
}

fn unpack(
    source: impl Read,
    from: &Path,
    store: &Store,
    limit: u64,
) -> Result<Imported, ArchiveError> {
    let content = |why: &str| ArchiveError::Content { path: from.to_owned(), why: why.to_owned() };
    let broken = |error: io::Error| content(&error.to_string());
    let mut tar = tar::Archive::new(source);
    let mut entries = tar.entries().map_err(broken)?;
    let mut first = match entries.next() {
        Some(entry) => entry.map_err(broken)?,
        None => return Err(content("it is empty")),
    };
    if &*first.path_bytes() != MANIFEST.as_bytes() || first.size() > LARGEST_MANIFEST {
        return Err(content("it does not begin with runs.json"));
    }
    let mut json = Vec::new();
    first.read_to_end(&mut json).map_err(broken)?;
    let manifest = manifest(&json, from)?;
    let sizes = manifest.runs.iter().flat_map(|run| &run.files).map(|file| file.bytes);
    let bytes = sizes.fold(0, u64::saturating_add);
    if bytes > limit {
        return Err(ArchiveError::TooLarge { path: from.to_owned(), bytes, limit });
    }
    let place = tempfile::Builder::new()
        .prefix(".importing-")
        .tempdir_in(store.out())
        .map_err(io_at(store.out()))?;
    let files = manifest.runs.iter().enumerate();
    for (at, run, file) in
        files.flat_map(|(at, run)| run.files.iter().map(move |file| (at, run, file)))
    {
        let mut entry = match entries.next() {
            Some(entry) => entry.map_err(broken)?,
            None => return Err(content(&format!("it ends before {}", file.path))),
        };
        let name = format!("{}/{}", run.folder, file.path);
        let regular = entry.header().entry_type() == tar::EntryType::Regular;
        if !regular || *entry.path_bytes() != *name.as_bytes() || entry.size() != file.bytes {
            return Err(content(&format!("{name} is not the next file, or has another size")));
        }
        let to = place.path().join(at.to_string()).join(&file.path);
        fs::create_dir_all(to.parent().unwrap_or(place.path())).map_err(io_at(&to))?;
        let mut out = Checked {
            file: File::create_new(&to).map_err(io_at(&to))?,
            hash: blake3::Hasher::new(),
        };
        io::copy(&mut entry, &mut out).map_err(broken)?;
        out.file.sync_all().map_err(io_at(&to))?;
        if out.hash.finalize().to_hex().as_str() != file.blake3 {
            return Err(content(&format!("{name} does not have its checksum")));
        }
    }
    match entries.next() {
        None => settle(&manifest, place.path(), from, store),
        Some(_) => Err(content("it holds more files than it lists")),
    }
}

/// A file and the hash of what was written to it.
struct Checked {
    file: File,
    hash: blake3::Hasher,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads the list and refuses every name that is not a run's.
fn manifest(json: &[u8], from: &Path) -> Result<Manifest, ArchiveError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let content = |why: String| ArchiveError::Content { path: from.to_owned(), why };
    let parse = |error: serde_json::Error| content(format!("runs.json: {error}"));
    let found = serde_json::from_slice::<Version>(json).map_err(parse)?.format;
    if found > FORMAT {
        return Err(ArchiveError::NewerFormat { path: from.to_owned(), found });
    }
    let manifest: Manifest = serde_json::from_slice(json).map_err(parse)?;
    // `folder_name` leaves only names that are one harmless folder.
    let plain = |name: &str| !name.is_empty() && folder_name(name) == name;
    let mut folders: Vec<&str> = Vec::new();
    for run in &manifest.runs {
        let parts: Vec<&str> = run.folder.split('/').collect();
        let well = matches!(parts.as_slice(), [a, b, name] if plain(a) && plain(b) && safe(name) && ends_with_key(name));
        if !well || folders.contains(&&*run.folder) {
            return Err(content(format!("{:?} is no run folder, or there twice", run.folder)));
        }
        folders.push(&run.folder);
        let mut paths: Vec<&str> = run.files.iter().map(|file| &*file.path).collect();
        let parts = |path: &&&str| path.split('/').count() <= 3 && path.split('/').all(safe);
        if let Some(path) = paths.iter().find(|path| !parts(path)) {
            return Err(content(format!("{path:?} is no file of a run")));
        }
        paths.sort_unstable();
        if !paths.contains(&RECORD) || paths.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(content(format!("{} has no record.json, or a file twice", run.folder)));
        }
    }
    Ok(manifest)
}

/// Whether a name is one file or folder, on any system, and not hidden.
fn safe(name: &str) -> bool {
    let odd = |c: char| {
        c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
    };
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && !name.contains(odd)
}

/// Checks every record and every place, then gives the runs their names.
fn settle(
    manifest: &Manifest,
    place: &Path,
    from: &Path,
    store: &Store,
) -> Result<Imported, ArchiveError> {
    let content = |why: String| ArchiveError::Content { path: from.to_owned(), why };
    let (mut imported, mut moves) = (Imported::default(), Vec::new());
    for (at, run) in manifest.runs.iter().enumerate() {
        let unpacked = place.join(at.to_string());
        let record = files::read_json::<RunRecord>(&unpacked, RECORD)
            .map_err(|error| content(error.to_string()))?
            .ok_or_else(|| content(format!("{} has no record", run.folder)))?;
        let task = &record.plan.task;
        let folder = format!("{}/{}/", folder_name(&task.dataset), folder_name(&task.head));
        let key = format!("-{}", record.plan.key().short());
        if !run.folder.starts_with(&folder) || !run.folder.ends_with(&key) {
            return Err(content(format!("{} holds the record of another run", run.folder)));
        }
        let there = store.folder(&record.plan)?;
        if !there.exists() {
            moves.push((unpacked, there));
        } else if same(&unpacked, &there, run) {
            imported.kept.push(there);
        } else {
            return Err(ArchiveError::Occupied { folder: there });
        }
    }
    for (unpacked, there) in &moves {
        let parent = there.parent().unwrap_or(store.out());
        fs::create_dir_all(parent).map_err(io_at(parent))?;
        if let Err(error) = fs::rename(unpacked, there) {
            // All or none: those that have their names already go again.
            imported.added.iter().for_each(|added| drop(fs::remove_dir_all(added)));
            return Err(io_at(there)(error));
        }
        imported.added.push(there.clone());
    }
    Ok(imported)
}

/// Whether two folders hold the same record and the same files of the archive.
fn same(unpacked: &Path, there: &Path, run: &ArchivedRun) -> bool {
    run.files.iter().all(|file| {
        let [a, b] = [unpacked, there].map(|folder| fs::read(folder.join(&file.path)));
        matches!((a, b), (Ok(a), Ok(b)) if a == b)
    })
}

#[cfg(test)]
mod tests;
