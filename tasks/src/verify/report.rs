//! What was found, check by check.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Finding;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Not as published, but usable.
    Note,
    /// Not usable, or not the data set.
    Wrong,
}

/// What a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Whether every file that the split names is there and not empty.
    Files,
    /// Number of samples beside the published one.
    Counts,
    /// Whether files can be decoded.
    Readable,
    /// Sizes of images, and of targets beside their images.
    Sizes,
    /// Channels of the images.
    Channels,
    /// Depths or labels.
    Values,
    /// Shares of the classes beside the published ones.
    Shares,
    /// Images for training among those for validation.
    Duplicates,
    /// Files whose content is published.
    Known,
    /// Folders of classes.
    Classes,
}

impl Subject {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Counts => "counts",
            Self::Readable => "readable",
            Self::Sizes => "sizes",
            Self::Channels => "channels",
            Self::Values => "values",
            Self::Shares => "shares",
            Self::Duplicates => "duplicates",
            Self::Known => "known",
            Self::Classes => "classes",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What.
    pub subject: Subject,
    /// Of which split; none where it is about both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// How it is.
    pub verdict: Verdict,
    /// The same in words and numbers.
    pub said: String,
    /// The first files that are not as they should be, each with what is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Number of such files beyond these.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Number of samples of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Looked {
    /// `train` or `val`.
    pub split: String,
    /// Samples that are there.
    pub found: usize,
    /// Of these, the ones whose files were decoded.
    pub looked_at: usize,
}

/// A data set, verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Name in `datasets.toml`.
    pub dataset: String,
    /// The folder, or the archive.
    pub root: PathBuf,
    /// The worst of the checks and findings.
    pub verdict: Verdict,
    /// Whether every file was decoded.
    pub full: bool,
    /// Whether it is generated sample data.
    pub generated: bool,
    /// By split, `train` first.
    pub splits: Vec<Looked>,
    /// Wrong preparations that were recognised.
    pub findings: Vec<Finding>,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
}

impl Report {
    pub(super) fn check(&mut self, subject: Subject, split: Option<&str>) -> CheckWith<'_> {
        CheckWith { report: self, subject, split: split.map(str::to_owned) }
    }

    pub(super) fn find(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            self.verdict = self.verdict.max(finding.verdict);
            self.findings.push(finding);
        }
    }
}

/// A check whose outcome is still to be said.
pub(super) struct CheckWith<'a> {
    report: &'a mut Report,
    subject: Subject,
    split: Option<String>,
}

impl CheckWith<'_> {
    pub fn is(self, verdict: Verdict, said: impl Into<String>) {
        self.with(verdict, said, &Problems::default());
    }

    pub fn with(self, verdict: Verdict, said: impl Into<String>, problems: &Problems) {
        self.report.verdict = self.report.verdict.max(verdict);
        self.report.checks.push(Check {
            subject: self.subject,
            split: self.split,
            verdict,
            said: said.into(),
            files: problems.first.iter().map(|(_, said)| said.clone()).collect(),
            more: problems.count - problems.first.len(),
        });
    }
}

/// What is wrong with single files: how many, and the first of them in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Problems {
    pub count: usize,
    first: Vec<(usize, String)>,
}

impl Problems {
    const KEPT: usize = 5;

    /// One more, at an index of its split.
    pub fn add(&mut self, index: usize, said: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < Self::KEPT || self.first.last().is_some_and(|last| last.0 > index) {
            self.first.push((index, said()));
            self.settle();
        }
    }

    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.settle();
    }

    fn settle(&mut self) {
        self.first.sort();
        self.first.truncate(Self::KEPT);
    }

    pub fn verdict(&self, if_any: Verdict) -> Verdict {
        if self.count == 0 { Verdict::Good } else { if_any }
    }
}
