//! Pickles and PyTorch checkpoints, read as data: nothing that a file asks for is ever run.
//!
//! Three parts:
//! - [`read`] is the pickle machine. It turns one pickle of protocol 2 to 5 into a tree of
//!   [`Value`]s. A class or function that a pickle names must be on the caller's [`AllowList`];
//!   calling one only records the call, as an [`Object`], and what it means is the caller's to say.
//! - [`Checkpoint`] reads what `torch.save` writes, as a zip archive (since 1.6) or before that: it
//!   finds the state dict and hands out one tensor at a time from the mapped file.
//! - [`Array`] is a NumPy array in a pickle, as demonstrations of robots are kept; [`read_saved`] finds
//!   the pickle where `torch.save` wrote it.
//!
//! # Bounds
//! Strings and bytes are borrowed from the input; everything else is counted against [`Limits`].
//! The tree has no cycle and a bounded depth, so recursion over it ends. It may share parts, so a
//! walk that must not take exponential time counts its steps.

mod archive;
mod array;
mod checkpoint;
mod error;
mod input;
mod machine;
mod opcode;
mod plain;
mod value;

pub use archive::ArchiveError;
pub use array::{Array, ArrayError};
pub use checkpoint::{
    Checkpoint, CheckpointError, ElementType, StorageFault, TensorFault, TensorInfo, read_saved,
};
pub use error::{Fault, LimitKind, PickleError};
pub use machine::{AllowList, Limits, read};
pub use plain::PLAIN_DATA;
pub use value::{Global, Id, Node, Object, Pickle, Value};

/// Text from a file, made harmless for a terminal and short enough for a message.
fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    short
}
