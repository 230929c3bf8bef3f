//! Data sets, verified: right ones, every wrong preparation made from a right one, and single files that
//! are not as they should be.
#![allow(clippy::unwrap_used, clippy::panic)]

mod folders;
mod miniature;
mod problems;
mod right;
mod wrong;
