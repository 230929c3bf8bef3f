//! Where a data set comes from, file by file, and how it is told from what it is not.

use serde::{Deserialize, Serialize};

/// Where a data set comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The publisher's page.
    pub page: String,
    /// Whose preparation it is, where the original is not used as published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_by: Option<String>,
    /// The files to get, in the order in which they are needed.
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<SourceFile>,
}

/// A file that a data set is made from, or several of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its name as published; `*` stands for any characters where there are several.
    pub name: String,
    /// How many files the name stands for, where it has a `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// The set of files that it belongs to, where any one set is enough. Without a word of
    /// whoever asks it is the set that is nearest to being here, else the first that can be fetched; files
    /// without a set belong to every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Where it is fetched from over HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where it is fetched from on the Hugging Face Hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubFiles>,
    /// The page where a person gets it, where it is not fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// What to do there, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Size in bytes, where it is published; of all files together where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Checksum, where one is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// What becomes of it; nothing is unpacked of a file that is read in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unpack: Vec<Unpack>,
    /// What is made of it where unpacking is not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
}

/// What is made of an archive whose members are not yet the data set's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Build {
    /// ImageNet's validation images, all in one folder: each goes to that of its class.
    ValidationImages,
    /// ImageNet's development kit: it says the class of each validation image.
    DevelopmentKit,
    /// The Semantic Boundaries Dataset: masks in MATLAB files become images, but the masks of Pascal VOC's
    /// own archive win.
    BoundaryMasks,
    /// KITTI's recordings: one archive a drive, for the drives that the split lists name.
    Drives,
}

impl SourceFile {
    /// Whether the name stands for several files.
    pub fn is_several(&self) -> bool {
        self.name.contains('*')
    }

    /// Whether it becomes part of the data set as it is.
    pub fn is_kept(&self) -> bool {
        self.unpack.is_empty() && self.build.is_none()
    }
}

/// Files of a data set repository on the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFiles {
    /// `ORG/REPO`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Whether its terms must be accepted on its page first.
    #[serde(default)]
    pub gated: bool,
}

impl SourceFile {
    /// What does not fit together in it.
    pub(super) fn contradiction(&self) -> Option<String> {
        let says = |reason: &str| Some(format!("source file {:?}: {reason}", self.name));
        let ways = [self.url.is_some(), self.hub.is_some(), self.page.is_some()];
        if ways.into_iter().filter(|&way| way).count() != 1 {
            return says("needs one of url, hub and page");
        }
        if self.name.contains('*') != self.count.is_some() {
            return says("needs a count if its name has a *, and else none");
        }
        if self.bytes == Some(0) || self.count == Some(0) {
            return says("has neither 0 bytes nor a count of 0");
        }
        if self.page.is_some() != self.how.is_some() {
            return says("needs both, page and how, or neither");
        }
        let plain = self.url.as_ref().is_some_and(|url| !url.starts_with("https://"));
        if plain && (self.checksum.is_none() || !self.url.iter().all(|u| u.starts_with("http://")))
        {
            return says("needs an address with https://, or http:// and a checksum");
        }
        if self.url.is_some() && self.count.is_some() {
            return says("has one address and therefore no * in its name");
        }
        None
    }
}

/// A published checksum: `ALGORITHM:DIGITS` with `md5`, `sha1` or `sha256` and lower-case hexadecimal
/// digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Checksum {
    /// The function.
    pub algorithm: Algorithm,
    /// Its value, in lower-case hexadecimal digits.
    pub digits: String,
}

/// Hash functions that data sets are published with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// As in `datasets.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha256 => 64,
        }
    }
}

impl TryFrom<String> for Checksum {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(name, digits)| {
            let known = [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256];
            let algorithm = known.into_iter().find(|known| known.name() == name)?;
            let hexadecimal = digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
            let whole = hexadecimal && digits.len() == algorithm.digits();
            whole.then(|| Self { algorithm, digits: digits.to_owned() })
        });
        parsed.ok_or_else(|| {
            format!("expected a checksum such as md5:... with 32 lower-case hexadecimal digits, sha1:... with 40 or sha256:... with 64, found {text:?}")
        })
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.digits)
    }
}

/// Which members of an archive go where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpack {
    /// Beginning of a member's path, with `*` for any part of one name. A name that ends in `.tar/` is a tar
    /// archive in the tar archive: its members are unpacked in its place.
    pub from: String,
    /// What stands for that beginning in the data folder.
    pub to: String,
    /// End of the members' names; others are left out. All of them, if it is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ending: String,
}

/// What archives a data set is read from without being unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InPlace {
    /// Kinds of archives.
    pub containers: Vec<Container>,
    /// Folder in them that holds the data set's own folders, where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub strip: String,
}

