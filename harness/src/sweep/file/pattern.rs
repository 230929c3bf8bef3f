//! Patterns of file names.

use std::cmp::Ordering;
use std::io::ErrorKind;
use std::path::Path;

use super::Problem;

/// Whether a backbone is a pattern; those with a prefix name no file of their own.
pub(super) fn is_pattern(backbone: &str) -> bool {
    let prefixed = ["hf:", "random:", "py:"].iter().any(|prefix| backbone.starts_with(prefix));
    !prefixed && backbone.contains(['*', '?'])
}

/// The files and folders that fit, by the numbers in their names. Those whose name begins with a dot fit
/// a pattern that does.
pub(super) fn find(pattern: &str) -> Result<Vec<String>, Problem> {
    let root = if pattern.starts_with('/') { "/" } else { "" };
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for base in &found {
            let join = |name: &str| match base.as_str() {
                "" | "/" => format!("{base}{name}"),
                _ => format!("{base}/{name}"),
            };
            if !part.contains(['*', '?']) {
                next.extend(Some(join(part)).filter(|path| Path::new(path).exists()));
                continue;
            }
            let folder = Path::new(if base.is_empty() { "." } else { base });
            let unread = |source| Problem::Folder {
                pattern: pattern.to_owned(),
                folder: folder.to_path_buf(),
                source,
            };
            let entries = match folder.read_dir() {
                Ok(entries) => entries,
                // A file where the pattern wants a folder does not fit, nor what has gone meanwhile.
                Err(e) if matches!(e.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => {
                    continue;
                }
                Err(error) => return Err(unread(error)),
            };
            for entry in entries {
                let name = entry.map_err(unread)?.file_name();
                let visible = |name: &&str| part.starts_with('.') || !name.starts_with('.');
                let name = name.to_str().filter(visible).filter(|name| fits_part(part, name));
                next.extend(name.map(join));
            }
        }
        found = next;
    }
    found.sort_by(|a, b| by_numbers(a, b));
    match found.is_empty() {
        true => Err(Problem::NoFile(pattern.to_owned())),
        false => Ok(found),
    }
}

/// Whether a path, or any other name, fits.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if fits_part(pattern, part) => {}
            _ => return false,
        }
    }
}

fn fits_part(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Where the last `*` stands, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Digits as the numbers they are, everything else by character.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
        match (digits(left), digits(right)) {
            (0, _) | (_, 0) => match (left.chars().next(), right.chars().next()) {
                (Some(l), Some(r)) if l == r => {
                    (left, right) = (&left[l.len_utf8()..], &right[r.len_utf8()..]);
                }
                (l, r) => return l.cmp(&r).then_with(|| a.cmp(b)),
            },
            (l, r) => {
                let number =
                    |text: &str, end: usize| text[..end].trim_start_matches('0').to_owned();
                let (first, second) = (number(left, l), number(right, r));
                let order = first.len().cmp(&second.len()).then_with(|| first.cmp(&second));
                if order != Ordering::Equal {
                    return order;
                }
                (left, right) = (&left[l..], &right[r..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name) in [
            ("*", "a"),
            ("a*c", "abbc"),
            ("a*c", "ac"),
            ("*-?.pth", "step-x-2.pth"),
            ("ä?", "äö"),
            ("*b*d", "abcbd"),
            ("runs/*/last.pth", "runs/a/last.pth"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a*c", "abcd"),
            ("?", ""),
            ("?", "ab"),
            ("*", "a/b"),
            ("a/*", "a"),
            ("mae-l", "mae-h"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        assert!(!is_pattern("hf:org/name*") && !is_pattern("mae-l") && is_pattern("a/*.pth"));
    }

    #[test]
    fn numbers_are_in_order() {
        let mut names =
            ["ckpt-10", "ckpt-2b", "ckpt-02", "ckpt-2", "ckpt", "a-99999999999999999999", "a-3"];
        names.sort_by(|a, b| by_numbers(a, b));
        let want =
            ["a-3", "a-99999999999999999999", "ckpt", "ckpt-02", "ckpt-2", "ckpt-2b", "ckpt-10"];
        assert_eq!(names, want);
    }

    #[test]
    fn files_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["step-2", "step-10", ".step-3", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("last.pth"), name).unwrap();
        }
        std::fs::write(folder.path().join("step-1"), "a file").unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let found = |pattern: &str| find(&at(pattern)).unwrap();
        assert_eq!(found("step-*"), [at("step-1"), at("step-2"), at("step-10")]);
        assert_eq!(found("step-*/last.*"), [at("step-2/last.pth"), at("step-10/last.pth")]);
        assert_eq!(found(".st*"), [at(".step-3")]);
        for none in ["x*", "step-*/first.pth", "absent/*"] {
            assert!(matches!(find(&at(none)), Err(Problem::NoFile(_))), "{none}");
        }
    }
}
