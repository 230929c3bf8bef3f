//! The cache's folders, which Python's huggingface_hub and hf-hub share:
//!
//! ```text
//! models--ORG--REPO/blobs/ETAG              a file's bytes; ETAG.incomplete while it is fetched
//! models--ORG--REPO/snapshots/COMMIT/FILE   a link to the blob
//! models--ORG--REPO/refs/REVISION           the commit that a branch or tag stood for
//! .locks/models--ORG--REPO/ETAG.lock        held with flock by whoever fetches the blob
//! ```

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

pub(super) struct Layout {
    cache: PathBuf,
    folder: String,
}

pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|c| c.is_ascii_hexdigit())
}

impl Layout {
    pub fn new(cache: &Path, repository: &str) -> Self {
        let folder = format!("models--{}", repository.replace('/', "--"));
        Self { cache: cache.to_path_buf(), folder }
    }

    pub fn cache(&self) -> &Path {
        &self.cache
    }

    pub fn repository(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.repository().join("blobs").join(etag)
    }

    pub fn partial(&self, etag: &str) -> PathBuf {
        self.blob(&format!("{etag}.incomplete"))
    }

    pub fn lock(&self, etag: &str) -> PathBuf {
        self.cache.join(".locks").join(&self.folder).join(format!("{etag}.lock"))
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repository().join("snapshots").join(commit)
    }

    pub fn pointer(&self, commit: &str, file: &str) -> PathBuf {
        self.snapshot(commit).join(file)
    }

    /// The ETag that a pointer's blob is named after; `None` where there is no link (Python copies
    /// where a file system has none). Only the link itself says: Python may make the blob a link too.
    pub fn etag(pointer: &Path) -> Option<String> {
        Some(fs::read_link(pointer).ok()?.file_name()?.to_str()?.to_owned())
    }

    /// `None` for a revision that would lead out of the folder.
    fn reference(&self, revision: &str) -> Option<PathBuf> {
        let plain =
            Path::new(revision).components().all(|part| matches!(part, Component::Normal(_)));
        plain.then(|| self.repository().join("refs").join(revision))
    }

    /// The commit that a revision stands for, as far as the cache knows.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let noted = fs::read_to_string(self.reference(revision)?).ok()?;
        Some(noted.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Notes the commit that a branch or tag stands for.
    pub fn note(&self, revision: &str, commit: &str) -> io::Result<()> {
        let Some(path) = self.reference(revision).filter(|_| !is_commit(revision)) else {
            return Ok(());
        };
        if fs::read_to_string(&path).ok().as_deref() == Some(commit) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.cache);
        fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let written = folder.join(format!("{name}.{:08x}.tmp", std::process::id()));
        fs::write(&written, commit)?;
        fs::rename(written, path)
    }

    /// Points a snapshot's file at a blob, unless it does already.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> io::Result<PathBuf> {
        let pointer = self.pointer(commit, file);
        let target = Path::new("../../blobs").join(etag);
        if fs::read_link(&pointer).is_ok_and(|found| found == target) {
            return Ok(pointer);
        }
        fs::create_dir_all(self.snapshot(commit))?;
        let _ = fs::remove_file(&pointer);
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(&target, &pointer);
        #[cfg(not(unix))]
        let linked = fs::copy(self.blob(etag), &pointer).map(drop);
        match linked {
            // Python, which got here at the same moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(pointer),
            linked => linked.map(|()| pointer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path(), "org/repo");
        let commit = "1".repeat(40);
        for revision in ["../../../out", "/out", ".."] {
            layout.note(revision, &commit).unwrap();
            assert_eq!(layout.commit(revision), None);
        }
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());

        layout.note("pr/1", &commit).unwrap();
        let refs = folder.path().join("models--org--repo/refs");
        assert_eq!(fs::read_to_string(refs.join("pr/1")).unwrap(), commit);
        assert_eq!(layout.commit("pr/1"), Some(commit.clone()));
        // A commit needs no note; what is no commit is none.
        layout.note(&commit, &commit).unwrap();
        assert_eq!(fs::read_dir(&refs).unwrap().count(), 1);
        fs::write(refs.join("main"), "../../x").unwrap();
        assert_eq!(layout.commit("main"), None);
    }

    #[test]
    #[cfg(unix)]
    fn a_pointer_follows_its_blob() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path(), "org/repo");
        fs::create_dir_all(layout.blob("a").parent().unwrap()).unwrap();
        for etag in ["a", "b", "b"] {
            fs::write(layout.blob(etag), etag).unwrap();
            let pointer = layout.link("c", "file", etag).unwrap();
            assert_eq!(Layout::etag(&pointer).as_deref(), Some(etag));
            assert_eq!(fs::read_to_string(pointer).unwrap(), etag);
        }
        // A copy, as Python makes where there are no links.
        let pointer = layout.pointer("c", "file");
        fs::remove_file(&pointer).unwrap();
        fs::write(&pointer, "copy").unwrap();
        assert_eq!(Layout::etag(&pointer), None);
        layout.link("c", "file", "a").unwrap();
        assert_eq!(fs::read_to_string(pointer).unwrap(), "a");
    }
}
