//! How fast a backbone, the heads and the search are on this machine: `pixio-eval bench`.
//!
//! What is timed is what runs do, on made-up data: one median of repeated runs for each thing, the device
//! waited for.

mod dense;
mod encoder;
mod peak;
mod report;
mod search;
mod timing;

use candle_core::{DType, Device};
use schema::BackboneRecord;

pub use report::{Report, Row};
pub use search::Search;
use timing::Timer;

use crate::backbone::{Backbone, BackboneError, Placement};
use crate::device::{self, DeviceChoice};
use crate::progress::Reporter;
use crate::resolve::{Resolved, Resolver, SourceOptions};
use crate::run::{BatchSize, Placed, RunError, STANDARD};
use crate::upload::Uploader;

/// What can be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A pass of the encoder, at several batch sizes.
    Encoder,
    /// A k-NN search.
    Knn,
    /// A linear head: a training step, and a prediction.
    Linear,
    /// A DPT head: a training step, and a prediction.
    Dpt,
    /// Both heads on one encoded batch.
    Shared,
    /// Validation of whole images with a DPT head.
    Val,
}

impl What {
    /// Every one, in the order in which they are timed.
    pub const ALL: [Self; 6] =
        [Self::Encoder, Self::Knn, Self::Linear, Self::Dpt, Self::Shared, Self::Val];

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Knn => "knn",
            Self::Linear => "linear",
            Self::Dpt => "dpt",
            Self::Shared => "shared",
            Self::Val => "val",
        }
    }
}

/// What to time, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What; nothing stands for everything.
    pub what: Vec<What>,
    /// Backbones, as `--backbone` names them; nothing stands for one that suits the device.
    pub backbones: Vec<String>,
    /// What decides which encoders they are, beside their text.
    pub source: SourceOptions,
    /// Where.
    pub device: DeviceChoice,
    /// Autocast type; none is the device's standard.
    pub dtype: Option<DType>,
    /// Batch sizes of the encoder; nothing stands for a list that suits the device.
    pub batches: Vec<usize>,
    /// Images at a time on a stream; none is as many as fit on a GPU, and the standard on the CPU.
    pub batch_size: Option<BatchSize>,
    /// Data sets whose heads and images are tried.
    pub tasks: Vec<String>,
    /// Protocol of the heads.
    pub protocol: String,
    /// Validation images; none is a number that suits the device.
    pub images: Option<usize>,
    /// Sizes of the search.
    pub search: Search,
    /// Peak of the device, TFLOPS; none is that of a GPU that is known.
    pub peak: Option<f64>,
    /// Seconds to repeat each thing for.
    pub seconds: f64,
}

/// Where everything is timed.
struct Bench<'a> {
    options: &'a Options,
    device: Device,
    uploader: Uploader,
    dtype: DType,
    /// Operations a second, where known.
    peak: Option<f64>,
    reporter: &'a Reporter,
    rows: Vec<Row>,
}

/// A backbone under trial.
struct Subject {
    /// Without `random:`.
    name: String,
    resolved: Resolved,
    record: Option<BackboneRecord>,
    backbone: Box<dyn Backbone>,
}

/// Times what is asked for.
///
/// # Errors
/// If a backbone or the device cannot be used, or anything that is timed fails.
pub fn bench(options: &Options, reporter: &Reporter) -> Result<Report, RunError> {
    let device = device::open(options.device, reporter)?;
    let dtype = device::dtype(options.dtype, &device);
    let hardware = peak::hardware(&device);
    let known = peak::peak(&hardware, dtype).filter(|_| device.is_cuda());
    let peak = options.peak.or(known).map(|tera| tera * 1e12);
    let uploader = Uploader::new(&device).map_err(BackboneError::Candle)?;
    let mut bench = Bench { options, device, uploader, dtype, peak, reporter, rows: Vec::new() };
    if bench.wants(What::Knn) {
        bench.search()?;
    }
    if What::ALL.into_iter().any(|what| what != What::Knn && bench.wants(what)) {
        for spec in bench.backbones() {
            bench.backbone(&spec)?;
        }
    }
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("PIXIO_EVAL_COMMIT"),
        device: device::name(&bench.device),
        hardware,
        dtype: dtype.as_str(),
        threads: device::threads(),
        peak_tflops: bench.peak.map(|peak| peak / 1e12),
        rows: bench.rows,
    })
}

impl Bench<'_> {
    fn wants(&self, what: What) -> bool {
        self.options.what.is_empty() || self.options.what.contains(&what)
    }

    fn timer(&self) -> Timer<'_> {
        Timer { device: &self.device, seconds: self.options.seconds }
    }

    fn backbones(&self) -> Vec<String> {
        let standard = if self.device.is_cuda() { "random:pixio-l" } else { "random:pixio-b" };
        match self.options.backbones.is_empty() {
            true => vec![standard.to_owned()],
            false => self.options.backbones.clone(),
        }
    }

    fn batch_size(&self) -> BatchSize {
        let standard = match self.device.is_cuda() {
            true => BatchSize::Auto,
            false => BatchSize::Images(STANDARD),
        };
        self.options.batch_size.unwrap_or(standard)
    }

    fn backbone(&mut self, spec: &str) -> Result<(), RunError> {
        let resolved = Resolver::new(self.options.source.clone(), self.reporter)?.resolve(spec)?;
        let placement = Placement { device: self.device.clone(), dtype: self.dtype };
        let backbone = resolved.load(&placement)?;
        let name = resolved.name.strip_prefix("random:").unwrap_or(&resolved.name).to_owned();
        let mut subject = Subject { name, resolved, record: None, backbone };
        if self.wants(What::Encoder) {
            self.encoder(&subject)?;
        }
        let heads = [What::Linear, What::Dpt, What::Shared, What::Val];
        if !heads.into_iter().any(|what| self.wants(what)) {
            return Ok(());
        }
        if !subject.resolved.dimensions().patches {
            self.reporter.say(format!("{}: no heads, it has no token grid", subject.name));
            return Ok(());
        }
        subject.record = Some(subject.resolved.record()?);
        for task in &self.options.tasks {
            let rows = self.heads(&subject, task)?;
            self.rows.extend(rows);
            if self.wants(What::Val) {
                let rows = self.validation(&subject, task)?;
                self.rows.extend(rows);
            }
        }
        subject.resolved.release();
        Ok(())
    }
}

impl Subject {
    fn placed<'a>(&'a self, bench: &'a Bench<'_>) -> Option<Placed<'a>> {
        Some(Placed {
            resolved: &self.resolved,
            record: self.record.as_ref()?,
            backbone: &*self.backbone,
            uploader: &bench.uploader,
            dtype: bench.dtype,
        })
    }
}
