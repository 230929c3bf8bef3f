//! What a member of an archive may be called. Archives come from elsewhere: a path must stay in the
//! folder that is being made, on every system, and no two members may end in the same file.

use std::collections::HashSet;

/// Bytes of a name, and of a whole path.
const NAME: usize = 255;
const PATH: usize = 1024;

/// Why a member is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Danger {
    /// `..`.
    #[error("its path leads out of the folder")]
    Outside,
    /// A beginning that is a root or a drive.
    #[error("its path is absolute")]
    Absolute,
    /// A separator on some systems only.
    #[error("its path has a backslash")]
    Backslash,
    /// What no terminal should show.
    #[error("its path has control characters")]
    Control,
    /// No text.
    #[error("its path is not UTF-8")]
    NotText,
    /// Nothing but dots and slashes.
    #[error("its path is empty")]
    Empty,
    /// More than file systems take.
    #[error("its path has more than {PATH} bytes, or a name in it more than {NAME}")]
    Long,
    /// A link or a device where a file is expected.
    #[error("it is {0}, expected a file")]
    Special(&'static str),
    /// Two members for one file.
    #[error("its place is taken by another member, perhaps in other case")]
    Taken,
    /// More than the archive can honestly hold.
    #[error("it unpacks to more than {0} bytes, which an archive of this size has no use for")]
    Bomb(u64),
}

/// A member's path with `/` between names, as it may be used.
pub(super) fn safe(raw: &[u8]) -> Result<String, Danger> {
    let path = std::str::from_utf8(raw).map_err(|_| Danger::NotText)?;
    if path.contains('\\') {
        return Err(Danger::Backslash);
    }
    if path.chars().any(char::is_control) {
        return Err(Danger::Control);
    }
    let drive =
        |path: &str| matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if path.starts_with('/') || drive(path) {
        return Err(Danger::Absolute);
    }
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.contains(&"..") {
        return Err(Danger::Outside);
    }
    if names.first().is_some_and(|name| drive(name)) {
        return Err(Danger::Absolute);
    }
    if names.iter().any(|name| name.len() > NAME) || path.len() > PATH {
        return Err(Danger::Long);
    }
    if names.is_empty() { Err(Danger::Empty) } else { Ok(names.join("/")) }
}

/// The places that are taken, of which only hashes are kept: ImageNet has 1.3 million.
#[derive(Default)]
pub(super) struct Places {
    files: HashSet<[u8; 16]>,
    folders: HashSet<[u8; 16]>,
}

impl Places {
    /// Takes a place, whatever its case.
    pub fn take(&mut self, target: &str) -> Result<(), Danger> {
        let target = target.to_lowercase();
        let file = hash(&target);
        let mut above = target.as_str();
        while let Some((folder, _)) = above.rsplit_once('/') {
            let folder_hash = hash(folder);
            if self.files.contains(&folder_hash) {
                return Err(Danger::Taken);
            }
            if !self.folders.insert(folder_hash) {
                break;
            }
            above = folder;
        }
        if self.folders.contains(&file) || !self.files.insert(file) {
            return Err(Danger::Taken);
        }
        Ok(())
    }
}

fn hash(text: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_safe() {
        assert_eq!(safe(b"./a//b/./c.png").as_deref(), Ok("a/b/c.png"));
        assert_eq!(safe("a/Übung 1..png".as_bytes()).as_deref(), Ok("a/Übung 1..png"));
        assert_eq!(safe(b"a/"), Ok("a".to_owned()));
        for (path, danger) in [
            (&b"../a"[..], Danger::Outside),
            (b"a/../../b", Danger::Outside),
            (b"a/..", Danger::Outside),
            (b"/etc/passwd", Danger::Absolute),
            (b"C:/a", Danger::Absolute),
            (b"./c:a", Danger::Absolute),
            (b"a\\..\\b", Danger::Backslash),
            (b"a\nb", Danger::Control),
            (b"a\0b", Danger::Control),
            (b"a\xff", Danger::NotText),
            (b"", Danger::Empty),
            (b"./", Danger::Empty),
            (&[b'a'; 256], Danger::Long),
            (&b"ab/".repeat(400), Danger::Long),
        ] {
            assert_eq!(safe(path), Err(danger), "{:?}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn a_place_is_taken_once_whatever_its_case() {
        let mut places = Places::default();
        for path in ["a/b.png", "a/c.png", "A/d/e.png", "f"] {
            assert_eq!(places.take(path), Ok(()), "{path}");
        }
        for path in ["a/b.png", "A/B.PNG", "a/c.png/x", "a", "A/D", "f/g"] {
            assert_eq!(places.take(path), Err(Danger::Taken), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_safe_stays_in_the_folder(raw in proptest::collection::vec(
            proptest::sample::select(&b"./\\:aC \n"[..]), 0..24)) {
            if let Ok(path) = safe(&raw) {
                let parts = std::path::Path::new(&path).components();
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                assert!(parts.into_iter().all(plain), "{path:?}");
            }
        }
    }
}
