//! Data sets: what is known about each, whether it is there, and reading it.

mod error;
mod imagenet;
mod registry;
mod source;
mod status;

pub use error::{DataError, Names};
pub use imagenet::{ImageFolder, ImageNet, Sample};
pub use registry::{
    Dataset, DepthStorage, LabelForms, Layout, PinnedList, Registry, RegistryError, Shares,
    SplitList, Task,
};
pub use source::{
    Algorithm, Build, Checksum, Citation, Container, HubFiles, InPlace, KnownFile, Source,
    SourceFile, Unpack, WrongPreparation,
};
pub use status::{ListOrigin, PairProblem, SplitStatus, State, Status, status};
