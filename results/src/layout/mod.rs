//! Tables in a chosen layout: rows are backbones, columns are named metrics of named tasks. Those
//! built in follow the tables of the Pixio paper (arXiv 2512.15715), whose published figures can stand
//! above ours; a user's own is a TOML file of the same form (`results/layouts/*.toml`):
//!
//! ```toml
//! caption = "Depth."
//! backbones = ["pixio-l", "pixio-b"]  # the rows and their order; left out: every backbone, by name
//! names = { pixio-l = "Pixio, large" } # shown in place of the recorded name
//! published = ["1"]                   # tables of the paper for --published
//! selection = "best"                  # last, best or best-each (the paper's, and the default)
//! blocks = true                       # a row for each block that the heads read
//!
//! [[column]]
//! group = "NYUv2, DPT"                # stands over neighbouring columns of the same group
//! heading = "RMSE"
//! dataset = "nyuv2"
//! head = "dpt"
//! metric = "rmse"                     # top1, top5: at the smallest k
//! decimals = 3
//! ```

mod average;
mod grid;
mod long;
mod published;
mod show;

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use polars::prelude::PolarsError;
use schema::{RunRecord, Selection, describe};
use serde::Deserialize;

use crate::table::Format;
use grid::{Grid, grids};
use published::Published;

const BUILTIN: [(&str, &str); 6] = [
    ("depth", include_str!("../../layouts/depth.toml")),
    ("segmentation", include_str!("../../layouts/segmentation.toml")),
    ("cortexbench", include_str!("../../layouts/cortexbench.toml")),
    ("sizes", include_str!("../../layouts/sizes.toml")),
    ("blocks", include_str!("../../layouts/blocks.toml")),
    ("ablation", include_str!("../../layouts/ablation.toml")),
];

/// What a table shows, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Its caption.
    caption: String,
    /// Backbones by their recorded name, in the order of the rows; empty for all, by name.
    #[serde(default)]
    backbones: Vec<String>,
    /// Tables of the paper whose figures can be shown, by number.
    #[serde(default)]
    published: Vec<String>,
    /// Names shown in place of the recorded ones.
    #[serde(default)]
    names: BTreeMap<String, String>,
    /// The epoch shown; none for `best-each`, as the paper.
    #[serde(default)]
    selection: Option<Selection>,
    /// Whether each block that the heads read has a row, as in the paper's Tables 11 and 12.
    #[serde(default)]
    blocks: bool,
    /// The columns.
    #[serde(rename = "column")]
    columns: Vec<LayoutColumn>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutColumn {
    /// Stands over neighbouring columns of the same group.
    #[serde(default)]
    group: String,
    heading: String,
    dataset: String,
    head: String,
    /// `top1` and `top5` stand for the run's smallest k.
    metric: String,
    /// Digits after the point.
    decimals: usize,
}

/// What a table in a layout shows beside its runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayoutOptions {
    /// The paper's figures above our runs, and the difference to the same backbone's.
    pub published: bool,
    /// 95% intervals over images.
    pub intervals: bool,
    /// One row for all seeds: mean and standard deviation of training again.
    pub mean_over_seeds: bool,
    /// The epoch shown, in place of the layout's.
    pub selection: Option<Selection>,
}

/// Why there is no table in a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Neither the name of a layout that is built in nor a file.
    #[error(
        "there is no layout `{0}` and no such file; there are wide, depth, segmentation, cortexbench, sizes, blocks and ablation"
    )]
    Unknown(String),
    /// The file cannot be read.
    #[error("cannot read the layout {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is no layout.
    #[error("{path} is not a layout: {source}")]
    Toml {
        /// The file, or the name of a layout that is built in.
        path: String,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// The layout has no column.
    #[error("{path} has no [[column]]")]
    NoColumns {
        /// The file.
        path: String,
    },
    /// A column of a metric that no task has.
    #[error(
        "{path} has a column of the metric {metric:?}; there are top1 and top5 (or top1@K), delta1 to \
         delta3, abs_rel, sq_rel, rmse, rmse_log, log10, silog, miou, pixel_acc, iou/CLASS and score"
    )]
    UnknownMetric {
        /// The file.
        path: String,
        /// As it is there.
        metric: String,
    },
    /// The embedded figures are damaged.
    #[error(
        "line {line} of the published figures is {found:?}, expected 8 fields, the last a number"
    )]
    Published {
        /// Line of the file, from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// Neither published figures nor a run fits the layout.
    #[error("no finished run has a cell of this layout; --published shows the paper's figures")]
    Empty,
    /// polars could not write the table.
    #[error("the table cannot be written: {0}")]
    Polars(#[from] PolarsError),
    /// serde_json could not write the table.
    #[error("the table cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

impl Layout {
    /// A layout that is built in, by name, else the one in a file.
    ///
    /// # Errors
    /// When there is no such layout or file, or the file is no layout.
    pub fn open(name: &str) -> Result<Self, LayoutError> {
        if let Some((name, text)) = BUILTIN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        match std::fs::read_to_string(Path::new(name)) {
            Ok(text) => Self::parse(name, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(LayoutError::Unknown(name.to_owned()))
            }
            Err(source) => Err(LayoutError::Io { path: name.to_owned(), source }),
        }
    }

    fn parse(path: &str, text: &str) -> Result<Self, LayoutError> {
        let layout: Self = toml::from_str(text).map_err(|source| LayoutError::Toml {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        if layout.columns.is_empty() {
            return Err(LayoutError::NoColumns { path: path.to_owned() });
        }
        match layout.columns.iter().find(|column| !column.is_known()) {
            Some(column) => Err(LayoutError::UnknownMetric {
                path: path.to_owned(),
                metric: column.metric.clone(),
            }),
            None => Ok(layout),
        }
    }

    /// The table of these runs, those on sample data in one of their own. In csv, json and parquet it is
    /// the long form: a row for each of its cells, at full precision.
    ///
    /// # Errors
    /// [`LayoutError::Empty`], or when the format cannot be written.
    pub fn render(
        &self,
        records: &[RunRecord],
        options: LayoutOptions,
        format: Format,
    ) -> Result<Vec<u8>, LayoutError> {
        let figures = match options.published {
            true => Published::builtin()?,
            false => Published::default(),
        };
        let grids = grids(self, records, &figures, options);
        if grids.is_empty() {
            return Err(LayoutError::Empty);
        }
        let shown = |show: fn(&Layout, &Grid) -> String| {
            let tables: Vec<String> = grids.iter().map(|grid| show(self, grid)).collect();
            Ok(tables.join("\n").into_bytes())
        };
        match format {
            Format::Text => shown(show::to_text),
            Format::Markdown => shown(show::to_markdown),
            Format::Latex => shown(show::to_latex),
            Format::Html => shown(show::to_html),
            Format::Csv => long::to_csv(&grids),
            Format::Json => long::to_json(&grids),
            Format::Parquet => long::to_parquet(&grids),
        }
    }
}

impl LayoutColumn {
    /// The metric that describes the column's: `top1` has the unit and direction of any `top1@K`.
    fn described(&self) -> &str {
        if matches!(&*self.metric, "top1" | "top5") { "top1@1" } else { &self.metric }
    }

    /// Whether its runs are of policies.
    fn is_policy(&self) -> bool {
        self.metric == "score"
    }

    fn is_known(&self) -> bool {
        describe(self.described()).is_some()
    }
}

impl FromStr for Layout {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        Self::parse("the layout", text)
    }
}

#[cfg(test)]
mod compiles;
#[cfg(test)]
mod tests;
