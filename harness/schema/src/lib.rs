//! What the other crates share without knowing each other: protocols, metrics, records, rows and
//! [`random`] draws.
//!
//! Nothing here computes a result. `tasks` fills protocols in, `harness` runs them, `results`
//! keeps and shows what came out.

mod dense;
mod fingerprint;
mod metric;
mod policy;
mod protocol;
pub mod random;
mod real;
mod record;

pub use dense::{
    DenseFeatureStage, DenseProtocol, DepthMetrics, EvaluationStage, HeadStage, Objective,
    SampleStage, TrainingStage,
};
pub use fingerprint::{Fingerprint, fingerprint};
pub use metric::{Direction, MetricDescriptor, MetricValue, Selection, Unit, describe};
pub use policy::{
    EpisodeRow, ObservationStage, PolicyProtocol, PolicyTask, PolicyTraining, Render, RolloutStage,
    SimulatorStage, Source,
};
pub use protocol::{
    FeatureStage, IMAGENET_MEAN, IMAGENET_STD, ImageStage, KnnProtocol, Protocol, Stages, Tokens,
    VoteStage,
};
pub use record::{
    BackboneRecord, DataRecord, DepthRow, EpochRecord, FORMAT, HostRecord, KPrediction, ListKind,
    ListRecord, Outcome, PredictionRow, RunPlan, RunRecord, SampleRows, SegmentationRow,
    SplitRecord, TaskHead,
};
