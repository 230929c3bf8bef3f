//! Plots over runs, for `pixio-eval plot`: what is drawn is found in `data`, gets its places in
//! points in `figure` with the bundled font's measures, and is drawn with plotters.

mod axis;
mod data;
mod draw;
mod export;
mod figure;
mod matrix;
mod rows;
mod scene;
mod style;
mod xy;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use schema::RunRecord;

use crate::store::{Listed, Status};
use crate::{TableError, TableOptions, choose};
pub(crate) use axis::counted;
use figure::Figure;
use scene::{Fonts, Scene};

/// What a plot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bars with 95% intervals, grouped by head.
    Bars,
    /// A metric against the depth of the tapped block (Figure 3 of the Pixio paper).
    Blocks,
    /// A metric against any setting that runs differ in; a heat map for two.
    Setting,
    /// A metric against parameters or images a second, with the Pareto front.
    Pareto,
    /// Training loss and validation metric by epoch; of policies, the score of every task.
    Curves,
    /// IoU of every class.
    Classes,
    /// How a metric is spread over images.
    Errors,
    /// On how many images one backbone beats another.
    Wins,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Bars,
        Self::Blocks,
        Self::Setting,
        Self::Pareto,
        Self::Curves,
        Self::Classes,
        Self::Errors,
        Self::Wins,
    ];

    /// The word for it on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bars => "bars",
            Self::Blocks => "blocks",
            Self::Setting => "setting",
            Self::Pareto => "pareto",
            Self::Curves => "curves",
            Self::Classes => "classes",
            Self::Errors => "errors",
            Self::Wins => "wins",
        }
    }
}

/// A column of a paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Width {
    /// 3.5 inches.
    #[default]
    Single,
    /// 7.2 inches.
    Double,
}

impl Width {
    /// In points (1/72 inch).
    fn points(self) -> f32 {
        match self {
            Self::Single => 252.0,
            Self::Double => 518.4,
        }
    }
}

/// What a backbone costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cost {
    /// Parameters of the encoder.
    #[default]
    Parameters,
    /// Images a second while encoding, where the run measured it.
    Speed,
}

/// What is plotted, and how wide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlotOptions {
    /// Which runs; `selection` and `metrics` are not looked at.
    pub runs: TableOptions,
    /// The metric; none for the one each task is told by: `top1@K` of the smallest k, rmse, mIoU.
    pub metric: Option<String>,
    /// The setting of [`Kind::Setting`]; none for the one that runs differ in.
    pub x: Option<String>,
    /// A second setting, for a heat map.
    pub y: Option<String>,
    /// The horizontal axis of [`Kind::Pareto`].
    pub cost: Cost,
    /// Width of the picture.
    pub width: Width,
    /// The most backbones in one chart, the best of them; none for all, or 40 where each has a look
    /// of its own.
    pub most: Option<usize>,
}

/// Why there is no plot.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// No run to show.
    #[error(transparent)]
    Runs(#[from] TableError),
    /// The runs have nothing that this kind of plot shows.
    #[error("{kind} has nothing to plot: {why}")]
    Nothing {
        /// The kind of plot.
        kind: &'static str,
        /// What is missing.
        why: String,
    },
    /// No backbone has runs with two values of the setting.
    #[error(
        "no backbone has runs that differ in {setting} (it is {value}): one point makes no plot"
    )]
    OnePoint {
        /// The setting.
        setting: String,
        /// Its value.
        value: String,
    },
    /// No run has the setting.
    #[error("no chosen run has the setting `{wanted}`; runs differ in: {}", or_nothing(known))]
    UnknownSetting {
        /// As asked for.
        wanted: String,
        /// What runs differ in.
        known: Vec<String>,
    },
    /// No setting was named and it does not follow from the runs.
    #[error("the runs differ in {}: which is the axis?", or_nothing(known))]
    WhichSetting {
        /// What runs differ in.
        known: Vec<String>,
    },
    /// The font that is part of the program cannot be read.
    #[error("the built-in font cannot be read")]
    Font(#[from] ab_glyph::InvalidFont),
    /// The PNG cannot be written.
    #[error("writing the PNG")]
    Png(#[from] png::EncodingError),
    /// plotters or the converter to PDF failed.
    #[error("the plot cannot be drawn: {0}")]
    Drawing(String),
}

fn or_nothing(known: &[String]) -> String {
    if known.is_empty() { "nothing".to_owned() } else { known.join(", ") }
}

/// Finished runs and where they lie.
#[derive(Debug, Default)]
pub struct Runs {
    records: Vec<RunRecord>,
    folders: Vec<PathBuf>,
}

/// One finished run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) record: &'a RunRecord,
    pub(crate) folder: &'a Path,
}

impl Runs {
    /// The finished ones of listed runs.
    pub fn finished(listed: Vec<Listed>) -> Self {
        let mut runs = Self::default();
        for run in listed {
            if let Status::Finished(record) = run.status {
                runs.records.push(*record);
                runs.folders.push(run.folder);
            }
        }
        runs
    }

    /// Those that the options let through; a run given twice once, as it was last finished.
    pub(crate) fn chosen(&self, options: &TableOptions) -> Result<Vec<Run<'_>>, TableError> {
        let places: HashMap<*const RunRecord, &Path> = self
            .records
            .iter()
            .map(std::ptr::from_ref)
            .zip(self.folders.iter().map(PathBuf::as_path))
            .collect();
        let chosen = choose(&self.records, options)?.into_iter();
        Ok(chosen
            .filter_map(|record| {
                Some(Run { record, folder: places.get(&std::ptr::from_ref(record))? })
            })
            .collect())
    }
}

/// A figure with everything at its place.
pub struct Plot {
    scene: Scene,
    fonts: Fonts,
}

/// Finds, measures and places what a plot shows.
///
/// # Errors
/// [`PlotError`] when there is nothing to show.
pub fn plot(runs: &Runs, kind: Kind, options: &PlotOptions) -> Result<Plot, PlotError> {
    let metrics = options.metric.iter().cloned().collect();
    let chosen = runs.chosen(&TableOptions { metrics, ..options.runs.clone() })?;
    figure(&chosen, kind, options)
}

/// The plot of runs that are already chosen.
pub(crate) fn figure(
    runs: &[Run<'_>],
    kind: Kind,
    options: &PlotOptions,
) -> Result<Plot, PlotError> {
    let figure: Figure = data::find(runs, kind, options)?;
    let fonts = Fonts::load()?;
    let double = options.width == Width::Double;
    Ok(Plot { scene: figure.layout(&fonts, options.width.points(), double), fonts })
}

impl Plot {
    /// An SVG file. Its text states how wide it is, so that a viewer without Noto Sans keeps every
    /// label in its place.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn svg(&self) -> Result<String, PlotError> {
        export::svg(&self.scene, &self.fonts)
    }

    /// A PNG file of 300 dots an inch.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        export::png(&self.scene, &self.fonts)
    }

    /// A PDF file of the plot's size; its letters are outlines.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn pdf(&self) -> Result<Vec<u8>, PlotError> {
        export::pdf(&self.scene, &self.fonts)
    }
}
