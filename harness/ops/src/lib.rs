//! Fused candle operations that backbones and heads share.
//!
//! | function | result |
//! |---|---|
//! | [`linear`] | `x W^T + b` |
//! | [`linear_gelu`] | `gelu(x W^T + b)` |
//! | [`linear_residual`] | `r + x W^T + b` |
//! | [`linear_residual_norm`] | that, and its layer normalisation |
//! | [`gelu`] | exact (erf) GELU |
//! | [`activate`] | GELU, its approximations, SwiGLU |
//! | [`layer_norm`], [`layer_norm_as`] | normalisation of the last dimension |
//! | [`attention`], [`attention_qkv`] | softmax(q k^T scale) v |
//! | [`rotate_heads`] | query and key with rotary position embedding |
//! | [`conv2d`], [`relu_conv2d`] | convolution, of `max(x, 0)` |
//! | [`resize_bilinear`] | bilinear interpolation, corners aligned |
//! | [`relu`] | `max(x, 0)` |
//! | [`Tape`] | operations on images with their gradients, in either [`Format`] |
//! | [`join_rows`] | a row joined to every token of its image |
//! | [`cross_entropy`], [`silog`] | losses of resized logits, on a GPU |
//! | [`resized_softmax`], [`resized_depth`] | predictions of resized logits, on a GPU |
//! | [`add_window`] | the sum of overlapping windows |
//! | [`argmax_classes`] | the largest class of every pixel |
//! | [`adamw`], [`norm_of`] | a step of many parameters on a GPU, the norm of their gradients |
//! | [`merge_nearest`] | the nearest of blocks of similarities |
//!
//! # Three paths
//! On the CPU an operation reads the tensors' storage and runs one fused f32 kernel. On an NVIDIA GPU, in a
//! build with the feature `cuda`, it runs kernels of our own (`kernels/`) and NVIDIA's libraries, where they
//! serve its dtypes and shapes. Otherwise it is composed of ordinary candle operations; convolutions and tapes
//! are for these two. The operations on tokens run in frozen encoders: where an input tracks gradients they are
//! composed, and the fused paths' results carry no graph. The gradients of the operations on images are a
//! [`Tape`]'s, as fused as the rest; of these functions only [`relu`] and [`resize_bilinear`] have candle's graph.
//!
//! Kernels for images take those whose channels lie side by side ([`Format::Pixels`]), for which every operation
//! also has plain loops on the CPU, to be tested with; images as planes ([`Format::Planes`]) are for the CPU.
//!
//! The kernels are compiled for the CPU too, in the tests, which emulate a block of threads and compare with
//! plain computations.
//!
//! # Memory
//! On a recording tape a convolution keeps its input and weight until its gradients are taken, and no columns:
//! each thread packs 288 KiB of them at once in the forward pass and for the input's gradient, and the part of
//! an image that 512 pixels of the result (or one line, if that is longer) read for the weight's. Of kernels of
//! 3 x 3 and stride 1 with many channels and pixels each thread keeps transformed tiles, 512 KiB of the image's
//! and up to 1 MiB of the result's, and all threads the transformed weight, 16/9 of its size. The gradient of
//! an input with a stride above 1 is held twice while it is put together. What it takes on a GPU is
//! [`Format::workspace`].
//!
//! # Precision
//! Mixed precision follows PyTorch's autocast. The dtype of a weight (f32, bf16 or f16) is the dtype of
//! its product: the input, weight and bias are rounded to it, the sum is kept in f32, and the result is
//! rounded once. GELU and attention compute in f32 and return the dtype they were given; [`layer_norm`]
//! and the residual stream of [`linear_residual`] are f32. On a GPU the products of attention in 16 bits take
//! the shares rounded to that type and add in f32, and products in f32 never use TF32.
//! Where cuDNN computes a convolution (the feature `cudnn`, 16 bits), the bias is added to the rounded sum.
//!
//! # Determinism
//! Work is divided by shape alone, so the number of threads never changes a bit of a result. The
//! instruction set (AVX-512, AVX2 with FMA, or neither) and the cache sizes may.

#[cfg(feature = "cuda")]
use libcuda as _;

mod activation;
mod adamw;
mod attention;
mod batch_norm;
mod compose;
mod convolution;
#[cfg(feature = "cuda")]
mod cuda;
mod entropy;
mod format;
mod gather;
mod gelu;
mod linear;
mod norm;
#[cfg(target_arch = "x86_64")]
mod panels;
mod pixels;
mod product;
mod relu;
mod resize;
mod rotary;
mod silog;
mod simd;
mod storage;
mod tape;
mod tile;
mod topk;
mod transposed;
mod weights;
mod winograd;
mod winograd_weights;

pub use activation::{Activation, activate};
pub use adamw::{AdamwStep, adamw, norm_of};
pub use attention::{attention, attention_qkv};
pub use convolution::{conv2d, relu_conv2d};
pub use entropy::{DeviceLoss, argmax_classes, cross_entropy, resized_softmax};
pub use format::{Format, join_rows};
pub use gelu::gelu;
pub use linear::{linear, linear_gelu, linear_residual, linear_residual_norm};
pub use norm::{layer_norm, layer_norm_as};
pub use pixels::place::add_window;
pub use relu::relu;
pub use resize::resize_bilinear;
pub use rotary::rotate_heads;
pub use silog::{resized_depth, silog};
pub use tape::{Gradients, Images, Tape};
pub use topk::{MOST_NEIGHBOURS, merge_nearest, neighbour_key, neighbour_of_key, no_neighbours};
