//! Tables over records: which runs, in which format.

mod csv;
mod html;
mod json;
mod latex;
mod markdown;
mod parquet;
mod terminal;
mod wide;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use polars::prelude::PolarsError;
use schema::{Fingerprint, Outcome, RunRecord, Selection};

pub(crate) use csv::disarm;
pub(crate) use html::escape as escape_html;
pub(crate) use latex::escape as escape_latex;
pub(crate) use markdown::escape as escape_markdown;
pub(crate) use wide::{SAMPLE, letter};

use crate::headline::{default_metrics, selection};
use crate::text::shown_protocol;

/// What a table can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// For the terminal: boxes, at most 100 columns wide where the names allow it.
    Text,
    /// GitHub's Markdown.
    Markdown,
    /// LaTeX with booktabs, ready for `\input`.
    Latex,
    /// HTML tables, for a page that styles them.
    Html,
    /// Long form, comma-separated, full precision.
    Csv,
    /// Long form, an array of objects; numbers that are not finite are null.
    Json,
    /// Long form, Parquet.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Text, Self::Markdown, Self::Latex, Self::Html, Self::Csv, Self::Json, Self::Parquet];

    /// The word for it on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "md",
            Self::Latex => "latex",
            Self::Html => "html",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }

    /// Whether a metric is a column, not a row.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::Text | Self::Markdown | Self::Latex | Self::Html)
    }

    fn exporter(self) -> &'static dyn Exporter {
        match self {
            Self::Text => &terminal::Text,
            Self::Markdown => &markdown::Markdown,
            Self::Latex => &latex::Latex,
            Self::Html => &html::Html,
            Self::Csv => &csv::Csv,
            Self::Json => &json::Json,
            Self::Parquet => &parquet::Parquet,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no [`Format`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no table format `{0}`; there are text, md, latex, html, csv, json and parquet")]
pub struct UnknownFormat(pub String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        let named = |format: &Self| format.as_str() == word;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownFormat(word.to_owned()))
    }
}

