//! Where things are on this machine: the cache, data sets, sample data.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tasks::archive::ArchiveError;
use tasks::data::Dataset;
use tasks::files::Files;
use tasks::sample::{self, SampleError};

use crate::interrupt;
use crate::progress::{Bar, Reporter};

/// Folder in the cache for the indexes of archives that are read in place.
const INDEXES: &str = "indexes-v1";

/// `$PIXIO_EVAL_CACHE`, else `$XDG_CACHE_HOME/pixio-eval`, else `~/.cache/pixio-eval`.
pub fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("PIXIO_EVAL_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("pixio-eval")))
        .or_else(|| Some(set("HOME")?.join(".cache/pixio-eval")))
        .unwrap_or_else(|| PathBuf::from(".pixio-eval-cache"))
}

/// A data set's folder: as given, else `$PIXIO_EVAL_DATA/NAME`, else `data/NAME`.
pub fn dataset(name: &str, given: &[(String, PathBuf)]) -> PathBuf {
    if let Some((_, folder)) = given.iter().rev().find(|(known, _)| known == name) {
        return folder.clone();
    }
    let root = std::env::var_os("PIXIO_EVAL_DATA").filter(|v| !v.is_empty());
    root.map_or_else(|| PathBuf::from("data"), PathBuf::from).join(name)
}

/// The files of a data set: a folder, or archives in it that are read in place, whose index is kept in the
/// cache.
pub fn files(
    dataset: &Dataset,
    root: &Path,
    cache: &Path,
    reporter: &Reporter,
) -> Result<Files, ArchiveError> {
    let bar: OnceLock<Bar> = OnceLock::new();
    let told = |done: u64, total: u64| {
        // Nothing of nothing: another process does it.
        if total > 0 {
            let label = || format!("indexing {}", dataset.name);
            bar.get_or_init(|| reporter.bytes(&label(), total)).set(done);
        }
        !interrupt::requested()
    };
    Files::open(dataset, root, &cache.join(INDEXES), &told)
}

/// The generated stand-in for a data set, made on first use.
pub fn sample(name: &str, cache: &Path, reporter: &Reporter) -> Result<PathBuf, SampleError> {
    let root = cache.join(format!("samples-v{}", sample::REVISION));
    let known = sample::is_sample(&root.join(name)).is_some();
    let folder = sample::write(name, &root)?;
    if !known {
        reporter.say(format!("{name}: sample data made in {}", folder.display()));
    }
    Ok(folder)
}

/// Bytes that are free where a folder is, or will be.
pub(crate) fn free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let there = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        let found = rustix::fs::statvfs(there).ok()?;
        Some(found.f_bavail * found.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}
