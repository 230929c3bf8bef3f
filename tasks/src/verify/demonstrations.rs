//! Demonstrations of robot tasks.

use std::collections::BTreeMap;

use super::report::Problems;
use super::{
    Looked, Options, Report, Subject, Verdict, VerifyError, counted, decoded, number, spread, sum,
};
use crate::data::Dataset;
use crate::files::Files;
use crate::robot::{self, Demonstrations};

/// Demonstrations of a task that are read unless all are.
const READ: usize = 4;

pub(super) fn verify(
    dataset: &Dataset,
    files: &Files,
    options: &Options<'_>,
    published: &BTreeMap<String, usize>,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let Some(suite) = robot::suite(&dataset.name) else { return Ok(()) };
    let (mut absent, mut problems) = (Problems::default(), Problems::default());
    let (mut found, mut read) = (0, 0);
    for (at, task) in suite.setup(robot::Variant::Published).tasks.into_iter().enumerate() {
        let demonstrations = match Demonstrations::open(suite, &task.name, files.root()) {
            Ok(Some(demonstrations)) => demonstrations,
            Ok(None) => {
                absent.add(at, || format!("no demonstrations of {}", task.name));
                continue;
            }
            Err(error) => {
                absent.add(at, || error.to_string());
                continue;
            }
        };
        let used = demonstrations.len().min(task.demonstrations);
        found += used;
        let indices = spread(used, if options.full { used } else { READ });
        read += indices.len();
        let one = |problems: &mut Problems, index: usize| {
            let loaded = demonstrations.load(index).map(drop);
            if let Err(error) = loaded.and_then(|()| demonstrations.images(index).map(drop)) {
                problems.add(index, || error.to_string());
            }
        };
        let what = format!("{}, {}", dataset.name, task.name);
        problems.merge(sum(&indices, &what, options, one, Problems::merge)?);
    }
    let said = match absent.count {
        0 => "the demonstrations of every task".to_owned(),
        count => format!("{} without usable demonstrations", number(count, "task")),
    };
    report.check(Subject::Files, None).with(absent.verdict(Verdict::Wrong), said, &absent);
    counted(report, "train", found, published.get("train").copied());
    let said = decoded(read, found, "demonstration", problems.count);
    let verdict = problems.verdict(Verdict::Wrong);
    report.check(Subject::Readable, Some("train")).with(verdict, said, &problems);
    report.splits.push(Looked { split: "train".to_owned(), found, looked_at: read });
    Ok(())
}
