//! What per-image rows say: how a metric is spread over images, and who wins on how many.

use std::collections::{BTreeMap, BTreeSet};

use schema::{Direction, EpisodeRow, SampleRows, SegmentationRow, Selection};

use super::{Group, best_first, direction, groups, names, nothing, over_seeds, words};
use crate::headline::is_policy;
use crate::plot::axis::{Scale, plain};
use crate::plot::figure::{Figure, Key, Panel};
use crate::plot::matrix::Matrix;
use crate::plot::xy::Xy;
use crate::plot::{Kind, PlotError, PlotOptions, Run};
use crate::read_rows;
use crate::statistics::selected;
use crate::store::PREDICTIONS;
use crate::text::shown_value;

/// Bins of a histogram.
const BINS: usize = 24;

/// One panel a run: the share of images by their metric, the same bins for a task.
pub(super) fn errors(runs: &[Run<'_>], options: &PlotOptions) -> Result<Figure, PlotError> {
    let mut notes = Vec::new();
    let mut panels = Vec::new();
    for mut group in groups(runs, options.metric.as_deref(), true) {
        let names = names(&group.runs);
        group.runs.sort_by_key(|run| {
            let plan = &run.record.plan;
            (names.get(&plan.backbone.identity.0).cloned(), plan.seed)
        });
        let mut found: Vec<(String, Vec<f64>)> = Vec::new();
        for run in &group.runs {
            let plan = &run.record.plan;
            let mut name = names.get(&plan.backbone.identity.0).cloned().unwrap_or_default();
            if plan.seed > 0 {
                name += &format!(", seed {}", plan.seed);
            }
            if let Some(images) = read(run, &group.metric, &mut notes) {
                let values: Vec<f64> = images.into_values().filter(|v| v.is_finite()).collect();
                if group.metric.contains('@') {
                    continue;
                }
                if !values.is_empty() {
                    found.push((name, values));
                }
            }
        }
        let order = direction(&group.metric);
        best_first(&mut found, order, |(_, values)| over_seeds(values).0);
        if let Some(most) = options.most.filter(|most| *most < found.len()) {
            notes.push(format!("{}: the best {most} of {} runs.", group.task, found.len()));
            found.truncate(most);
        }
        histograms(&group, &found, &mut panels);
    }
    if panels.is_empty() {
        notes.insert(
            0,
            "per-image values of depth and segmentation are needed (a k-NN vote is right or wrong)"
                .to_owned(),
        );
        return Err(nothing(Kind::Errors, notes.join("; ")));
    }
    notes.insert(
        0,
        "Last epoch. Dashed: median image. Beyond the 99th percentile of all: in the last bin."
            .to_owned(),
    );
    Ok(Figure {
        title: "Images by their metric".to_owned(),
        panels,
        columns: 3,
        legend: Vec::new(),
        key: Key::Bar,
        notes,
    })
}

fn histograms(group: &Group<'_>, found: &[(String, Vec<f64>)], panels: &mut Vec<Panel>) {
    let mut all: Vec<f64> = found.iter().flat_map(|(_, values)| values).copied().collect();
    all.sort_by(f64::total_cmp);
    let (Some(&low), Some(&most)) = (all.first(), all.last()) else { return };
    let at = |share: f64| all.get(((all.len() - 1) as f64 * share).round() as usize).copied();
    // A few images far out would leave no room for the others.
    let high = if group.metric == "pixel_acc" { most } else { at(0.99).unwrap_or(most) };
    let width = ((high - low) / BINS as f64).max(1e-9 * low.abs().max(1.0));
    let counted = |values: &[f64]| {
        let mut counts = vec![0.0; BINS];
        for value in values {
            let bin = (((value - low) / width) as usize).min(BINS - 1);
            if let Some(count) = counts.get_mut(bin) {
                *count += 100.0 / values.len() as f64;
            }
        }
        counts
    };
    let counts: Vec<Vec<f64>> = found.iter().map(|(_, values)| counted(values)).collect();
    let told = words(&group.metric);
    let metric = told.split(", ").next().unwrap_or(&told);
    let y = Scale::from_zero(counts.iter().flatten().copied());
    let policies = group.runs.iter().any(|run| is_policy(&run.record.plan));
    let (one, many) = if policies { ("an episode", "episodes") } else { ("an image", "images") };
    for ((name, values), counts) in found.iter().zip(counts) {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied();
        let bars = counts.into_iter().enumerate().filter(|(_, count)| *count > 0.0);
        let left = |bin: usize| low + bin as f64 * width;
        let mut below = group.below();
        below.push(format!(
            "{} {many}, median {}",
            values.len(),
            median.map_or(String::new(), |median| shown_value(&group.metric, median))
        ));
        panels.push(Panel::Xy(Xy {
            title: format!("{}: {name}", group.task),
            below,
            x_name: format!("{metric} of {one}; upwards: % of {many}"),
            x: Scale::Linear { low, high: low + width * BINS as f64 },
            y: y.clone(),
            number: plain,
            x_ticks: Vec::new(),
            series: Vec::new(),
            bands: Vec::new(),
            bars: bars.map(|(bin, count)| [left(bin), left(bin + 1), count]).collect(),
            rule: median,
            front: Vec::new(),
            flat: 0.8,
        }));
    }
}

/// One matrix for real runs and one for sample runs: on which share of images a row's backbone is
/// better than a column's, averaged over the tasks both have.
pub(super) fn wins(runs: &[Run<'_>], options: &PlotOptions) -> Result<Figure, PlotError> {
    let mut notes = Vec::new();
    let mut panels = Vec::new();
    for sample in [false, true] {
        let runs: Vec<Run<'_>> =
            runs.iter().filter(|run| run.record.plan.data.sample == sample).copied().collect();
        panels.extend(matrix(&runs, options, &mut notes));
    }
    if panels.is_empty() {
        notes.insert(
            0,
            "no two backbones have per-image values of the same task, protocol, seed and data"
                .to_owned(),
        );
        return Err(nothing(Kind::Wins, notes.join("; ")));
    }
    notes.insert(0, "Last epoch; a tie counts half. Where two share several tasks or seeds, the mean of their rates.".to_owned());
    Ok(Figure {
        title: "Win rates over images".to_owned(),
        panels,
        columns: 1,
        legend: Vec::new(),
        key: Key::Bar,
        notes,
    })
}

fn matrix(runs: &[Run<'_>], options: &PlotOptions, notes: &mut Vec<String>) -> Option<Panel> {
    let names = names(runs);
    // By pair: rates of the first over the second.
    let mut rates: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    let (mut tasks, mut protocols) = (BTreeSet::new(), BTreeSet::new());
    for group in groups(runs, options.metric.as_deref(), true) {
        let mut by_seed: BTreeMap<u64, BTreeMap<String, BTreeMap<String, f64>>> = BTreeMap::new();
        for run in &group.runs {
            let plan = &run.record.plan;
            if let Some(images) = read(run, &group.metric, notes) {
                by_seed
                    .entry(plan.seed)
                    .or_default()
                    .insert(plan.backbone.identity.0.clone(), images);
            }
        }
        for by_backbone in by_seed.values() {
            for (a, images) in by_backbone {
                for (b, others) in by_backbone.iter().filter(|(b, _)| *b != a) {
                    if let Some(rate) = rate(images, others, group.direction()) {
                        tasks.insert(format!("{} {}", group.task, group.metric));
                        protocols.insert(group.protocol.clone());
                        rates.entry((a.clone(), b.clone())).or_default().push(rate);
                    }
                }
            }
        }
    }
    let mean = |a: &str, b: &str| {
        rates.get(&(a.to_owned(), b.to_owned())).map(|rates| over_seeds(rates).0)
    };
    let mut order: Vec<(&String, &String)> =
        names.iter().filter(|(a, _)| rates.keys().any(|(one, _)| one == *a)).collect();
    order.sort_by_key(|(_, name)| *name);
    let overall = |a: &str| {
        let won: Vec<f64> = names.keys().filter_map(|b| mean(a, b)).collect();
        over_seeds(&won).0
    };
    best_first(&mut order, Direction::Up, |(a, _)| overall(a));
    if let Some(most) = options.most.filter(|most| *most < order.len()) {
        notes.push(format!("The best {most} of {} backbones.", order.len()));
        order.truncate(most);
    }
    if order.len() < 2 {
        return None;
    }
    let cells = |(a, _): &(&String, &String)| order.iter().map(|(b, _)| mean(a, b)).collect();
    let policies = runs.iter().filter(|run| is_policy(&run.record.plan)).count();
    let what = match policies {
        0 => "Images",
        all if all == runs.len() => "Episodes",
        _ => "Images and episodes",
    };
    Some(Panel::Matrix(Matrix {
        title: format!("{what} (%) on which a row is better than a column"),
        below: vec![format!(
            "protocol {}: {}",
            protocols.into_iter().collect::<Vec<_>>().join(", "),
            tasks.into_iter().collect::<Vec<_>>().join(", ")
        )],
        rows: order.iter().zip(1..).map(|((_, name), i)| format!("{name}  {i}")).collect(),
        columns: (1..=order.len()).map(|i| i.to_string()).collect(),
        cells: order.iter().map(cells).collect(),
        ends: (0.0, 100.0),
        number: |value| format!("{value:.0}"),
    }))
}

/// Percent of the common images on which the first is better, ties half.
fn rate(a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>, direction: Direction) -> Option<f64> {
    let (mut won, mut images) = (0.0, 0);
    for (path, value) in a {
        let Some(other) = b.get(path).filter(|other| other.is_finite() && value.is_finite()) else {
            continue;
        };
        images += 1;
        won += match value.total_cmp(other) {
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater if direction == Direction::Up => 1.0,
            std::cmp::Ordering::Less if direction == Direction::Down => 1.0,
            _ => 0.0,
        };
    }
    (images > 0).then(|| 100.0 * won / f64::from(images))
}

/// A run's metric image by image; none, and a note, where its rows cannot be read or do not give it.
fn read(run: &Run<'_>, metric: &str, notes: &mut Vec<String>) -> Option<BTreeMap<String, f64>> {
    let mut note = |why: String| {
        if !notes.contains(&why) {
            notes.push(why);
        }
    };
    match read_rows(&run.folder.join(PREDICTIONS)) {
        Err(error) => {
            note(format!("left out: {error}"));
            None
        }
        Ok(rows) => {
            let images = per_image(&rows, metric);
            if images.is_none() {
                note(format!("per-image rows of {} do not give {metric}", run.record.plan.task));
            }
            images
        }
    }
}

/// A metric image by image, by the images' paths, in the metric's unit. Sorted: sums over images must
/// not depend on an order that changes.
fn per_image(rows: &SampleRows, metric: &str) -> Option<BTreeMap<String, f64>> {
    match rows {
        SampleRows::Knn(rows) => {
            let (name, k) = metric.split_once('@')?;
            let k: u32 = k.parse().ok()?;
            let value = |row: &schema::PredictionRow| {
                let by = row.by_k.iter().find(|by| by.k == k)?;
                let right = if name == "top5" { by.top5 } else { by.top1 };
                Some((row.path.clone(), if right { 100.0 } else { 0.0 }))
            };
            rows.iter().map(value).collect()
        }
        SampleRows::Depth(rows) => {
            let values = rows.iter().filter_map(|row| {
                let named = row.metrics?.named();
                let (_, value) = named.into_iter().find(|(name, _)| *name == metric)?;
                Some((row.path.clone(), value))
            });
            Some(values.collect()).filter(|values: &BTreeMap<_, _>| !values.is_empty())
        }
        SampleRows::Segmentation(rows) => {
            let value: fn(&SegmentationRow) -> f64 = match metric {
                "miou" => mean_iou,
                "pixel_acc" => |row| {
                    let sum = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
                    100.0 * sum(&row.intersection) / sum(&row.target).max(1.0)
                },
                _ => return None,
            };
            Some(rows.iter().map(|row| (row.path.clone(), value(row))).collect())
        }
        // Episodes, of the last evaluation as images are of the last epoch.
        SampleRows::Policy(rows) => {
            let task = match metric.split_once('/') {
                None if metric == "score" => None,
                Some(("score", task)) => Some(task),
                _ => return None,
            };
            let rows = selected(rows, Selection::Last).into_iter();
            let rows = rows.filter(|row| task.is_none_or(|task| row.task == task));
            let episode = |row: &EpisodeRow| {
                (format!("{}/{}/{}", row.task, row.seed, row.episode), row.score)
            };
            Some(rows.map(episode).collect()).filter(|found: &BTreeMap<_, _>| !found.is_empty())
        }
    }
}

/// Mean IoU over the classes that are in one image's truth or prediction, percent.
fn mean_iou(row: &SegmentationRow) -> f64 {
    let counts = row.intersection.iter().zip(&row.predicted).zip(&row.target);
    let ious: Vec<f64> = counts
        .filter_map(|((&both, &predicted), &target)| {
            let union = predicted + target - both.min(predicted + target);
            (union > 0).then(|| 100.0 * both as f64 / union as f64)
        })
        .collect();
    over_seeds(&ious).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{depth_rows, episode_rows, prediction_rows, segmentation_rows};

    #[test]
    fn metrics_image_by_image() {
        let knn = per_image(&SampleRows::Knn(prediction_rows(3)), "top1@10").unwrap();
        assert_eq!(knn["val/n0001/1.png"], 100.0);
        assert_eq!(knn["val/n0000/2.png"], 0.0);
        let mut rows = depth_rows(3);
        rows[1].metrics = None;
        let depth = per_image(&SampleRows::Depth(rows), "abs_rel").unwrap();
        assert_eq!(depth.len(), 2);
        assert!((depth["test/00002.jpg"] - 2.1).abs() < 1e-12);
        // Image 1: class 0 has 0 of 14, class 1 has 1 of 6 + 10 - 1.
        let rows = SampleRows::Segmentation(segmentation_rows(2, 2));
        let miou = per_image(&rows, "miou").unwrap();
        assert!((miou["validation/00000001.jpg"] - 100.0 / 15.0 / 2.0).abs() < 1e-9);
        assert_eq!(per_image(&rows, "iou/wall"), None);
        let rows = SampleRows::Policy(episode_rows(5));
        let score = per_image(&rows, "score").unwrap();
        // Of the last evaluation: episodes 0 to 4 of two tasks and seeds.
        assert_eq!(
            (score.len(), score["assembly/200/1"], score["assembly/200/0"]),
            (20, 100.0, 0.0)
        );
        assert_eq!(per_image(&rows, "score/assembly").unwrap().len(), 10);
        assert_eq!(per_image(&rows, "score/pen"), None);
    }

    #[test]
    fn rates_count_ties_half_and_common_images_alone() {
        let images = |values: &[(&str, f64)]| {
            values.iter().map(|(path, value)| ((*path).to_owned(), *value)).collect()
        };
        let a = images(&[("1", 1.0), ("2", 2.0), ("3", 3.0), ("4", f64::NAN), ("5", 0.0)]);
        let b = images(&[("1", 1.0), ("2", 3.0), ("3", 4.0), ("4", 1.0)]);
        assert_eq!(rate(&a, &b, Direction::Down), Some(100.0 * 2.5 / 3.0));
        assert_eq!(rate(&a, &b, Direction::Up), Some(100.0 * 0.5 / 3.0));
        assert_eq!(rate(&a, &BTreeMap::new(), Direction::Up), None);
    }
}
