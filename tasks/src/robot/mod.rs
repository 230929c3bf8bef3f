//! Robot learning (CortexBench, arXiv 2303.18240): which suites and tasks there are, their
//! demonstrations, and what a rollout's score makes of a policy and a suite.

mod demos;
mod score;
mod suites;

pub use demos::{
    DemoError, Demonstration, Demonstrations, Frames, MadeBy, Origin, Recorded, Writer,
};
pub use score::Scores;
pub use suites::{SUITES, Setup, Suite, Variant, suite};
