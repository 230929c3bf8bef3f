//! Memory that this process and the worker both map: a file that has no name once both have it.

use std::io;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use tempfile::NamedTempFile;

/// A mapped file.
pub(super) struct Shared {
    map: MmapMut,
    /// Removed when dropped.
    file: Option<NamedTempFile>,
}

impl Shared {
    /// Memory of `size` bytes: of the machine where it has a folder for that, else a temporary file.
    pub(super) fn new(size: usize) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let file = tempfile::Builder::new().prefix("pixio-eval-").tempfile_in(folder)?;
        file.as_file().set_len(size.max(1) as u64)?;
        // SAFETY: the file is this process's own, made above; the worker writes to it only between a
        // request and its answer, and nothing here reads or writes it then.
        let map = unsafe { MmapMut::map_mut(file.as_file())? };
        Ok(Self { map, file: Some(file) })
    }

    /// Where the worker finds it, until it is forgotten.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|file| file.path().to_path_buf())
    }

    /// Removes the name: nothing is left behind, however this process ends.
    pub(super) fn forget_name(&mut self) {
        self.file = None;
    }

    /// Bytes mapped.
    pub(super) fn size(&self) -> usize {
        self.map.len()
    }

    /// Writes numbers at the start.
    pub(super) fn put(&mut self, values: &[f32]) {
        for (slot, value) in self.map.chunks_exact_mut(4).zip(values) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
    }

    /// `count` numbers from a byte offset on; `None` where they are not inside.
    pub(super) fn get(&self, offset: usize, count: usize) -> Option<Vec<f32>> {
        let bytes = self.map.get(offset..offset.checked_add(count.checked_mul(4)?)?)?;
        let number = |b: &[u8]| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
        Some(bytes.chunks_exact(4).map(number).collect())
    }
}