/// Which runs a table shows, and which of their numbers; an empty list lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Data sets, for example `imagenet1k`.
    pub datasets: Vec<String>,
    /// Heads, for example `knn`.
    pub heads: Vec<String>,
    /// Backbones by their recorded name, for example `random:pixio-nano`.
    pub backbones: Vec<String>,
    /// Protocols by their whole name, for example `pixio+limit=100`.
    pub protocols: Vec<String>,
    /// The selection shown; a run that has no epochs shows `last` whatever is asked. `None`: `best`
    /// in the wide formats, every one in the long form.
    pub selection: Option<Selection>,
    /// Metrics by name, in the order of the wide formats' columns. Empty: in the wide formats those
    /// the task is published with, in the long form every one.
    pub metrics: Vec<String>,
    /// Whether the wide formats show 95% intervals behind the values; the long form always has them.
    pub intervals: bool,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No finished run was given.
    #[error("there is no finished run to show; `pixio-eval all --sample` makes one")]
    NoRuns,
    /// A filter names something that no run has.
    #[error("no finished run has {what} `{wanted}`; there are: {}", known.join(", "))]
    Unknown {
        /// What was filtered: `data set`, `head`, `backbone`, `protocol` or `metric`.
        what: &'static str,
        /// The filter's word.
        wanted: String,
        /// What the runs have instead.
        known: Vec<String>,
    },
    /// Each filter lets some run through, all of them together none.
    #[error("no finished run matches all the filters at once")]
    NothingMatches,
    /// polars could not write the table.
    #[error("the table cannot be written: {0}")]
    Polars(#[from] PolarsError),
    /// serde_json could not write the table.
    #[error("the table cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes a table in one format. To add a format: a file with an implementation, and a line in
/// [`Format`].
pub trait Exporter {
    /// The table over `records`, which are already chosen, of different keys and at least one. They
    /// hold the metrics to show; for a wide format those of one selection a record.
    ///
    /// # Errors
    /// When the format cannot be written.
    fn export(&self, records: &[&RunRecord]) -> Result<Vec<u8>, TableError>;
}

/// The table over the records that `options` lets through. A run given twice (same key) is shown
/// once, as it was last finished.
///
/// # Errors
/// [`TableError::NoRuns`], [`TableError::Unknown`] and [`TableError::NothingMatches`] when there is
/// nothing to show.
pub fn render(
    records: &[RunRecord],
    format: Format,
    options: &TableOptions,
) -> Result<Vec<u8>, TableError> {
    let shown = choose(records, options)?.into_iter().map(|record| narrow(record, format, options));
    let shown: Vec<RunRecord> = shown
        .filter(|record| options.metrics.is_empty() || !record.outcome.metrics.is_empty())
        .collect();
    match shown.is_empty() {
        true => Err(TableError::NothingMatches),
        false => format.exporter().export(&shown.iter().collect::<Vec<_>>()),
    }
}

/// The record with the metrics to show and without its curve.
fn narrow(record: &RunRecord, format: Format, options: &TableOptions) -> RunRecord {
    let asked: Vec<&str> = match options.metrics.as_slice() {
        [] if format.is_wide() => default_metrics(&record.plan).to_vec(),
        asked => asked.iter().map(String::as_str).collect(),
    };
    let one = (format.is_wide() || options.selection.is_some())
        .then(|| selection(record, options.selection));
    let outcome = &record.outcome;
    let mut metrics = outcome.metrics.clone();
    metrics.retain(|metric| {
        one.is_none_or(|one| metric.selection == one)
            && (asked.is_empty() || asked.contains(&metric.name.as_str()))
    });
    if format.is_wide() && !options.intervals {
        metrics.iter_mut().for_each(|metric| (metric.ci_low, metric.ci_high) = (None, None));
    }
    if format.is_wide() {
        metrics.sort_by_key(|metric| asked.iter().position(|name| *name == metric.name));
    }
    let outcome = Outcome { metrics, curve: Vec::new(), ..outcome.clone() };
    RunRecord { outcome, ..record.clone() }
}

/// The records that `options` lets through, by key; a run given twice once, as it was last finished.
///
/// # Errors
/// As [`render`].
pub fn choose<'a>(
    records: &'a [RunRecord],
    options: &TableOptions,
) -> Result<Vec<&'a RunRecord>, TableError> {
    if records.is_empty() {
        return Err(TableError::NoRuns);
    }
    type Get = fn(&RunRecord) -> String;
    let filters: [(&'static str, &[String], Get); 4] = [
        ("data set", &options.datasets, |record| record.plan.task.dataset.clone()),
        ("head", &options.heads, |record| record.plan.task.head.clone()),
        ("backbone", &options.backbones, |record| record.plan.backbone.name.clone()),
        ("protocol", &options.protocols, |record| shown_protocol(&record.plan)),
    ];
    for (what, wanted, get) in filters {
        let mut known: Vec<String> = records.iter().map(get).collect();
        known.sort();
        known.dedup();
        if let Some(wanted) = wanted.iter().find(|wanted| !known.contains(wanted)) {
            return Err(TableError::Unknown { what, wanted: wanted.clone(), known });
        }
    }
    if let Some(wanted) = options.metrics.iter().find(|wanted| {
        !records.iter().any(|r| r.outcome.metrics.iter().any(|metric| metric.name == **wanted))
    }) {
        let known = metric_names(records);
        return Err(TableError::Unknown { what: "metric", wanted: wanted.clone(), known });
    }
    let mut chosen: BTreeMap<Fingerprint, &RunRecord> = BTreeMap::new();
    for record in records {
        let passes = |&(_, wanted, get): &(_, &[String], Get)| {
            wanted.is_empty() || wanted.contains(&get(record))
        };
        if !filters.iter().all(passes) {
            continue;
        }
        let shown = chosen.entry(record.plan.key()).or_insert(record);
        if record.outcome.finished > shown.outcome.finished {
            *shown = record;
        }
    }
    match chosen.is_empty() {
        true => Err(TableError::NothingMatches),
        false => Ok(chosen.into_values().collect()),
    }
}

