//! What is to be done with a suite: which tasks, by which protocol, in which simulators.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schema::{
    BackboneRecord, DataRecord, FeatureStage, ObservationStage, PolicyProtocol, Protocol, Render,
    RolloutStage, RunPlan, SimulatorStage, Source, Stages, TaskHead,
};
use tasks::robot::{Demonstrations, Origin, Suite, Variant};

use super::data::Lesson;
use crate::resolve::Resolved;
use crate::run::RunError;
use crate::run::knn::image_stage;
use crate::run::memory::{BatchSize, STANDARD};
use crate::run::session::Host;
use crate::simulators::Simulators;

/// Protocol of the reduced suites.
const LITE: &str = "cortexbench-lite";
/// Protocol of generated demonstrations.
const MADE: &str = "cortexbench-made";

/// A suite ready to run on.
pub(in crate::run) struct Opened<'a> {
    pub(super) simulators: Simulators<'a>,
    pub(super) suite: &'static Suite,
    pub(super) lessons: Vec<Lesson>,
    render: Render,
    /// The protocol's name up to what a backbone adds.
    name: String,
    variant: Variant,
    seeds: Vec<u64>,
    record: DataRecord,
    notes: Vec<String>,
}
