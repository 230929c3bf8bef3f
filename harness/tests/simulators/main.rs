//! Robot tasks from demonstrations to the table, in a toy simulator behind the real pipe; and in the real
//! simulators, where they are installed.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod real;
mod runs;
mod toy;
