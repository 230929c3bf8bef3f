//! What the data sets of the runs ask of those who use them.

use std::collections::BTreeSet;

use crate::plot::Run;
use crate::table::escape_html;

/// A data set's terms, and what to cite where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its name in records.
    pub name: String,
    /// The name it was published under.
    pub title: String,
    /// Its licence or terms.
    pub licence: String,
    /// BibTeX entries of what to cite.
    pub citations: Vec<String>,
}

/// The data sets that real runs used, in the order of `known`, and the entries to copy, each once. Generated
/// data is nobody's.
pub(super) fn section(runs: &[Run<'_>], known: &[Terms]) -> String {
    let used: BTreeSet<&str> = runs
        .iter()
        .map(|run| &run.record.plan.data)
        .filter(|data| !data.sample)
        .map(|data| data.name.as_str())
        .collect();
    if used.is_empty() {
        return "<p>No run used a published data set.</p>\n".to_owned();
    }
    let (mut out, mut entries) = (String::from("<dl>\n"), Vec::<&str>::new());
    for terms in known.iter().filter(|terms| used.contains(terms.name.as_str())) {
        let title = format!("{} ({})", terms.title, terms.name);
        out +=
            &format!("<dt>{}</dt><dd>{}</dd>\n", escape_html(&title), escape_html(&terms.licence));
        for entry in &terms.citations {
            if !entries.contains(&entry.as_str()) {
                entries.push(entry.as_str());
            }
        }
    }
    for name in used.iter().filter(|name| known.iter().all(|terms| terms.name != **name)) {
        out += &format!("<dt>{}</dt><dd>unknown to this version</dd>\n", escape_html(name));
    }
    out += "</dl>\n";
    if !entries.is_empty() {
        // Line by line: an escaped text is on one.
        let lines: Vec<String> =
            entries.join("\n\n").lines().map(|line| escape_html(line).to_string()).collect();
        let text = lines.join("\n");
        out += &format!("<p>To cite, in BibTeX:</p>\n<pre class=\"bibtex\">{text}</pre>\n");
    }
    out
}
