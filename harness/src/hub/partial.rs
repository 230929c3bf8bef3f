use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file that is being fetched: the first bytes of a blob. It grows at its end alone and is never
/// cut, only replaced; so should locks not work somewhere, two writers write the same bytes to the
/// same places.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Partial {
    /// Goes on with what is there, unless that is too long.
    pub fn open(path: &Path, size: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match OpenOptions::new().write(true).open(path) {
            Ok(mut file) => {
                let len = file.seek(SeekFrom::End(0))?;
                let mut partial = Self { path: path.to_path_buf(), file, len };
                if len > size {
                    partial.restart()?;
                }
                Ok(partial)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { path: path.to_path_buf(), file: File::create_new(path)?, len: 0 })
            }
            Err(error) => Err(error),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Begins anew, in a new file.
    pub fn restart(&mut self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.file = File::create_new(&self.path)?;
        self.len = 0;
        Ok(())
    }

    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes the bytes outlast a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives the file its final name, atomically.
    pub fn finish(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        // Makes the name durable; some file systems cannot sync a folder.
        if let Some(Ok(folder)) = path.parent().map(File::open) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Removes the file.
    pub fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
