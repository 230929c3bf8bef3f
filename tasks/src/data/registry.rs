//! `datasets.toml`, as types.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::source::{Citation, InPlace, KnownFile, Source, SourceFile, WrongPreparation};
use crate::verify::Preparation;

const FILE: &str = "datasets.toml";
const TEXT: &str = include_str!("../../../datasets.toml");

/// Every data set, in the file's order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    #[serde(rename = "dataset")]
    datasets: Vec<Dataset>,
}

/// What is known about a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// The name used on the command line and in records.
    pub name: String,
    /// The name it was published under.
    pub title: String,
    /// What is measured on it.
    pub task: Task,
    /// Number of classes; none for depth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// How its files are found.
    pub layout: Layout,
    /// The same for people: path patterns, then sentences.
    pub layout_on_disk: String,
    /// The archives that it is read from in place, without being unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlace>,
    /// The licence or terms, in short; the source's own words decide.
    pub licence: String,
    /// Where it comes from.
    pub source: Source,
    /// Split name (`train`, `val`) to the number of samples of the published protocol; demonstrations have
    /// no `val`.
    pub splits: BTreeMap<String, usize>,
    /// What decides which samples belong to a split.
    pub list: SplitList,
    /// How depth is stored; depth data sets only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<DepthStorage>,
    /// How labels are stored; segmentation data sets only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelForms>,
    /// Preparations that are taken for it and are not it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<WrongPreparation>,
    /// A sample of its files, with their content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<KnownFile>,
    /// What to cite.
    #[serde(default, rename = "citation", skip_serializing_if = "Vec::is_empty")]
    pub citations: Vec<Citation>,
}

/// What is measured on a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One class an image.
    Classification,
    /// Metres a pixel.
    Depth,
    /// One class a pixel.
    Segmentation,
    /// A policy cloned from demonstrations.
    RobotLearning,
}

impl Task {
    /// As it is written in datasets.toml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Depth => "depth",
            Self::Segmentation => "segmentation",
            Self::RobotLearning => "robot-learning",
        }
    }
}

/// How a data set's files are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `SPLIT/CLASS/IMAGE`.
    ImageFolder,
    /// NYU Depth V2 as prepared for BTS.
    Nyuv2Bts,
    /// KITTI raw images beside annotated depth maps.
    KittiEigen,
    /// The scene parsing challenge's folders.
    Ade20k,
    /// The development kit's folders with augmented masks.
    Voc2012,
    /// Urban and rural folders within each split.
    Loveda,
    /// Demonstrations of a suite's tasks.
    Demonstrations,
}

/// What decides which samples belong to a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitList {
    /// In a sentence.
    pub notes: String,
    /// Split name to the published list, where neither the folder nor its layout decides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pinned: BTreeMap<String, PinnedList>,
}

/// A published split list: one `image target` a line, relative to the data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedList {
    /// Where it is, at a fixed revision.
    pub url: String,
    /// SHA-256 of the file, in 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Number of lines: the split's number of samples.
    pub lines: usize,
    /// Size of the file.
    pub bytes: u64,
}

/// How depth is stored: 16-bit whole numbers, 0 for no measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthStorage {
    /// Stored value of one metre.
    pub steps_per_metre: u32,
    /// Nearest depth that is measured on, metres.
    pub min_metres: f64,
    /// Farthest depth that is measured on, metres.
    pub max_metres: f64,
}

/// How labels are stored, in the forms in which the data set is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelForms {
    /// Of the classes, in the order of their labels.
    pub names: Vec<String>,
    /// The form that the protocol's authors use: classes from 0.
    pub authors: String,
    /// The form as published, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// Label in the authors' form that counts neither as target nor as prediction.
    pub ignore: u8,
    /// Share of the pixels that each class has, as published; in the order of the names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
}

/// Published shares of the classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// Where they are published, and of what they are shares.
    pub by: String,
    /// Of the pixels, from 0 to 1, in the order of the classes.
    pub of_pixels: Vec<f64>,
}

