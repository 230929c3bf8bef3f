//! One file over HTTP, continued where it broke off: what fetches weights from the hub and archives
//! from the pages of data sets.
//!
//! A file grows at its end under a name of its own until it is whole. What an earlier attempt left is
//! continued by Range, if the server still has the same file (If-Range with the ETag or the date that it
//! came with) or if a hash will tell; else it is fetched from its beginning.

mod digest;
mod error;
mod partial;
mod transfer;

pub(crate) use digest::{Difference, Digest};
pub(crate) use error::DownloadError;
pub(crate) use partial::Partial;
pub(crate) use transfer::{Download, LONGEST_PAUSE, Remote, shown};