/// A kind of archive that is read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Container {
    /// Tar shards of samples: an image, its class in a `.cls` file, and whatever else, under one key.
    Webdataset,
    /// Parquet shards as on the Hugging Face Hub: columns `image` (bytes and path) and `label`.
    Parquet,
    /// Zip archives of the data set's folders.
    Zip,
    /// Tar archives of the data set's folders.
    Tar,
}

/// A work to be cited where the data set is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Citation {
    /// What of the data set it describes.
    pub of: String,
    /// The BibTeX entry.
    pub bibtex: String,
}

impl Citation {
    /// The entry's kind (`article`) and key.
    ///
    /// # Errors
    ///
    /// What is wrong with the entry: there is one, with balanced braces, and it has author, title and year.
    pub fn entry(&self) -> Result<(&str, &str), String> {
        let wrong = |reason: &str| {
            let text = self.bibtex.lines().next().unwrap_or_default();
            format!("citation {text:?}: {reason}")
        };
        let word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_:".contains(&c))
        };
        let parts = self.bibtex.trim().strip_prefix('@').and_then(|rest| {
            let (kind, rest) = rest.split_once('{')?;
            let (key, fields) = rest.split_once(',')?;
            (word(kind) && word(key)).then_some((kind, key, fields))
        });
        let Some((kind, key, fields)) = parts else {
            return Err(wrong("expected @KIND{KEY, FIELDS}"));
        };
        let mut depth = 1_usize;
        for (at, c) in fields.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => continue,
            }
            if depth == 0 && at + 1 < fields.len() {
                return Err(wrong("there is more after its last brace"));
            }
        }
        if depth != 0 {
            return Err(wrong("a brace is not closed"));
        }
        for field in ["author", "title", "year"] {
            let has = |line: &str| {
                let rest = line.trim_start().strip_prefix(field);
                rest.is_some_and(|rest| rest.trim_start().starts_with("= {"))
            };
            if !fields.lines().any(has) {
                return Err(wrong(&format!("no line {field} = {{...}}")));
            }
        }
        Ok((kind, key))
    }
}

/// A preparation that is taken for the data set and is not it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrongPreparation {
    /// The name that `verify` and `--accept-data` use.
    pub name: String,
    /// What it is.
    pub about: String,
    /// How it is recognised.
    pub recognised: String,
    /// What to do.
    pub instead: String,
}

/// A file of the data set whose content is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownFile {
    /// Relative to the data folder.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Content.
    pub checksum: Checksum,
    /// Who says so.
    pub by: String,
}

impl KnownFile {
    /// What does not fit together in it.
    pub(super) fn contradiction(&self) -> Option<String> {
        let parts = || self.path.split('/');
        let inside =
            parts().all(|part| !matches!(part, "" | "." | "..")) && !self.path.contains('\\');
        (!inside || self.bytes == 0).then(|| {
            format!("known file {:?}: needs a path below the data folder and a size", self.path)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn citation(bibtex: &str) -> Result<(String, String), String> {
        let citation = Citation { of: "all of it".to_owned(), bibtex: bibtex.to_owned() };
        citation.entry().map(|(kind, key)| (kind.to_owned(), key.to_owned()))
    }

    #[test]
    fn a_citation_is_one_whole_entry() {
        let good = "@misc{a2020b,\n  title = {A {B}},\n  author = {C, D},\n  year = {2020}\n}\n";
        assert_eq!(citation(good).unwrap(), ("misc".to_owned(), "a2020b".to_owned()));
        for (from, to, reason) in [
            ("@misc", "misc", "expected @KIND{KEY, FIELDS}"),
            ("a2020b", "a 2020", "expected @KIND{KEY, FIELDS}"),
            ("{A {B}}", "{A {B}", "a brace is not closed"),
            ("{A {B}}", "{A {B}}}", "there is more after its last brace"),
            ("}\n}\n", "}\n}\n@misc{b, }", "there is more after its last brace"),
            ("author", "editor", "no line author = {...}"),
        ] {
            let told = citation(&good.replacen(from, to, 1)).unwrap_err();
            assert!(told.ends_with(reason), "{from} -> {to}: {told}");
        }
    }

    #[test]
    fn a_checksum_has_an_algorithm_and_all_its_digits() {
        let parse = |text: &str| Checksum::try_from(text.to_owned());
        let good = "md5:0123456789abcdef0123456789abcdef";
        assert_eq!(parse(good).unwrap().to_string(), good);
        for bad in
            ["", "md5:", "md5:0123", "sha1:0123456789abcdef0123456789abcdef", "crc:0", "0123"]
        {
            assert!(parse(bad).unwrap_err().contains("expected a checksum"), "{bad}");
        }
        assert!(parse("md5:0123456789ABCDEF0123456789abcdef").is_err());
    }
}
