/// What is wrong with a pickle, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (byte {offset} of the pickle)")]
pub struct PickleError {
    /// First byte of the instruction that could not be followed.
    pub offset: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// The kinds of thing that can be wrong with a pickle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The data end within an instruction, or before STOP.
    #[error("the pickle is cut short: expected {wanted} more bytes, found {left}")]
    Truncated {
        /// Bytes that had to follow.
        wanted: u64,
        /// Bytes that do.
        left: usize,
    },
    /// A byte that is no instruction in any protocol.
    #[error("0x{0:02x} is not a pickle instruction")]
    Unknown(u8),
    /// An instruction that protocols 2 to 5 do not need for data.
    #[error("the pickle instruction {0} is not read; expected protocol 2 to 5 without extensions")]
    Refused(&'static str),
    /// A protocol outside 2 to 5.
    #[error("pickle protocol {0}; expected 2 to 5")]
    Protocol(u8),
    /// A class or function that is not on the list.
    #[error("the pickle asks for {module}.{name}, which is not on the list of harmless names")]
    Global {
        /// Its module.
        module: String,
        /// Its name.
        name: String,
    },
    /// An instruction found fewer values than it takes.
    #[error("{0} takes a value that is not there")]
    Underflow(&'static str),
    /// An instruction that ends a group found none open.
    #[error("{0} ends a group that was not begun")]
    NoMark(&'static str),
    /// An instruction found a value of the wrong kind.
    #[error("{opcode} takes {expected}, found {found}")]
    Operand {
        /// The instruction.
        opcode: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What was there.
        found: &'static str,
    },
    /// A memo index that nothing was stored under.
    #[error("memo entry {0} was never stored")]
    Memo(u32),
    /// A dict's keys and values do not pair up.
    #[error("a key without a value")]
    Unpaired,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
    /// The pickle ends with more or fewer than one value.
    #[error("the pickle ends with {0} values; expected 1")]
    Ending(usize),
    /// A value that contains itself.
    #[error("a value that contains itself")]
    Cycle,
    /// More than the caller allows.
    #[error("the pickle needs more than {limit} {kind}")]
    Limit {
        /// Of what.
        kind: LimitKind,
        /// What is allowed.
        limit: usize,
    },
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Bytes held by values, stack and memo.
    Memory,
    /// Containers, globals and objects.
    Objects,
    /// Memo entries.
    Memo,
    /// Containers within containers.
    Depth,
}

impl std::fmt::Display for LimitKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "bytes of memory",
            Self::Objects => "objects",
            Self::Memo => "memo entries",
            Self::Depth => "levels of nesting",
        })
    }
}
