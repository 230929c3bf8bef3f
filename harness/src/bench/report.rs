//! What was measured, for people and for programs.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::timing::Times;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was timed, as `scripts/gpu_peer.py` names it too, for example `dpt step nyuv2 pixio-l`.
    pub key: String,
    /// Images, samples, windows or queries at a time.
    pub batch: usize,
    /// What the seconds are of: `image`, `step`, `batch` or `search`.
    pub unit: &'static str,
    /// Seconds of one unit.
    #[serde(flatten)]
    pub times: Times,
    /// Floating-point operations a second (a multiplication and an addition are two), where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
    /// Share of the device's peak, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<f64>,
    /// How much of what sharing a pass can save is saved: what the parts take alone, over what they take
    /// together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_bound: Option<f64>,
}

/// What `pixio-eval bench` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the program.
    pub version: &'static str,
    /// Of the program.
    pub commit: &'static str,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// The GPU's or the processor's model.
    pub hardware: String,
    /// Autocast type.
    pub dtype: &'static str,
    /// Threads of the CPU.
    pub threads: usize,
    /// What the device could do at most, where it is known.
    pub peak_tflops: Option<f64>,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}

impl Row {
    pub(super) fn new(key: String, batch: usize, unit: &'static str, times: Times) -> Self {
        let (flops, utilisation, share_of_bound) = (None, None, None);
        Self { key, batch, unit, times, flops, utilisation, share_of_bound }
    }

    /// With `flops` operations a unit, on a device with that peak of operations a second.
    pub(super) fn counted(self, flops: Option<f64>, peak: Option<f64>) -> Self {
        let flops = flops.map(|flops| flops / self.times.seconds);
        let utilisation = flops.zip(peak).map(|(flops, peak)| flops / peak);
        Self { flops, utilisation, ..self }
    }

    fn speed(&self) -> String {
        let seconds = self.times.seconds;
        match self.unit {
            "image" if seconds < 0.1 => format!("{:.1} images/s", 1.0 / seconds),
            unit if seconds < 1.0 => format!("{:.2} ms/{unit}", 1e3 * seconds),
            unit => format!("{seconds:.3} s/{unit}"),
        }
    }
}

impl Report {
    /// As a table.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "what",
            "at a time",
            "speed",
            "spread",
            "TFLOP/s",
            "of peak",
            "of bound",
        ]);
        for row in &self.rows {
            let percent = |share: Option<f64>| {
                share.map(|share| format!("{:.1}%", 100.0 * share)).unwrap_or_default()
            };
            let tera = row.flops.map(|flops| format!("{:.3}", flops / 1e12));
            table.add_row([
                row.key.clone(),
                row.batch.to_string(),
                row.speed(),
                format!("±{:.1}%", row.times.spread()),
                tera.unwrap_or_default(),
                percent(row.utilisation),
                percent(row.share_of_bound),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let Self { device, hardware, dtype, threads, .. } = self;
        let peak = match self.peak_tflops {
            Some(peak) => format!("; peak {peak} TFLOPS"),
            None => String::new(),
        };
        format!(
            "{table}\n{hardware} ({device}), {dtype}, {threads} CPU threads{peak}. Medians; spread: half the \
             distance of the quartiles.\n"
        )
    }
}
