//! What the cache holds, whether it is whole, and making room.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde_json::Value;

use super::{CARD, CLAIM, CacheError, Kind, TEMPORARY, decode, fault, seal};

/// A kept set, or another folder of the cache.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its folder.
    pub folder: PathBuf,
    /// Name of the folder it is in, for example `features-v2`.
    pub kind: String,
    /// What it is, in a line.
    pub about: String,
    /// Bytes of its files, without its card.
    pub bytes: u64,
    /// When a process last opened it.
    pub last_used: SystemTime,
    /// Whether a process uses it now.
    pub in_use: bool,
    /// Whether this version makes such sets; others are what an older version left.
    pub current: bool,
}

/// A file that is not whole.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

const KINDS: [Kind; 2] = [Kind::Features, Kind::Windows];

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn bytes(path: &Path) -> u64 {
    if path.is_dir() {
        return entries(path).iter().map(|path| bytes(path)).sum();
    }
    let card = name(path) == CARD;
    fs::metadata(path).map_or(0, |file| if card { 0 } else { file.len() })
}

/// The sets of one kind.
pub fn sets(cache: &Path, kind: Kind) -> Vec<Entry> {
    entries(&cache.join(kind.folder())).iter().map(|folder| set(folder, true)).collect()
}

fn set(folder: &Path, current: bool) -> Entry {
    let card = folder.join(CARD);
    let words = fs::read(&card).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let about = words.and_then(|card| Some(card.get("about")?.as_str()?.to_owned()));
    let used = fs::metadata(&card).or_else(|_| fs::metadata(folder));
    let lock = File::open(&card).map(|card| card.try_lock());
    Entry {
        folder: folder.to_owned(),
        kind: folder.parent().map(name).unwrap_or_default(),
        about: about.unwrap_or_else(|| "unknown".to_owned()),
        bytes: bytes(folder),
        last_used: used.and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
        in_use: matches!(lock, Ok(Err(fs::TryLockError::WouldBlock))),
        current,
    }
}

/// Everything in the cache: sets, one by one, and whatever else there is, folder by folder.
///
/// # Errors
/// If the cache folder is there and cannot be read.
pub fn list(cache: &Path) -> Result<Vec<Entry>, CacheError> {
    match fs::read_dir(cache) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => drop(found.map_err(fault("read", cache))?),
    }
    let mut all = Vec::new();
    for folder in entries(cache).into_iter().filter(|path| path.is_dir()) {
        let kind = name(&folder);
        if let Some(kind) = KINDS.into_iter().find(|known| known.folder() == kind) {
            all.extend(sets(cache, kind));
        } else if kind.starts_with("features-") || kind.starts_with("windows-") {
            all.extend(entries(&folder).iter().map(|folder| set(folder, false)));
        } else {
            let about = match kind.split('-').next() {
                Some("samples") => "generated sample data",
                Some("splits") => "published split lists",
                Some("simulators") => "robot simulators with their Python environment",
                _ => "not made by this program",
            };
            let kind = name(cache);
            let entry = Entry { about: about.to_owned(), kind, ..set(&folder, true) };
            all.push(entry);
        }
    }
    Ok(all)
}

/// Reads every file of every set and names those that are not whole.
///
/// # Errors
/// If the cache folder is there and cannot be read.
pub fn verify(cache: &Path) -> Result<(usize, Vec<Verified>), CacheError> {
    let mut files = Vec::new();
    for entry in list(cache)?.iter().filter(|entry| is_set(entry)) {
        let hidden = |path: &PathBuf| name(path).starts_with('.') || name(path) == CARD;
        files.extend(entries(&entry.folder).into_iter().filter(|path| !hidden(path)));
    }
    let damaged = files.par_iter().filter_map(|path| {
        let problem = check(path).err()?;
        Some(Verified { path: path.clone(), problem })
    });
    Ok((files.len(), damaged.collect()))
}

fn check(path: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let (set, _) = seal(&bytes)?;
    let folder = path.parent().map(name).unwrap_or_default();
    if set.short() != folder {
        return Err("it is of another set".to_owned());
    }
    decode(&set, &bytes).map(drop)
}

