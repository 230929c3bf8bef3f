//! Open archives, no more than some at a time: systems often allow a process 1024.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::ArchiveError;
use super::list::Stamp;
use super::source::Opened;

/// How many stay open; every thread that reads may hold one more.
pub(super) const MOST: usize = 128;

/// The archives that were read last, the latest at the end.
pub(super) struct Handles {
    open: Mutex<Vec<(usize, Arc<Opened>)>>,
    most: usize,
}

impl Handles {
    pub(super) fn new(most: usize) -> Self {
        Self { open: Mutex::new(Vec::new()), most }
    }

    /// An archive, opened if it is not. It must be as it was listed.
    pub(super) fn get(
        &self,
        archive: usize,
        path: &Path,
        listed: Stamp,
    ) -> Result<Arc<Opened>, ArchiveError> {
        if let Some(opened) = self.touch(archive) {
            return Ok(opened);
        }
        let fail = |source| ArchiveError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        let now = Stamp::of(&file.metadata().map_err(fail)?);
        if now != listed {
            let (listed, found) = (listed.size, now.size);
            return Err(ArchiveError::Changed { archive: path.to_owned(), listed, found });
        }
        let opened = Arc::new(Opened { file, len: now.size });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.iter().any(|&(known, _)| known == archive) {
            if open.len() >= self.most && !open.is_empty() {
                open.remove(0);
            }
            open.push((archive, Arc::clone(&opened)));
        }
        Ok(opened)
    }

    fn touch(&self, archive: usize) -> Option<Arc<Opened>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let place = open.iter().rposition(|&(known, _)| known == archive)?;
        let entry = open.remove(place);
        let opened = Arc::clone(&entry.1);
        open.push(entry);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_stay_open_and_the_latest_do() {
        let folder = tempfile::tempdir().unwrap();
        let archives: Vec<_> = (0..5)
            .map(|i| {
                let path = folder.path().join(format!("{i}.tar"));
                std::fs::write(&path, vec![0; i]).unwrap();
                let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
                (path, stamp)
            })
            .collect();
        let handles = Handles::new(3);
        for i in [0, 1, 2, 0, 3, 4, 0] {
            let (path, stamp) = &archives[i];
            assert_eq!(handles.get(i, path, *stamp).unwrap().len, i as u64);
        }
        let open: Vec<usize> = handles.open.lock().unwrap().iter().map(|&(i, _)| i).collect();
        assert_eq!(open, [3, 4, 0]);

        let (path, stamp) = &archives[1];
        std::fs::write(path, "longer").unwrap();
        let error = handles.get(1, path, *stamp).err().unwrap();
        assert!(matches!(error, ArchiveError::Changed { listed: 1, found: 6, .. }), "{error}");
    }
}
