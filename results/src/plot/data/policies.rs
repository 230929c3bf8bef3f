//! Scores of policies by epoch, task by task.

use std::collections::BTreeMap;

use schema::SampleRows;

use super::curves::whole;
use super::{Group, Looks};
use crate::plot::Run;
use crate::plot::axis::{Scale, plain};
use crate::plot::figure::Panel;
use crate::plot::xy::{Band, Series, Xy};
use crate::read_rows;
use crate::store::PREDICTIONS;

/// What a band is.
const BANDS: &str =
    "Of policies: lines are means over seeds, bands reach from the least to the greatest.";

/// Least, mean and greatest score of a task's policies by epoch.
type Scores = BTreeMap<u32, (f64, f64, f64)>;

/// A panel a run: the score of its policies by epoch, a line a task with a band over seeds, on one
/// scale. With a task's metric, that task alone.
pub(super) fn panels(
    group: &Group<'_>,
    runs: &[(Run<'_>, String)],
    looks: &mut Looks,
    notes: &mut Vec<String>,
) -> Vec<Panel> {
    let asked = group.metric.strip_prefix("score/");
    let mut found: Vec<(&str, Vec<(String, Scores)>)> = Vec::new();
    for (run, name) in runs {
        let mut tasks = by_task(run, notes);
        tasks.retain(|(task, _)| asked.is_none_or(|asked| asked == task));
        if !tasks.is_empty() {
            found.push((name, tasks));
        }
    }
    let scores = || found.iter().flat_map(|(_, tasks)| tasks).flat_map(|(_, of)| of.iter());
    let epochs = || scores().map(|(epoch, _)| f64::from(*epoch));
    let x = Scale::around(epochs());
    let y = Scale::from_zero(scores().flat_map(|(_, (low, _, high))| [*low, *high]));
    let ticks = whole(epochs());
    let banded = scores().any(|(_, (low, _, high))| low < high);
    if banded && !notes.iter().any(|note| note == BANDS) {
        notes.push(BANDS.to_owned());
    }
    let panel = |(name, tasks): (&str, Vec<(String, Scores)>)| {
        let (mut series, mut bands) = (Vec::new(), Vec::new());
        for (task, scores) in tasks {
            let look = looks.of(&task);
            let at = |epoch: &u32| f64::from(*epoch);
            let points = scores.iter().map(|(epoch, (_, mean, _))| (at(epoch), *mean)).collect();
            series.push(Series { look, points, joined: true, marked: Some(false), name: None });
            if scores.values().any(|(low, _, high)| low < high) {
                let points = scores.iter().map(|(e, (low, _, high))| (at(e), *low, *high));
                bands.push(Band { look, points: points.collect() });
            }
        }
        Panel::Xy(Xy {
            title: format!("{}: score in % of {name}", group.task),
            below: group.below(),
            x_name: "epoch".to_owned(),
            x: x.clone(),
            y: y.clone(),
            number: plain,
            x_ticks: ticks.clone(),
            series,
            bands,
            bars: Vec::new(),
            rule: None,
            front: Vec::new(),
            flat: 1.0,
        })
    };
    found.into_iter().map(panel).collect()
}

/// The tasks of a run in the order of its rows; of its curve, without seeds, where those cannot be read.
fn by_task(run: &Run<'_>, notes: &mut Vec<String>) -> Vec<(String, Scores)> {
    let rows = match read_rows(&run.folder.join(PREDICTIONS)) {
        Ok(SampleRows::Policy(rows)) => rows,
        Ok(_) => return from_curve(run),
        Err(error) => {
            let why = format!("without bands: {error}");
            if !notes.contains(&why) {
                notes.push(why);
            }
            return from_curve(run);
        }
    };
    /// Sum and number of the scores, by seed.
    type Seeds = BTreeMap<u64, (f64, f64)>;
    type Epochs = BTreeMap<u32, Seeds>;
    let mut tasks: Vec<(String, Epochs)> = Vec::new();
    for row in rows {
        let place = tasks.iter().position(|(task, _)| *task == row.task).unwrap_or_else(|| {
            tasks.push((row.task.clone(), BTreeMap::new()));
            tasks.len() - 1
        });
        let Some((_, epochs)) = tasks.get_mut(place) else { continue };
        let (sum, count) = epochs.entry(row.epoch).or_default().entry(row.seed).or_default();
        *sum += row.score;
        *count += 1.0;
    }
    let over_seeds = |seeds: Seeds| {
        let means: Vec<f64> = seeds.into_values().map(|(sum, count)| sum / count).collect();
        let low = means.iter().copied().fold(f64::INFINITY, f64::min);
        let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low, means.iter().sum::<f64>() / means.len() as f64, high)
    };
    let scores = |(task, epochs): (String, Epochs)| {
        (task, epochs.into_iter().map(|(epoch, seeds)| (epoch, over_seeds(seeds))).collect())
    };
    tasks.into_iter().map(scores).collect()
}

fn from_curve(run: &Run<'_>) -> Vec<(String, Scores)> {
    let mut tasks: BTreeMap<String, Scores> = BTreeMap::new();
    for epoch in &run.record.outcome.curve {
        for (metric, value) in &epoch.metrics {
            if let Some(task) = metric.strip_prefix("score/") {
                let scores = tasks.entry(task.to_owned()).or_default();
                scores.insert(epoch.epoch as u32, (*value, *value, *value));
            }
        }
    }
    tasks.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use schema::EpochRecord;

    use super::*;
    use crate::fixtures::{episode_rows, policy_record};
    use crate::write_rows;

    #[test]
    fn lines_are_means_over_seeds_and_bands_reach_to_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = policy_record("pixio-b", "metaworld", 80.0);
        let mut bytes = Vec::new();
        write_rows(&mut bytes, &SampleRows::Policy(episode_rows(5))).unwrap();
        fs::write(folder.path().join(PREDICTIONS), bytes).unwrap();
        let mut notes = Vec::new();
        let found = by_task(&Run { record: &record, folder: folder.path() }, &mut notes);
        // Drawer: 3 of 5, then 4, for both seeds. Assembly: 2 and 3, then 3 and 2.
        let scores = |first: (f64, f64, f64), last| BTreeMap::from([(6, first), (11, last)]);
        assert_eq!(
            found[0],
            ("drawer-open".to_owned(), scores((60.0, 60.0, 60.0), (80.0, 80.0, 80.0)))
        );
        assert_eq!(
            found[1],
            ("assembly".to_owned(), scores((40.0, 50.0, 60.0), (40.0, 50.0, 60.0)))
        );
        assert!(notes.is_empty());

        // Without rows, the curve's means.
        let metrics = [("score", 55.0), ("score/assembly", 40.0)];
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
        record.outcome.curve = vec![EpochRecord { epoch: 6, metrics, ..EpochRecord::default() }];
        let found = by_task(&Run { record: &record, folder: Path::new("nowhere") }, &mut notes);
        let only = BTreeMap::from([(6, (40.0, 40.0, 40.0))]);
        assert_eq!(found, [("assembly".to_owned(), only)]);
        assert!(notes[0].starts_with("without bands: cannot read nowhere"), "{notes:?}");
    }
}
