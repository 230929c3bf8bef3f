//! Data that is not what it is taken for: refused, or accepted by name and said so.

use std::path::PathBuf;

use tasks::data::Dataset;
use tasks::files::Files;
use tasks::verify::{Finding, Verdict};

use super::RunError;

/// A data set that was recognised as a wrong preparation.
#[derive(Debug, thiserror::Error)]
#[error("{} is not {title} as the protocol reads it{}", root.display(), told(findings))]
pub struct WrongData {
    /// Name in datasets.toml.
    pub dataset: String,
    /// The name it was published under.
    pub title: String,
    /// The data folder.
    pub root: PathBuf,
    /// What was recognised, and was not accepted.
    pub findings: Vec<Finding>,
}

/// A line for each finding, and one behind those of a preparation that says what it is.
fn told(findings: &[Finding]) -> String {
    let mut text = String::new();
    for (at, finding) in findings.iter().enumerate() {
        text.push_str(&format!("\n  {finding}"));
        let last = findings.get(at + 1).is_none_or(|next| next.about != finding.about);
        if last && !finding.about.trim().is_empty() {
            text.push_str(&format!("\n  {}", finding.about.trim()));
        }
    }
    text
}

/// Refuses what was found, but for what the user accepts by name.
pub(super) fn refuse(
    dataset: &Dataset,
    files: &Files,
    findings: &[Finding],
    accepted: &[String],
) -> Result<(), RunError> {
    let refused = |finding: &&Finding| {
        let name = finding.preparation.name();
        finding.verdict == Verdict::Wrong && !accepted.iter().any(|accepted| accepted == name)
    };
    let findings: Vec<Finding> = findings.iter().filter(refused).cloned().collect();
    if findings.is_empty() {
        return Ok(());
    }
    Err(RunError::WrongData(Box::new(WrongData {
        dataset: dataset.name.clone(),
        title: dataset.title.clone(),
        root: files.root().to_owned(),
        findings,
    })))
}