/// Why `datasets.toml` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Not TOML, or not of this form.
    #[error("{file}, line {line}: {reason}")]
    Parse {
        /// Name of the file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What was expected and what was found.
        reason: String,
    },
    /// Readable, but a data set contradicts itself or another.
    #[error("{file}, data set {name:?}: {reason}")]
    Inconsistent {
        /// Name of the file.
        file: String,
        /// The data set.
        name: String,
        /// What does not fit.
        reason: String,
    },
}

impl Registry {
    /// The data sets that this version knows.
    ///
    /// # Errors
    ///
    /// [`RegistryError`], where the file was edited into something else before the build.
    pub fn builtin() -> Result<Self, RegistryError> {
        Self::parse(TEXT, FILE)
    }

    /// Reads the text of a file of the form of `datasets.toml`; `file` is its name for messages.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn parse(text: &str, file: &str) -> Result<Self, RegistryError> {
        let registry: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or(text);
            RegistryError::Parse {
                file: file.to_owned(),
                line: 1 + before.matches('\n').count(),
                reason: error.message().to_owned(),
            }
        })?;
        for (index, dataset) in registry.datasets.iter().enumerate() {
            let twice = registry.datasets[..index].iter().any(|other| other.name == dataset.name);
            let reason =
                if twice { Some("the name is used twice") } else { dataset.contradiction() };
            let reason = reason.map(str::to_owned).or_else(|| dataset.source_contradiction());
            let reason = reason.or_else(|| {
                let earlier = registry.datasets[..index].iter().flat_map(|set| &set.citations);
                cited_apart(&dataset.citations, earlier)
            });
            if let Some(reason) = reason {
                return Err(RegistryError::Inconsistent {
                    file: file.to_owned(),
                    name: dataset.name.clone(),
                    reason,
                });
            }
        }
        Ok(registry)
    }

    /// The data sets, in the file's order.
    pub fn datasets(&self) -> &[Dataset] {
        &self.datasets
    }

    /// The data set of a name.
    pub fn get(&self, name: &str) -> Option<&Dataset> {
        self.datasets.iter().find(|dataset| dataset.name == name)
    }

    /// All names, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.datasets.iter().map(|dataset| dataset.name.as_str())
    }
}

impl Dataset {
    fn contradiction(&self) -> Option<&'static str> {
        if self.wrong.iter().any(|wrong| Preparation::named(&wrong.name).is_none()) {
            return Some("a name of [[dataset.wrong]] is none of those that verify knows");
        }
        match self.task {
            Task::Depth if self.depth.is_none() => Some("task depth needs [dataset.depth]"),
            Task::Segmentation if self.labels.is_none() => {
                Some("task segmentation needs [dataset.labels]")
            }
            Task::Classification | Task::Segmentation if self.classes.is_none() => {
                Some("this task needs a number of classes")
            }
            Task::RobotLearning if self.splits.contains_key("train") => self.list_contradiction(),
            _ if !["train", "val"].iter().all(|&split| self.splits.contains_key(split)) => {
                Some("both splits, train and val, are needed")
            }
            _ if self.labels.as_ref().is_some_and(|l| Some(l.names.len()) != self.classes) => {
                Some("names of [dataset.labels] are not as many as classes")
            }
            _ if self
                .labels
                .as_ref()
                .and_then(|l| l.shares.as_ref())
                .is_some_and(|shares| Some(shares.of_pixels.len()) != self.classes) =>
            {
                Some("shares of [dataset.labels] are not as many as classes")
            }
            _ => self.list_contradiction(),
        }
    }

    /// Of where it comes from, what its files hold and what is cited.
    fn source_contradiction(&self) -> Option<String> {
        let files = self.source.files.iter().find_map(SourceFile::contradiction);
        let known = || self.known.iter().find_map(KnownFile::contradiction);
        let cited = || self.citations.iter().find_map(|citation| citation.entry().err());
        let paths: BTreeSet<&str> = self.known.iter().map(|file| file.path.as_str()).collect();
        let twice =
            || (paths.len() != self.known.len()).then(|| "a known file is there twice".to_owned());
        files.or_else(known).or_else(twice).or_else(cited)
    }

    fn list_contradiction(&self) -> Option<&'static str> {
        let pinned = &self.list.pinned;
        let by_list =
            matches!(self.layout, Layout::Nyuv2Bts | Layout::KittiEigen | Layout::Voc2012);
        if by_list != ["train", "val"].iter().all(|&split| pinned.contains_key(split)) {
            let reason = "the layouts nyuv2-bts, kitti-eigen and voc2012, and no others, need \
                          [dataset.list.pinned.train] and [dataset.list.pinned.val]";
            return Some(reason);
        }
        let is_hash = |text: &str| {
            text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        };
        if pinned.values().any(|list| !is_hash(&list.sha256)) {
            return Some("sha256 of a pinned list is not 64 lower-case hexadecimal digits");
        }
        if pinned.iter().any(|(split, list)| self.splits.get(split) != Some(&list.lines)) {
            return Some("lines of a pinned list are not the split's number of samples");
        }
        None
    }
}

