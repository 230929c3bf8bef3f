//! Names of members as those of files in the data set's folder layout.

use std::collections::HashMap;

use super::error::{ArchiveError, Problem};

/// Bytes of the longest path that is taken, as of most systems.
const LONGEST: usize = 4096;

/// The path of a member without `strip`, its leading folder. None: a folder, or what macOS leaves in archives.
pub(super) fn canonical(raw: &str, strip: &str) -> Result<Option<String>, Problem> {
    if raw.len() > LONGEST {
        return Err(Problem::Name("is longer than 4096 bytes"));
    }
    if raw.ends_with('/') {
        return Ok(None);
    }
    if raw.starts_with('/') {
        return Err(Problem::Name("is an absolute path"));
    }
    if raw.chars().any(char::is_control) {
        return Err(Problem::Name("has control characters"));
    }
    let mut path = String::with_capacity(raw.len());
    let mut last = "";
    for part in raw.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(Problem::Name("leads out of the archive with .."));
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
        last = part;
    }
    let litter = last == ".DS_Store" || last.starts_with("._") || path.starts_with("__MACOSX/");
    let inner = path.strip_prefix(strip).and_then(|rest| rest.strip_prefix('/'));
    let path = if strip.is_empty() { path } else { inner.map(str::to_owned).unwrap_or(path) };
    Ok((!litter && !path.is_empty()).then_some(path))
}

/// Whether a path could be [`canonical`]'s.
pub(super) fn is_canonical(path: &str) -> bool {
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(good) && !path.bytes().any(|byte| byte < b' ' || byte == 0x7f)
}

/// The digits of a WordNet identifier (`n` and eight digits).
fn identifier(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('n')?;
    (digits.len() == 8 && digits.bytes().all(|c| c.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// What the name of an image says: its stem without a trailing WordNet identifier, and the digits of the
/// identifier, trailing or leading. Shards name validation images `ILSVRC2012_val_00000293_n01440764` and
/// training images `n01440764_10026` or `n01440764_10026_n01440764`.
pub(super) fn stem(name: &str) -> (&str, Option<u32>) {
    if let Some((before, after)) = name.rsplit_once('_')
        && !before.is_empty()
        && let Some(digits) = identifier(after)
    {
        return (before, Some(digits));
    }
    (name, identifier(name.split_once('_').map_or(name, |(first, _)| first)))
}

/// The folder of each class number.
pub(super) struct Classes(HashMap<u32, u32>);

impl Classes {
    /// From class numbers and the WordNet identifiers seen with them.
    pub(super) fn new(
        seen: impl Iterator<Item = (u32, Option<u32>)> + Clone,
    ) -> Result<Self, ArchiveError> {
        let (mut names, mut numbers) = (HashMap::new(), HashMap::new());
        for (class, name) in seen.clone().filter_map(|(class, name)| Some((class, name?))) {
            let first = *names.entry(class).or_insert(name);
            if first != name {
                let [first, second] = [first, name].map(folder);
                return Err(ArchiveError::ClassHasTwoNames { class, first, second });
            }
            let first = *numbers.entry(name).or_insert(class);
            if first != class {
                let name = folder(name);
                return Err(ArchiveError::NameHasTwoClasses { name, first, second: class });
            }
        }
        let mut unnamed = seen.map(|(class, _)| class).filter(|class| !names.contains_key(class));
        match unnamed.next() {
            Some(class) if !names.is_empty() => Err(ArchiveError::ClassWithoutName { class }),
            _ => Ok(Self(names)),
        }
    }

    pub(super) fn folder(&self, class: u32) -> String {
        self.0.get(&class).map_or_else(|| format!("{class:04}"), |&name| folder(name))
    }
}

fn folder(digits: u32) -> String {
    format!("n{digits:08}")
}

/// A class number as text.
pub(super) fn class(text: &str) -> Result<u32, Problem> {
    let digits = text.trim();
    let number = digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    number.filter(|&class| class <= 9999).ok_or_else(|| {
        Problem::Class(digits.chars().take(32).flat_map(char::escape_debug).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_leading_folder_and_never_leave_the_archive() {
        let path = |raw| canonical(raw, "A/B").unwrap();
        assert_eq!(path("A/B/c/d.jpg").as_deref(), Some("c/d.jpg"));
        assert_eq!(path("./A//B/./c").as_deref(), Some("c"));
        assert_eq!(path("A/Bc/d").as_deref(), Some("A/Bc/d"));
        assert_eq!(path("other").as_deref(), Some("other"));
        for none in ["A/B/", "__MACOSX/A/B/x", "A/.DS_Store", "A/B/._d.jpg", "", "."] {
            assert_eq!(path(none), None, "{none}");
        }
        for bad in ["../x", "A/../../x", "/etc/x", "a\nb", "a\0b"] {
            assert!(matches!(canonical(bad, ""), Err(Problem::Name(_))), "{bad:?}");
        }
        assert!(canonical(&"x".repeat(5000), "").is_err());
    }

    #[test]
    fn names_of_images_show_their_class() {
        assert_eq!(stem("n01440764_10026"), ("n01440764_10026", Some(1_440_764)));
        assert_eq!(stem("n01440764_10026_n01440764"), ("n01440764_10026", Some(1_440_764)));
        let val = stem("ILSVRC2012_val_00000293_n01440764");
        assert_eq!(val, ("ILSVRC2012_val_00000293", Some(1_440_764)));
        assert_eq!(stem("ILSVRC2012_val_00000293"), ("ILSVRC2012_val_00000293", None));
        assert_eq!(stem("_n01440764"), ("_n01440764", None));
        assert_eq!(stem("n01440764"), ("n01440764", Some(1_440_764)));
        assert_eq!(stem("n0144076x_1"), ("n0144076x_1", None));
    }

    #[test]
    fn a_class_has_one_name_and_a_name_one_class() {
        let folder = |seen: &[(u32, Option<u32>)], class| {
            Classes::new(seen.iter().copied()).map(|classes| classes.folder(class))
        };
        assert_eq!(folder(&[(3, None), (3, Some(7)), (4, Some(8))], 3).unwrap(), "n00000007");
        assert_eq!(folder(&[(3, None), (12, None)], 12).unwrap(), "0012");
        let two = folder(&[(3, Some(7)), (3, Some(8))], 3).unwrap_err();
        assert!(matches!(two, ArchiveError::ClassHasTwoNames { class: 3, .. }));
        let two = folder(&[(3, Some(7)), (4, Some(7))], 3).unwrap_err();
        assert!(matches!(two, ArchiveError::NameHasTwoClasses { first: 3, second: 4, .. }));
        let none = folder(&[(3, Some(7)), (4, None)], 3).unwrap_err();
        assert!(matches!(none, ArchiveError::ClassWithoutName { class: 4 }));
    }

    #[test]
    fn class_numbers_are_decimal() {
        assert_eq!(class(" 17\n").unwrap(), 17);
        for bad in ["", "-1", "1.0", "10000", "cat", "+3"] {
            assert!(class(bad).is_err(), "{bad}");
        }
    }
}
