use std::path::PathBuf;

/// Why demonstrations cannot be used, or not written.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A pickle that is damaged, or asks for more than data.
    #[error("{}: {source}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: pickle::PickleError,
    },
    /// A checkpoint that is none.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pickle::CheckpointError,
    },
    /// Something else than demonstrations of this task.
    #[error("{}: {place}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Which part, for example `demonstration 3, actions`.
        place: String,
        /// What was expected and found.
        why: String,
    },
    /// A part that is not an array of plain numbers.
    #[error("{}: {place}: {source}", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// Which part, for example `demonstration 3, actions`.
        place: String,
        /// What is wrong with it.
        source: pickle::ArrayError,
    },
    /// An array of another shape or type than the task's.
    #[error("{}: {place}: found {found}; expected {expected}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Which part.
        place: String,
        /// The shape expected, and where it matters the type.
        expected: String,
        /// Shape and type found.
        found: String,
    },
    /// A number that is NaN, infinite or beyond single precision.
    #[error("{}: {place}: a number that is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Which part.
        place: String,
    },
    /// Images that cannot be decoded.
    #[error("{}: {why}", path.display())]
    Images {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}
