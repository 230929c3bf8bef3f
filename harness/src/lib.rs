//! pixio-eval: how good is a frozen vision backbone?
//!
//! The binary is [`cli::main`]. A run goes one way: [`resolve`] finds a backbone and checks its
//! weights, `tasks` hands out samples, [`stream`] decodes them ahead of the [`backbone`], [`cache`]
//! keeps features, `heads` searches or trains on them, `results` keeps the record.

pub mod allocator;
pub mod backbone;
pub mod bench;
pub mod cache;
pub mod cli;
pub mod device;
mod download;
mod fault;
mod http;
pub mod hub;
pub mod interrupt;
pub mod lists;
pub mod locate;
pub mod prepare;
pub mod progress;
pub mod python;
pub mod registry;
pub mod resolve;
pub mod run;
pub mod simulators;
pub mod stream;
mod subprocess;
pub mod sweep;
mod upload;
mod verified;
pub mod weights;