fn is_set(entry: &Entry) -> bool {
    entry.current && KINDS.iter().any(|kind| kind.folder() == entry.kind)
}

/// Removes one file.
///
/// # Errors
/// What the system says.
pub fn remove(path: &Path) -> Result<(), CacheError> {
    fs::remove_file(path).map_err(fault("remove", path))
}

/// Removes sets that no process uses: those not used for `unused`, what older versions left, and, of
/// the sets that stay, what killed processes were writing. Returns what was removed, or would be with
/// `dry`.
///
/// # Errors
/// If the cache cannot be read or a set cannot be removed.
pub fn prune(cache: &Path, unused: Duration, dry: bool) -> Result<Vec<Entry>, CacheError> {
    let now = SystemTime::now();
    let mut removed = Vec::new();
    for entry in list(cache)? {
        let kept = entry.kind.starts_with("features-") || entry.kind.starts_with("windows-");
        if !kept || entry.in_use {
            continue;
        }
        let idle = now.duration_since(entry.last_used).unwrap_or_default();
        if !entry.current || idle >= unused {
            if !dry {
                fs::remove_dir_all(&entry.folder).map_err(fault("remove", &entry.folder))?;
            }
            removed.push(entry);
        } else if !dry {
            leftovers(&entry.folder)?;
        }
    }
    Ok(removed)
}

/// Removes what killed processes left in a set that no process uses.
fn leftovers(folder: &Path) -> Result<(), CacheError> {
    for path in entries(folder) {
        if [TEMPORARY, CLAIM].iter().any(|prefix| name(&path).starts_with(prefix)) {
            fs::remove_file(&path).map_err(fault("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::{Set, Tensors};
    use super::*;

    fn made(cache: &Path, kind: Kind, key: &str) -> Set {
        let set = Set::open(cache, kind, &key, &format!("the set {key}")).unwrap();
        let tensor = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        let bytes = set.encode("one", &Tensors::from([("x".to_owned(), tensor)])).unwrap();
        set.write("one", &bytes, false).unwrap();
        set
    }

    #[test]
    fn sets_are_listed_verified_and_pruned() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path();
        assert!(list(&folder.join("nothing")).unwrap().is_empty());
        drop(made(folder, Kind::Features, "a"));
        let used = made(folder, Kind::Windows, "b");
        let old = folder.join("features-v1/0123456789ab");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("train.safetensors"), "old").unwrap();
        fs::create_dir(folder.join("samples-v1")).unwrap();
        fs::write(used.folder().join(".writing-x"), "torn").unwrap();

        let all = list(folder).unwrap();
        let words: Vec<_> = all.iter().map(|e| (&*e.about, e.in_use, e.current)).collect();
        let expected = [
            ("unknown", false, false),
            ("the set a", false, true),
            ("generated sample data", false, true),
            ("the set b", true, true),
        ];
        assert_eq!(words, expected);
        assert_eq!((all[0].bytes, all[2].bytes), (3, 0));

        assert!(matches!(verify(folder).unwrap(), (2, damaged) if damaged.is_empty()));
        let file = all[1].folder.join("one");
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        fs::copy(used.folder().join("one"), all[1].folder.join("two")).unwrap();
        let (files, damaged) = verify(folder).unwrap();
        let problems: Vec<_> = damaged.iter().map(|d| (name(&d.path), &*d.problem)).collect();
        let expected = [
            ("one".to_owned(), "its hash is not the noted one"),
            ("two".to_owned(), "it is of another set"),
        ];
        assert_eq!((files, problems), (3, expected.to_vec()));

        let month = Duration::from_secs(30 * 24 * 3600);
        let folders = |removed: Vec<Entry>| -> Vec<PathBuf> {
            removed.into_iter().map(|entry| entry.folder).collect()
        };
        assert_eq!(folders(prune(folder, month, true).unwrap()), [&*old]);
        assert!(old.exists());
        assert_eq!(folders(prune(folder, month, false).unwrap()), [&*old]);
        assert!(!old.exists());
        let removed = folders(prune(folder, Duration::ZERO, false).unwrap());
        assert_eq!(removed, [all[1].folder.clone()]);
        assert!(used.folder().join("one").exists() && folder.join("samples-v1").exists());
    }
}
