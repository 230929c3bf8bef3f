use std::path::PathBuf;

use thiserror::Error;

/// Every way a dense head, its training step or its files can fail.
#[derive(Debug, Error)]
pub enum HeadError {
    /// Features of another number of blocks than the head takes.
    #[error("the head takes {expected} taps, found {found}")]
    TapCount {
        /// Taps the head takes.
        expected: usize,
        /// Taps found.
        found: usize,
    },
    /// A tensor of another shape than the computation takes.
    #[error("expected {what} of shape {expected}, found {found:?}")]
    Shape {
        /// What the tensor holds.
        what: &'static str,
        /// The shape expected, dimensions named.
        expected: String,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A batch that does not divide into loss groups.
    #[error("a batch of {batch} samples does not divide into {groups} loss groups")]
    Groups {
        /// Samples of the batch.
        batch: usize,
        /// Groups asked for.
        groups: usize,
    },
    /// Depth where labels are needed, or the reverse.
    #[error("the objective needs {expected} as targets, found {found}")]
    TargetKind {
        /// What the objective needs.
        expected: &'static str,
        /// What was given.
        found: &'static str,
    },
    /// A label that is neither a class nor the ignored value.
    #[error(
        "sample {sample} of the batch has label {label}: expected 0 to {classes} - 1, or {ignore} (ignored)"
    )]
    Label {
        /// Sample of the batch.
        sample: usize,
        /// The label found.
        label: u8,
        /// Number of classes.
        classes: usize,
        /// The ignored label.
        ignore: u8,
    },
    /// A head with another number of outputs than the objective takes.
    #[error("the objective needs {expected} outputs, the head has {found}")]
    Outputs {
        /// Outputs the objective needs.
        expected: usize,
        /// Outputs of the head.
        found: usize,
    },
    /// A loss or gradient that is NaN or infinite. The probe is as it was before the step, unless the
    /// step was deferred.
    #[error("step {step}: the {quantity} is {value}")]
    NonFinite {
        /// Index of the step that was not taken.
        step: u64,
        /// `loss` or `gradient norm`.
        quantity: &'static str,
        /// The value found.
        value: f64,
    },
    /// Tensors that are not the head expected.
    #[error("{}: {problem}", origin.display())]
    Load {
        /// The file, or whatever else the tensors came from.
        origin: PathBuf,
        /// What is wrong.
        #[source]
        problem: LoadProblem,
    },
    /// Tensors that are not this probe's saved state. The probe is as it was.
    #[error("the saved state does not fit this probe: {0}")]
    State(#[source] LoadProblem),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Every way a set of named tensors can fail to be what it should.
#[derive(Debug, Error)]
pub enum LoadProblem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The bytes are no safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// Tensors of a type that heads are not stored in.
    #[error("tensor {name} is {found}: expected F32, F16, BF16 or F64 (or I64 for a counter)")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The other kind of head, or none.
    #[error("expected a {expected} head (with a tensor {marker}), found {found}")]
    Kind {
        /// The kind expected.
        expected: &'static str,
        /// A tensor that tells this kind from others.
        marker: &'static str,
        /// What was found instead.
        found: &'static str,
    },
    /// A head for features of another width.
    #[error("the head takes features of width {found}, expected {expected}")]
    Width {
        /// Width of the features at hand.
        expected: usize,
        /// Width the head was made for.
        found: usize,
    },
    /// A head for another number of classes.
    #[error("the head has {found} outputs, expected {expected}")]
    Outputs {
        /// Outputs needed.
        expected: usize,
        /// Outputs of the head.
        found: usize,
    },
    /// A tensor that should be there and is not.
    #[error("tensor {name} is missing")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// Tensors that belong to nothing.
    #[error("unexpected tensors: {}", names.join(", "))]
    Unexpected {
        /// Their names, sorted.
        names: Vec<String>,
    },
    /// A tensor of another shape.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape expected.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A counter that counts nothing.
    #[error("counter {name} is {found}: expected 0 or more")]
    Counter {
        /// The tensor.
        name: String,
        /// The value found.
        found: i64,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
