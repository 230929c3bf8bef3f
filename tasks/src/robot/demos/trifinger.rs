//! The published demonstrations of TriFinger: a folder a demonstration.

use std::path::Path;

use super::{DemoError, Form};
use crate::robot::Suite;

/// The task's folders, where they are there.
pub(super) fn open(
    suite: &Suite,
    task: &str,
    root: &Path,
) -> Result<Option<Box<dyn Form>>, DemoError> {
    let _ = (suite, task, root);
    Ok(None)
}
