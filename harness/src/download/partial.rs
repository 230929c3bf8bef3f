use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use reqwest::header::{ETAG, HeaderMap, LAST_MODIFIED};
use results::write_whole;
use serde::{Deserialize, Serialize};

/// A file that is being fetched: its first bytes. It grows at its end alone and is never cut, only
/// replaced; so should locks not work somewhere, two writers write the same bytes to the same places.
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    origin: Origin,
    /// Where the origin is written down; nowhere for a file that is named after its content.
    notes: Option<PathBuf>,
}

/// What a server said of a file when it began to send it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// What was asked for.
    url: String,
    etag: Option<String>,
    modified: Option<String>,
    /// Bytes of the whole file.
    pub size: Option<u64>,
}

impl Origin {
    pub fn of(url: &str, headers: &HeaderMap, size: Option<u64>) -> Self {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Self { url: url.to_owned(), etag: text(ETAG), modified: text(LAST_MODIFIED), size }
    }

    /// What If-Range takes: a strong ETag, else a date.
    pub fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.modified.as_deref())
    }

    /// Whether headers of another answer contradict these.
    pub fn differs(&self, headers: &HeaderMap) -> bool {
        let other = Self::of(&self.url, headers, self.size);
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        differ(&self.etag, &other.etag) || differ(&self.modified, &other.modified)
    }
}

impl Partial {
    /// Goes on with what is there, unless that is too long. For a file that is named after its content.
    pub fn open(path: &Path, size: u64) -> io::Result<Self> {
        let mut partial = Self::opened(path, None)?;
        if partial.len > size {
            partial.restart()?;
        }
        Ok(partial)
    }

    /// Goes on with what is there, if it is of this address: `PATH.json` says so.
    pub fn noted(path: &Path, url: &str) -> io::Result<Self> {
        let notes = notes(path);
        let mut partial = Self::opened(path, Some(notes.clone()))?;
        let known = fs::read(&notes).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let known = known.filter(|known: &Origin| known.url == url);
        match known.filter(|known| known.size.is_none_or(|size| partial.len <= size)) {
            Some(known) => partial.origin = known,
            None if partial.len > 0 => partial.restart()?,
            None => {}
        }
        Ok(partial)
    }

    fn opened(path: &Path, notes: Option<PathBuf>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let (file, len) = match OpenOptions::new().write(true).open(path) {
            Ok(mut file) => {
                let len = file.seek(SeekFrom::End(0))?;
                (file, len)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (File::create_new(path)?, 0),
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_path_buf(), file, len, origin: Origin::default(), notes })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Notes whose first bytes follow; the file is empty.
    pub(super) fn note(&mut self, origin: Origin) -> io::Result<()> {
        if let Some(notes) = &self.notes {
            write_whole(notes, &serde_json::to_vec(&origin)?)?;
            self.origin = origin;
        }
        Ok(())
    }

    /// Begins anew, in a new file.
    pub fn restart(&mut self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.file = File::create_new(&self.path)?;
        self.len = 0;
        self.origin = Origin::default();
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
        self.forget();
        // Makes the name durable; some file systems cannot sync a folder.
        if let Some(Ok(folder)) = path.parent().map(File::open) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Removes the file.
    pub fn discard(self) -> io::Result<()> {
        self.forget();
        fs::remove_file(&self.path)
    }

    fn forget(&self) {
        if let Some(notes) = &self.notes {
            let _ = fs::remove_file(notes);
        }
    }
}

fn notes(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(etag: Option<&str>, modified: Option<&str>) -> HeaderMap {
        let pairs = [(ETAG, etag), (LAST_MODIFIED, modified)];
        let given = |(name, value): (_, Option<&str>)| Some((name, value?.parse().unwrap()));
        pairs.into_iter().filter_map(given).collect()
    }

    #[test]
    fn only_what_stays_the_same_is_continued() {
        let date = "Sat, 01 Jan 2022 00:00:00 GMT";
        let of = |etag, modified| Origin::of("u", &headers(etag, modified), Some(9));
        assert_eq!(of(Some("\"a\""), Some(date)).validator(), Some("\"a\""));
        assert_eq!(of(Some("W/\"a\""), Some(date)).validator(), Some(date));
        assert_eq!(of(Some("W/\"a\""), None).validator(), None);
        assert!(of(Some("W/\"a\""), None).differs(&headers(Some("W/\"b\""), None)));
        assert!(!of(Some("\"a\""), None).differs(&headers(None, Some(date))));
    }

    #[test]
    fn a_part_belongs_to_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.part");
        let mut partial = Partial::noted(&path, "a").unwrap();
        partial.note(Origin::of("a", &headers(Some("\"1\""), None), Some(5))).unwrap();
        partial.append(b"abc").unwrap();
        drop(partial);
        let again = Partial::noted(&path, "a").unwrap();
        assert_eq!((again.len(), again.origin().validator()), (3, Some("\"1\"")));
        assert_eq!(Partial::noted(&path, "b").unwrap().len(), 0);
        // Without its notes nothing is known of it.
        let mut partial = Partial::noted(&path, "a").unwrap();
        partial.append(b"abcdef").unwrap();
        assert_eq!(Partial::noted(&path, "a").unwrap().len(), 0);
        Partial::noted(&path, "a").unwrap().discard().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
