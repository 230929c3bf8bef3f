use std::path::PathBuf;

use thiserror::Error;

use crate::dense::LoadProblem;

/// Every way a policy, its training step or its files can fail.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// A policy without inputs, actions or units in a hidden layer.
    #[error("a policy needs inputs, actions and hidden units, found widths {widths:?}")]
    Widths {
        /// From the input to the action.
        widths: Vec<usize>,
    },
    /// A tensor of another shape than the policy takes.
    #[error("expected {what} of shape {expected}, found {found:?}")]
    Shape {
        /// What the tensor holds.
        what: &'static str,
        /// The shape expected, dimensions named.
        expected: String,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A training batch that is too small to be normalised.
    #[error("expected at least 2 frames to train an input norm on, found a batch of 1")]
    OneRow,
    /// A value that is NaN or infinite. The policy is as it was before.
    #[error(
        "after {updates} steps of training: the {quantity} is {value}; the policy is left as it was"
    )]
    NonFinite {
        /// Steps of training taken.
        updates: u64,
        /// `loss`, `gradient norm`, `sum of the inputs` or `sum of the input's statistics`.
        quantity: &'static str,
        /// The value found.
        value: f64,
    },
    /// Tensors that are not the policy expected.
    #[error("{}: {problem}", origin.display())]
    Load {
        /// The file, or whatever else the tensors came from.
        origin: PathBuf,
        /// What is wrong.
        #[source]
        problem: LoadProblem,
    },
    /// Tensors that are not this policy's saved state. The policy is as it was.
    #[error("the saved state does not fit this policy: {0}")]
    State(#[source] LoadProblem),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
