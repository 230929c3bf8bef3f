//! `pixio-eval data card`: what a data set is, where each of its files comes from, and what it asks of
//! those who use it.

use std::collections::BTreeSet;
use std::fmt::Write;

use tasks::data::{Citation, Container, Dataset, SourceFile};

/// The card of a data set, for people.
pub(super) fn text(set: &Dataset) -> String {
    let mut out = format!("{}: {}\n", set.name, set.title);
    let classes = set.classes.map(|n| format!(", {n} classes")).unwrap_or_default();
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "  {name:<9} {value}");
    };
    line("task", &format!("{}{classes}", set.task.name()));
    line("licence", &set.licence);
    line("page", &set.source.page);
    if let Some(by) = &set.source.prepared_by {
        line("prepared", &format!("by {by}"));
    }
    let splits: Vec<String> = set.splits.iter().map(|(name, n)| format!("{name} {n}")).collect();
    line("samples", &splits.join(", "));
    line("splits", &set.list.notes);
    for (name, list) in &set.list.pinned {
        line("", &format!("{name}: {} lines, sha256:{}", list.lines, list.sha256));
    }
    if let Some(depth) = set.depth {
        let range = format!("{} to {} m", depth.min_metres, depth.max_metres);
        line("depth", &format!("16-bit PNG, {} steps a metre, {range}", depth.steps_per_metre));
    }
    if let Some(labels) = &set.labels {
        line("labels", &labels.authors);
        if let Some(original) = &labels.original {
            line("", &format!("as published: {original}"));
        }
    }
    out += "\n  As a folder\n";
    for layout in set.layout_on_disk.trim().lines() {
        let _ = writeln!(out, "    {layout}");
    }
    if let Some(in_place) = &set.in_place {
        let kinds: Vec<&str> = in_place.containers.iter().map(|&kind| container(kind)).collect();
        let _ = writeln!(out, "\n  Read in place: {}", kinds.join(", "));
    }
    out += "\n  Files\n";
    out += &files(set);
    if !set.wrong.is_empty() {
        out += "\n  Wrong preparations\n";
        for wrong in &set.wrong {
            let (name, about) = (&wrong.name, &wrong.about);
            let _ = writeln!(out, "    {name}: {about}\n      recognised by: {}", wrong.recognised);
            let _ = writeln!(out, "      instead: {}", wrong.instead);
        }
    }
    if !set.known.is_empty() {
        out += "\n  Files whose content is known\n";
        for file in &set.known {
            let (path, bytes, checksum) = (&file.path, file.bytes, &file.checksum);
            let _ = writeln!(out, "    {path}, {bytes} bytes, {checksum}, by {}", file.by);
        }
    }
    for citation in &set.citations {
        let _ = writeln!(out, "\n  To cite: {}\n{}", citation.of, citation.bibtex.trim());
    }
    out
}

/// The entries of several data sets, each work once.
pub(super) fn bibtex<'a>(sets: impl IntoIterator<Item = &'a Dataset>) -> String {
    let mut told = BTreeSet::new();
    let entries = sets.into_iter().flat_map(|set| &set.citations);
    let entries = entries.filter(|citation| told.insert(key(citation)));
    entries.map(|citation| format!("{}\n", citation.bibtex.trim())).collect::<Vec<_>>().join("\n")
}

fn key(citation: &Citation) -> &str {
    citation.entry().map_or(citation.bibtex.as_str(), |(_, key)| key)
}

fn container(kind: Container) -> &'static str {
    match kind {
        Container::Webdataset => "WebDataset shards (tar)",
        Container::Parquet => "Parquet files",
        Container::Zip => "zip archives",
        Container::Tar => "tar archives",
    }
}

/// A line or two a file. Of files in sets, any one set is enough.
fn files(set: &Dataset) -> String {
    let mut out = String::new();
    let first = set.source.files.iter().find_map(|file| file.set.as_deref());
    for file in &set.source.files {
        let several = file.count.map(|n| format!(" ({n} files)")).unwrap_or_default();
        let of = match file.set.as_deref() {
            Some(name) if Some(name) == first => format!(" [{name}, the first choice]"),
            Some(name) => format!(" [or: {name}]"),
            None => String::new(),
        };
        let _ = writeln!(out, "    {}{several}{of}", file.name);
        for line in [Some(origin(file)), file.how.clone(), content(file)].into_iter().flatten() {
            let _ = writeln!(out, "      {line}");
        }
    }
    out
}

fn origin(file: &SourceFile) -> String {
    match (&file.url, &file.hub, &file.page) {
        (Some(url), ..) => format!("fetched from {url}"),
        (_, Some(hub), _) => {
            let gated = if hub.gated { "; accept its terms on its page first" } else { "" };
            format!("fetched from the Hub: {} at {}{gated}", hub.repository, hub.revision)
        }
        (.., page) => format!("by hand: {}", page.as_deref().unwrap_or_default()),
    }
}

fn content(file: &SourceFile) -> Option<String> {
    let bytes = file.bytes.map(|bytes| format!("{bytes} bytes"));
    let parts: Vec<String> =
        bytes.into_iter().chain(file.checksum.as_ref().map(ToString::to_string)).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
