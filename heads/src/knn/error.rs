use thiserror::Error;

use super::Progress;

/// Which of the two feature sets an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// The labelled features that are searched.
    Train,
    /// The features that are classified.
    Query,
}

impl std::fmt::Display for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Query => "query",
        })
    }
}

/// Every way a k-NN evaluation can be refused or end early.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum KnnError {
    /// The values do not divide into rows.
    #[error("{values} feature values do not divide into rows of width {dim}")]
    Ragged {
        /// Number of values found.
        values: usize,
        /// Width of a row.
        dim: usize,
    },
    /// A set without rows.
    #[error("the {set} set is empty: at least one feature row is needed")]
    Empty {
        /// Which set.
        set: Set,
    },
    /// More rows than a neighbour's index can name.
    #[error("the train set has {rows} rows; neighbours are numbered up to {}", u32::MAX)]
    TooManyRows {
        /// Number of rows found.
        rows: usize,
    },
    /// Queries of another width than the train set.
    #[error("query features are {query} wide, train features {train}")]
    DimensionMismatch {
        /// Width of a train row.
        train: usize,
        /// Width of a query row.
        query: usize,
    },
    /// Not one label a row.
    #[error("{rows} {set} features come with {labels} labels: one label a row is needed")]
    LabelCount {
        /// Which set.
        set: Set,
        /// Number of feature rows.
        rows: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A label that is not a class.
    #[error(
        "label {label} of {set} row {row} is outside the {classes} classes (0 to {classes} - 1)"
    )]
    LabelOutside {
        /// Which set.
        set: Set,
        /// Row of the label.
        row: usize,
        /// The label found.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// NaN or infinity.
    #[error("{set} row {row} has {value} in column {column}: features must be finite")]
    NonFinite {
        /// Which set.
        set: Set,
        /// First bad row.
        row: usize,
        /// First bad column of it.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// A row whose length is neither 1 nor 0, so that its products are not cosines.
    #[error("{set} row {row} has norm {norm}: features must be L2-normalised (norm 1, or 0)")]
    NotNormalised {
        /// Which set.
        set: Set,
        /// First bad row.
        row: usize,
        /// Its L2 norm.
        norm: f64,
    },
    /// Zero neighbours.
    #[error("k = 0: at least one neighbour is needed")]
    KZero,
    /// More neighbours than there are train rows.
    #[error("k = {k} is larger than the train set of {train} samples")]
    KTooLarge {
        /// Neighbours asked for.
        k: usize,
        /// Number of train rows.
        train: usize,
    },
    /// An empty, unsorted or repeating list of k.
    #[error("the list of k must be strictly ascending and not empty, found {found:?}")]
    KList {
        /// The list found.
        found: Vec<usize>,
    },
    /// A temperature that is not a positive number.
    #[error("temperature {found}: a positive, finite number is needed")]
    Temperature {
        /// The temperature found.
        found: f64,
    },
    /// A temperature whose weights overflow.
    #[error(
        "temperature {found} is too small: the weights of {k} neighbours, exp(1/{found}) each, \
         overflow a 64-bit float"
    )]
    TemperatureTooSmall {
        /// The temperature found.
        found: f64,
        /// Largest number of neighbours asked for.
        k: usize,
    },
    /// The device failed, or has too little memory for even small blocks.
    #[error("the search on the device failed: {0}")]
    Device(String),
    /// The progress callback asked to stop.
    #[error("interrupted after {} of {} similarities", .0.done, .0.total)]
    Interrupted(Progress),
}
