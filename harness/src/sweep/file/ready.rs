//! Sweeps that come with the program, and where a sweep's text is.

use std::path::Path;

use super::{FileError, Problem};
use crate::registry::nearest;

/// Sweeps that come with the program: name and file.
pub static READY: [(&str, &str); 6] = [
    ("blocks-mae-l", include_str!("../../../sweeps/blocks-mae-l.toml")),
    ("blocks-mae-h", include_str!("../../../sweeps/blocks-mae-h.toml")),
    ("blocks-pixio-5b", include_str!("../../../sweeps/blocks-pixio-5b.toml")),
    ("tokens", include_str!("../../../sweeps/tokens.toml")),
    ("heads", include_str!("../../../sweeps/heads.toml")),
    ("rates", include_str!("../../../sweeps/rates.toml")),
];

/// The text of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub text: String,
    /// What it is called in messages: its path, or the name of a ready-made one with `.toml`.
    pub origin: String,
}

/// The sweep of that name, or the file.
///
/// # Errors
/// Neither such a name nor a file that can be read.
pub fn source(given: &str) -> Result<Source, FileError> {
    if let Some((name, text)) = READY.iter().find(|(name, _)| *name == given) {
        return Ok(Source { text: (*text).to_owned(), origin: format!("{name}.toml") });
    }
    let wrong = |problem| FileError { origin: given.to_owned(), line: None, problem };
    let path = Path::new(given);
    if !path.exists() && !given.contains(['/', '.']) {
        let names = READY.iter().map(|(name, _)| *name);
        let near = nearest(given, names.clone());
        let known = format!("{}; or a file", names.collect::<Vec<_>>().join(", "));
        let (what, name) = ("sweep", given.to_owned());
        return Err(wrong(Problem::Unknown { what, name, known, near }));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(Problem::Io(error)))?;
    Ok(Source { text, origin: given.to_owned() })
}

/// What a sweep answers: the comment's first line.
pub fn title(text: &str) -> &str {
    text.lines().next().and_then(|line| line.strip_prefix('#')).unwrap_or_default().trim()
}