/// A key that stands for two works: twice in a data set, or with another entry in an earlier one.
fn cited_apart<'a>(
    citations: &'a [Citation],
    earlier: impl Iterator<Item = &'a Citation>,
) -> Option<String> {
    let key = |citation: &'a Citation| citation.entry().map_or("", |(_, key)| key);
    let mut known: BTreeMap<&str, &str> =
        earlier.map(|citation| (key(citation), citation.bibtex.trim())).collect();
    let mut here = BTreeSet::new();
    citations.iter().find_map(|citation| {
        let (key, text) = (key(citation), citation.bibtex.trim());
        let apart = !here.insert(key) || known.insert(key, text).is_some_and(|old| old != text);
        apart.then(|| format!("the key {key:?} is that of another citation"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_set_is_there_with_the_published_counts() {
        let registry = Registry::builtin().unwrap();
        let counts: Vec<_> = registry
            .datasets()
            .iter()
            .map(|set| {
                let val = set.splits.get("val").copied().unwrap_or(0);
                (set.name.as_str(), set.classes, set.splits["train"], val)
            })
            .collect();
        assert_eq!(
            counts,
            [
                ("imagenet1k", Some(1000), 1_281_167, 50_000),
                ("nyuv2", None, 24_231, 654),
                ("kitti", None, 23_158, 652),
                ("ade20k", Some(150), 20_210, 2_000),
                ("voc2012", Some(21), 10_582, 1_449),
                ("loveda", Some(7), 2_522, 1_669),
                ("adroit", None, 200, 0),
                ("dmc", None, 500, 0),
                ("metaworld", None, 125, 0),
                ("trifinger", None, 200, 0),
            ]
        );
        let robots = |name: &&str| registry.get(name).unwrap().task == Task::RobotLearning;
        assert!(registry.names().filter(|name| !robots(name)).eq(crate::sample::NAMES));
        assert_eq!(registry.get("kitti").unwrap().depth.unwrap().steps_per_metre, 256);
        assert!(registry.get("KITTI").is_none());
        assert!(registry.datasets().iter().all(|set| !set.citations.is_empty()));
    }

    fn message(from: &str, to: &str) -> String {
        assert!(TEXT.contains(from), "{from}");
        Registry::parse(&TEXT.replacen(from, to, 1), "edited.toml").unwrap_err().to_string()
    }

    /// The message without the line, which is that of the edit.
    fn without_line(from: &str, to: &str) -> String {
        let line = TEXT[..TEXT.find(from).unwrap()].lines().count() + 1;
        let message = message(from, to);
        let place = format!("edited.toml, line {line}: ");
        message.strip_prefix(&place).unwrap_or_else(|| panic!("{place}{message}")).to_owned()
    }

    #[test]
    fn mistakes_are_reported_with_file_and_line() {
        insta::assert_snapshot!(without_line("classes = 1000", "clases = 1000"), @"unknown field `clases`, expected one of `name`, `title`, `task`, `classes`, `layout`, `layout_on_disk`, `in_place`, `licence`, `source`, `splits`, `list`, `depth`, `labels`, `wrong`, `known`, `citation`");
        insta::assert_snapshot!(without_line("task = \"depth\"", "task = \"deep\""), @"unknown variant `deep`, expected one of `classification`, `depth`, `segmentation`, `robot-learning`");
        insta::assert_snapshot!(without_line("val = 654", "val = \"654\""), @r#"invalid type: string "654", expected usize"#);
        insta::assert_snapshot!(without_line("[dataset.splits]", "[dataset.splits"), @"unclosed table, expected `]`");
    }

    #[test]
    fn contradictions_are_reported_with_the_data_set() {
        insta::assert_snapshot!(message("name = \"nyuv2\"", "name = \"imagenet1k\""), @r#"edited.toml, data set "imagenet1k": the name is used twice"#);
        insta::assert_snapshot!(message("classes = 150\n", ""), @r#"edited.toml, data set "ade20k": this task needs a number of classes"#);
        insta::assert_snapshot!(message("lines = 654", "lines = 655"), @r#"edited.toml, data set "nyuv2": lines of a pinned list are not the split's number of samples"#);
        insta::assert_snapshot!(message("sha256 = \"63", "sha256 = \"6"), @r#"edited.toml, data set "nyuv2": sha256 of a pinned list is not 64 lower-case hexadecimal digits"#);
        insta::assert_snapshot!(message("[dataset.list.pinned.val]", "[dataset.list.pinned.test]"), @r#"edited.toml, data set "nyuv2": the layouts nyuv2-bts, kitti-eigen and voc2012, and no others, need [dataset.list.pinned.train] and [dataset.list.pinned.val]"#);
        insta::assert_snapshot!(message("name = \"dense-depth\"", "name = \"dense\""), @r#"edited.toml, data set "nyuv2": a name of [[dataset.wrong]] is none of those that verify knows"#);
        insta::assert_snapshot!(message("count = 294\n", ""), @r#"edited.toml, data set "imagenet1k": source file "data/train-*.parquet": needs a count if its name has a *, and else none"#);
        insta::assert_snapshot!(message("count = 294", "count = 0"), @r#"edited.toml, data set "imagenet1k": source file "data/train-*.parquet": has neither 0 bytes nor a count of 0"#);
        insta::assert_snapshot!(message("name = \"ILSVRC2012_img_val.tar\"\n", "name = \"ILSVRC2012_img_val.tar\"\nurl = \"https://a\"\n"), @r#"edited.toml, data set "imagenet1k": source file "ILSVRC2012_img_val.tar": needs one of url, hub and page"#);
        insta::assert_snapshot!(message("how = \"Log in, ask", "# how = \"Log in, ask"), @r#"edited.toml, data set "imagenet1k": source file "ILSVRC2012_img_train.tar": needs both, page and how, or neither"#);
        insta::assert_snapshot!(message("checksum = \"sha1:", "# checksum = \"sha1:"), @r#"edited.toml, data set "ade20k": source file "ADEChallengeData2016.zip": needs an address with https://, or http:// and a checksum"#);
        insta::assert_snapshot!(message("path = \"images/validation/", "path = \"../images/"), @r#"edited.toml, data set "ade20k": known file "../images/ADE_val_00000001.jpg": needs a path below the data folder and a size"#);
        insta::assert_snapshot!(message("ADE_val_00000002.jpg", "ADE_val_00000001.jpg"), @r#"edited.toml, data set "ade20k": a known file is there twice"#);
        insta::assert_snapshot!(message("  year = {2015}", "  years = {2015}"), @r#"edited.toml, data set "imagenet1k": citation "@article{russakovsky2015imagenet,": no line year = {...}"#);
        insta::assert_snapshot!(message("lee2019big", "silberman2012indoor"), @r#"edited.toml, data set "nyuv2": the key "silberman2012indoor" is that of another citation"#);
        insta::assert_snapshot!(message("task = \"segmentation\"", "task = \"depth\""), @r#"edited.toml, data set "ade20k": task depth needs [dataset.depth]"#);
    }
}