/// Names of the metrics that any record has, those by class in one word.
fn metric_names(records: &[RunRecord]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for metric in records.iter().flat_map(|record| &record.outcome.metrics) {
        let name = match metric.name.split_once('/') {
            Some((base, _)) => format!("{base}/CLASS"),
            None => metric.name.clone(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{mixed_records, record, records, without_epochs};

    fn backbones(options: &TableOptions) -> Vec<String> {
        let records = records();
        let chosen = choose(&records, options).unwrap();
        let mut names: Vec<_> = chosen.iter().map(|r| r.plan.backbone.name.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn filters_choose() {
        let some = |word: &str| vec![word.to_owned()];
        let all = TableOptions::default();
        assert_eq!(backbones(&all).len(), 4);
        let sample = TableOptions { protocols: some("sample"), ..TableOptions::default() };
        assert_eq!(backbones(&sample), ["random:pixio-nano"]);
        let two = vec!["pixio-b".to_owned(), "pixio-l".to_owned()];
        let two = TableOptions {
            backbones: two,
            heads: some("knn"),
            datasets: some("imagenet1k"),
            ..all
        };
        assert_eq!(backbones(&two), ["pixio-b", "pixio-l"]);
    }

    #[test]
    fn nothing_to_show_says_what_to_do() {
        let fails = |records: &[RunRecord], options: &TableOptions| {
            choose(records, options).unwrap_err().to_string()
        };
        insta::assert_snapshot!(fails(&[], &TableOptions::default()), @"there is no finished run to show; `pixio-eval all --sample` makes one");
        let mut options =
            TableOptions { backbones: vec!["pixio-h".to_owned()], ..TableOptions::default() };
        insta::assert_snapshot!(fails(&records(), &options), @"no finished run has backbone `pixio-h`; there are: pixio-b, pixio-l, random:pixio-nano");
        options.backbones = vec!["pixio-b".to_owned()];
        options.protocols = vec!["sample".to_owned()];
        insta::assert_snapshot!(fails(&records(), &options), @"no finished run matches all the filters at once");
    }

    /// Data set, head, metric and selection of the long form's rows.
    fn long(options: &TableOptions) -> Vec<String> {
        let mut records = mixed_records();
        records.push(without_epochs(crate::fixtures::dense_record("pixio-h", "nyuv2", "dpt", 1.0)));
        let table = String::from_utf8(render(&records, Format::Csv, options).unwrap()).unwrap();
        let row = |line: &str| {
            let cells: Vec<_> = line.split(',').collect();
            format!("{} {}/{} {} {}", cells[0], cells[1], cells[2], cells[5], cells[9])
        };
        table.lines().skip(1).map(row).collect()
    }

    #[test]
    fn the_long_form_has_every_metric_and_selection_unless_asked() {
        let all = long(&TableOptions::default());
        assert_eq!(all.len(), 2 * 8 + 4 * 3 * 9 + 3 * 3 * 4 + 9);
        for selection in ["last", "best", "best-each"] {
            assert!(all.contains(&format!("pixio-b ade20k/dpt iou/wall {selection}")));
        }
        let options = TableOptions {
            selection: Some(Selection::BestEach),
            metrics: ["rmse", "top1@10"].map(str::to_owned).into(),
            ..TableOptions::default()
        };
        insta::assert_snapshot!(long(&options).join("\n"), @r"
        pixio-b imagenet1k/knn top1@10 last
        pixio-l imagenet1k/knn top1@10 last
        pixio-b nyuv2/dpt rmse best-each
        pixio-l nyuv2/dpt rmse best-each
        pixio-h nyuv2/dpt rmse last
        pixio-b nyuv2/linear rmse best-each
        pixio-l nyuv2/linear rmse best-each
        ");
    }

    #[test]
    fn a_metric_that_no_run_has_is_refused() {
        let options = TableOptions { metrics: vec!["iou".to_owned()], ..TableOptions::default() };
        let error = render(&mixed_records(), Format::Text, &options).unwrap_err();
        insta::assert_snapshot!(error, @"no finished run has metric `iou`; there are: top1@10, top5@10, top1@20, top5@20, top1@100, top5@100, top1@200, top5@200, delta1, delta2, delta3, abs_rel, sq_rel, rmse, rmse_log, log10, silog, miou, pixel_acc, iou/CLASS");
        let options = TableOptions {
            metrics: vec!["miou".to_owned()],
            heads: vec!["knn".to_owned()],
            ..TableOptions::default()
        };
        let error = render(&mixed_records(), Format::Text, &options).unwrap_err();
        assert!(matches!(error, TableError::NothingMatches), "{error}");
    }

    #[test]
    fn a_run_given_twice_is_shown_once_as_last_finished() {
        let mut late = record("pixio-b", 41.0);
        late.outcome.finished = "2026-01-02T00:00:00Z".to_owned();
        for records in [[record("pixio-b", 40.0), late.clone()], [late, record("pixio-b", 40.0)]] {
            let chosen = choose(&records, &TableOptions::default()).unwrap();
            assert_eq!(
                chosen.iter().map(|r| r.outcome.metrics[0].value).collect::<Vec<_>>(),
                [41.0]
            );
        }
    }

    #[test]
    fn formats_are_found_by_their_word() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "xlsx".parse::<Format>().unwrap_err().to_string();
        for format in Format::ALL {
            assert!(error.contains(format.as_str()), "{error}");
        }
    }
}
