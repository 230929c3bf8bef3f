//! Sweeps: many cells from one file, on one device or many machines.
//!
//! A file's axes become cells ([`file`](mod@file)); cells that read the same images share a stream; streams are
//! split into units for the devices there are ([`schedule`]); workers take units that nobody works on
//! ([`claims`], [`work`](mod@work)) and are started by hand, by this machine ([`local`]) or by a scheduler ([`launch`]).

pub mod claims;
mod error;
mod extraction;
pub mod file;
pub mod launch;
pub mod local;
pub mod overview;
pub mod plan;
pub mod preflight;
mod progress;
pub mod schedule;
mod state;
pub mod work;

pub use error::SweepError;
pub use state::State;
