//! Backbones: frozen encoders behind one question, "what are the tokens after these blocks?"
//!
//! A family is one file (its config reader and its name map) and one entry in [`families`]. A vision
//! transformer says what it is made of (`encoder.rs`), over the blocks of `transformer.rs` and the
//! position resize of `position.rs`; anything else implements [`Backbone`] itself. None is taken from
//! candle-transformers: taps of blocks, images of other sizes and shapes, and the kernels of our own operations
//! cannot be reached through it. The head of each file says what else speaks against it.

mod clip;
mod config;
mod counted;
mod depth_anything;
mod dinov2;
mod dinov3;
mod encoder;
pub mod families;
mod mae;
mod names;
mod pixels;
pub mod pixio;
mod pooling;
mod position;
mod r3m;
mod sam;
mod siglip;
mod state;
mod theia;
mod transformer;
mod vc1;
mod vit;

use candle_core::{DType, Device, Tensor};

pub(crate) use counted::Counted;
pub use counted::encoded;
pub(crate) use encoder::evaluation_side;

use crate::python::WorkerError;

/// Size and make of an encoder, as far as callers need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimensions {
    /// Number of blocks that can be tapped.
    pub blocks: usize,
    /// Width of a token.
    pub width: usize,
    /// Side of a patch in pixels; image sides must be multiples of it.
    pub patch: usize,
    /// Side of the square image it is evaluated on unless backbones.toml says otherwise, in pixels.
    pub resolution: usize,
    /// Number of summary (class) tokens; 0 when there are none.
    pub summary_tokens: usize,
    /// Number of register tokens, which no head sees.
    pub registers: usize,
    /// Whether it has patch tokens.
    pub patches: bool,
    /// Width of the tokens of its own output head, if it has one.
    pub pooled: Option<usize>,
}

/// Which tokens of a tapped block to return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Patch tokens of the residual stream.
    pub patches: bool,
    /// Patch tokens after the encoder's final norm.
    pub patches_norm: bool,
    /// Summary tokens of the residual stream.
    pub summary: bool,
    /// Summary tokens after the encoder's final norm.
    pub summary_norm: bool,
    /// The tokens of the encoder's own output head.
    pub pooled: bool,
}

impl Wanted {
    /// Everything.
    pub const ALL: Self =
        Self { patches: true, patches_norm: true, summary: true, summary_norm: true, pooled: true };
    /// Summary tokens before the final norm, as k-NN uses them.
    pub const SUMMARY: Self = Self {
        patches: false,
        patches_norm: false,
        summary: true,
        summary_norm: false,
        pooled: false,
    };

    /// What either wants.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            patches: self.patches || other.patches,
            patches_norm: self.patches_norm || other.patches_norm,
            summary: self.summary || other.summary,
            summary_norm: self.summary_norm || other.summary_norm,
            pooled: self.pooled || other.pooled,
        }
    }
}

/// The tokens after one block; a field is `None` when it was not wanted or the encoder has no such
/// tokens. All are f32.
#[derive(Clone, Debug)]
pub struct Tap {
    /// Index of the block.
    pub block: usize,
    /// Rows and columns of the patch grid, if the encoder has one.
    pub grid: Option<(usize, usize)>,
    /// `[B, N, D]`, row-major over the grid.
    pub patches: Option<Tensor>,
    /// `[B, N, D]`, after the final norm.
    pub patches_norm: Option<Tensor>,
    /// `[B, S, D]`.
    pub summary: Option<Tensor>,
    /// `[B, S, D]`, after the final norm.
    pub summary_norm: Option<Tensor>,
    /// What the encoder's own output head makes of the patches: SigLIP's pooled token `[B, 1, D]`, or the
    /// map `[B, N, C]` of SAM's neck.
    pub pooled: Option<Tensor>,
}

/// What can go wrong in a forward pass.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// A tap beyond the last block.
    #[error("tap at block {block}: the encoder has blocks 0 to {last}")]
    NoSuchBlock {
        /// What was asked for.
        block: usize,
        /// Index of the last block.
        last: usize,
    },
    /// The image does not divide into patches.
    #[error("image of {height}x{width} pixels: both sides must be multiples of the patch, {patch}")]
    NotPatches {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Side of a patch.
        patch: usize,
    },
    /// A head needs tokens that the encoder does not have.
    #[error("the encoder has no tokens for the recipe {0}")]
    NoTokens(String),
    /// A Python backbone.
    #[error(transparent)]
    Python(#[from] WorkerError),
    /// The computation failed.
    #[error("the encoder failed: {0}")]
    Candle(#[from] candle_core::Error),
}

/// A frozen encoder.
pub trait Backbone: Send + Sync {
    /// Its size and make.
    fn dimensions(&self) -> &Dimensions;

    /// Encodes `images [B, 3, H, W]` (f32, normalised, on the encoder's device) and returns one
    /// [`Tap`] for each of `blocks`, in their order. Nothing past the last tapped block is computed.
    fn forward(
        &self,
        images: &Tensor,
        blocks: &[usize],
        wanted: Wanted,
    ) -> Result<Vec<Tap>, BackboneError>;
}

/// Where and how an encoder computes.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Device of weights and activations.
    pub device: Device,
    /// Autocast type: matrix products, attention and GELU run in it; the residual stream, norms and
    /// everything returned stay f32.
    pub dtype: DType,
}

/// Checks that every tap exists and that images `[B, 3, H, W]` divide into patches; returns the
/// grid's rows and columns.
pub(crate) fn check(
    images: &Tensor,
    blocks: &[usize],
    dimensions: &Dimensions,
) -> Result<(usize, usize), BackboneError> {
    let (_, _, height, width) = images.dims4()?;
    let patch = dimensions.patch;
    if height == 0 || width == 0 || height % patch != 0 || width % patch != 0 {
        return Err(BackboneError::NotPatches { height, width, patch });
    }
    let last = dimensions.blocks - 1;
    match blocks.iter().find(|&&block| block > last) {
        Some(&block) => Err(BackboneError::NoSuchBlock { block, last }),
        None => Ok((height / patch, width / patch)),
    }
}
