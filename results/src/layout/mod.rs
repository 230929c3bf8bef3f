//! Tables in a chosen layout: rows are backbones, columns are named metrics of named tasks. Those
//! built in follow the tables of the Pixio paper (arXiv 2512.15715), whose published figures can stand
//! above ours; a user's own is a TOML file of the same form (`results/layouts/*.toml`).

mod grid;
mod published;
mod show;

use std::path::Path;
use std::str::FromStr;

use schema::RunRecord;
use serde::Deserialize;

use crate::table::Format;
use grid::grids;
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
    /// A format that holds one row a value.
    #[error("--layout and --published arrange text, md, latex and html; {0} is the long form")]
    LongForm(Format),
    /// Neither published figures nor a run fits the layout.
    #[error("no finished run has a cell of this layout; --published shows the paper's figures")]
    Empty,
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
        match layout.columns.is_empty() {
            true => Err(LayoutError::NoColumns { path: path.to_owned() }),
            false => Ok(layout),
        }
    }

    /// The table of these runs, those on sample data in one of their own; with `published`, below the
    /// figures of the paper and with the difference to the same backbone's.
    ///
    /// # Errors
    /// [`LayoutError::Empty`] and [`LayoutError::LongForm`].
    pub fn render(
        &self,
        records: &[RunRecord],
        published: bool,
        format: Format,
    ) -> Result<Vec<u8>, LayoutError> {
        let figures = match published {
            true => Published::builtin()?,
            false => Published::default(),
        };
        let grids = grids(self, records, &figures);
        if grids.is_empty() {
            return Err(LayoutError::Empty);
        }
        let tables: Option<Vec<String>> =
            grids.iter().map(|grid| show::table(self, grid, format)).collect();
        Ok(tables.ok_or(LayoutError::LongForm(format))?.join("\n").into_bytes())
    }
}

impl FromStr for Layout {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        Self::parse("the layout", text)
    }
}

#[cfg(test)]
mod tests;
