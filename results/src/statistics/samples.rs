//! Per-image rows as sums: every metric is a function of sums over images, so that a resample, an
//! image left out or two models' images swapped is another sum and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use schema::{
    DepthMetrics, DepthRow, EpisodeRow, PredictionRow, SampleRows, SegmentationRow, Selection,
};

use super::bootstrap::Method;
use super::policies::selected;

/// Added to a union, as the published code does, so that an absent class scores 0.
const UNION_FLOOR: f64 = 1e-6;

/// The images of a run and what each adds to the sums its metrics are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    paths: Vec<String>,
    /// Where each image's entries begin, and the end of the last: `images + 1`.
    starts: Vec<usize>,
    /// (sum, amount); zeros are left out, which is most of 150 classes.
    entries: Vec<(u32, f64)>,
    width: usize,
    metrics: Vec<(String, Formula)>,
    /// Each image's stratum, ascending: images are drawn in place of others of their own. All but
    /// policies have one.
    strata: Vec<u32>,
}

/// How a metric follows from the sums.
#[derive(Clone, Debug, PartialEq)]
enum Formula {
    /// A sum over the number of images.
    Mean(usize),
    /// 100 times one sum over another, whose least value is 1.
    Share(usize, usize),
    /// IoU of the class whose intersection and union are at this sum and the next, percent.
    Iou(usize),
    /// Mean IoU of this many classes, intersections and unions in turn from 0 on, percent.
    MeanIou(usize),
    /// Mean over tasks of the mean over their policies (a range of them) of a policy's mean: the sum
    /// at twice its place over the number of its episodes at the next.
    Tasks(Vec<Range<usize>>),
}

impl Formula {
    fn value(&self, sums: &[f64], images: f64) -> f64 {
        let sum = |at: usize| sums.get(at).copied().unwrap_or(f64::NAN);
        let iou = |at| 100.0 * sum(at) / (sum(at + 1) + UNION_FLOOR);
        match self {
            Self::Mean(at) => sum(*at) / images,
            Self::Share(part, whole) => 100.0 * sum(*part) / sum(*whole).max(1.0),
            Self::Iou(at) => iou(*at),
            Self::MeanIou(classes) => {
                (0..*classes).map(|class| iou(2 * class)).sum::<f64>() / (*classes).max(1) as f64
            }
            Self::Tasks(tasks) => {
                let policy = |at: usize| sum(2 * at) / sum(2 * at + 1);
                let task =
                    |of: &Range<usize>| of.clone().map(policy).sum::<f64>() / of.len() as f64;
                tasks.iter().map(task).sum::<f64>() / tasks.len() as f64
            }
        }
    }
}

impl Samples {
    /// The images of per-sample rows; depth images with too few valid pixels are none. Metrics have
    /// their names and units in tables; classes are numbered, as in records. Of policies, the episodes
    /// of the last evaluation.
    pub fn new(rows: &SampleRows) -> Self {
        Self::at(rows, Selection::Last)
    }

    /// As [`new`](Self::new); of policies, the episodes of the evaluations that `selection` chooses:
    /// each policy's last, the best of all together, or each one's own best.
    pub fn at(rows: &SampleRows, selection: Selection) -> Self {
        match rows {
            SampleRows::Knn(rows) => knn(rows),
            SampleRows::Depth(rows) => depth(rows),
            SampleRows::Segmentation(rows) => segmentation(rows),
            SampleRows::Policy(rows) => policies(&selected(rows, selection)),
        }
    }

    /// Number of images that count.
    pub fn images(&self) -> usize {
        self.paths.len()
    }

    /// Paths of the images that count, in order.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// Names of the metrics.
    pub fn metrics(&self) -> impl ExactSizeIterator<Item = &str> {
        self.metrics.iter().map(|(name, _)| name.as_str())
    }

    /// The metrics' values over all images, in their order.
    pub fn values(&self) -> Vec<f64> {
        self.values_of(&self.sums(0..self.images()), self.images())
    }

    /// Only one metric and the sums it needs, of the images at these places.
    pub(super) fn pick(&self, metric: &str, images: &[usize]) -> Option<Self> {
        let (name, formula) = self.metrics.iter().find(|(name, _)| name == metric)?;
        let (kept, formula): (Vec<usize>, _) = match formula {
            Formula::Mean(at) => (vec![*at], Formula::Mean(0)),
            Formula::Share(part, whole) => (vec![*part, *whole], Formula::Share(0, 1)),
            Formula::Iou(at) => (vec![*at, at + 1], Formula::Iou(0)),
            Formula::MeanIou(classes) => ((0..2 * classes).collect(), Formula::MeanIou(*classes)),
            Formula::Tasks(tasks) => {
                let kept = tasks.iter().flat_map(|of| 2 * of.start..2 * of.end).collect();
                let moved = tasks.iter().scan(0, |from, of| {
                    let to = *from + of.len();
                    Some(std::mem::replace(from, to)..to)
                });
                (kept, Formula::Tasks(moved.collect()))
            }
        };
        // Episodes of other tasks say nothing of a task.
        let any = !matches!(formula, Formula::Tasks(_));
        let place: HashMap<u32, u32> =
            kept.iter().zip(0..).map(|(&at, to)| (at as u32, to)).collect();
        let mut picked = Self::with(kept.len(), vec![(name.clone(), formula)]);
        for &image in images {
            let entries = self.entries_of(image).iter();
            let entries = entries.filter_map(|(at, amount)| Some((*place.get(at)?, *amount)));
            let entries: Vec<_> = entries.collect();
            if any || !entries.is_empty() {
                let stratum = *self.strata.get(image)?;
                picked.push(self.paths.get(image)?, stratum, entries);
            }
        }
        Some(picked)
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = Method> {
        self.metrics.iter().map(|(_, formula)| match formula {
            Formula::MeanIou(_) => Method::Reflected,
            Formula::Mean(_) | Formula::Share(..) | Formula::Iou(_) | Formula::Tasks(_) => {
                Method::Accelerated
            }
        })
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The images of each stratum.
    pub(super) fn strata(&self) -> Vec<Range<usize>> {
        let mut from = 0;
        let strata = self.strata.chunk_by(|a, b| a == b).map(|images| {
            let start = from;
            from += images.len();
            start..from
        });
        strata.collect()
    }

    /// What one image adds, as (sum, amount).
    pub(super) fn entries_of(&self, image: usize) -> &[(u32, f64)] {
        let ends = self.starts.get(image).zip(self.starts.get(image + 1));
        ends.and_then(|(&from, &to)| self.entries.get(from..to)).unwrap_or_default()
    }

    pub(super) fn add(&self, image: usize, sums: &mut [f64]) {
        for &(at, amount) in self.entries_of(image) {
            if let Some(sum) = sums.get_mut(at as usize) {
                *sum += amount;
            }
        }
    }

    pub(super) fn sums(&self, images: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        images.into_iter().for_each(|image| self.add(image, &mut sums));
        sums
    }

    pub(super) fn values_of(&self, sums: &[f64], images: usize) -> Vec<f64> {
        self.metrics.iter().map(|(_, formula)| formula.value(sums, images as f64)).collect()
    }

    /// The first metric's value.
    pub(super) fn value_of(&self, sums: &[f64], images: usize) -> f64 {
        self.metrics.first().map_or(f64::NAN, |(_, formula)| formula.value(sums, images as f64))
    }

    fn with(width: usize, metrics: Vec<(String, Formula)>) -> Self {
        Self { starts: vec![0], width, metrics, ..Self::default() }
    }

    fn push(&mut self, path: &str, stratum: u32, entries: impl IntoIterator<Item = (u32, f64)>) {
        self.paths.push(path.to_owned());
        self.strata.push(stratum);
        self.entries.extend(entries.into_iter().filter(|(_, amount)| *amount != 0.0));
        self.starts.push(self.entries.len());
    }
}

fn knn(rows: &[PredictionRow]) -> Samples {
    let ks = rows.first().map_or(Vec::new(), |row| row.by_k.iter().map(|by| by.k).collect());
    let names = ks.iter().flat_map(|k| [format!("top1@{k}"), format!("top5@{k}")]);
    let metrics: Vec<_> = names.zip((0..).map(Formula::Mean)).collect();
    let mut samples = Samples::with(metrics.len(), metrics);
    for row in rows {
        let right = row.by_k.iter().flat_map(|by| [by.top1, by.top5]);
        samples.push(&row.path, 0, (0..).zip(right.map(|right| if right { 100.0 } else { 0.0 })));
    }
    samples
}

fn depth(rows: &[DepthRow]) -> Samples {
    let names = DepthMetrics::default().named().map(|(name, _)| name.to_owned());
    let mut samples = Samples::with(9, names.into_iter().zip((0..).map(Formula::Mean)).collect());
    for row in rows {
        if let Some(metrics) = row.metrics {
            samples.push(&row.path, 0, (0..).zip(metrics.named().map(|(_, value)| value)));
        }
    }
    samples
}

fn segmentation(rows: &[SegmentationRow]) -> Samples {
    let classes = rows.first().map_or(0, |row| row.target.len());
    let (right, pixels) = (2 * classes, 2 * classes + 1);
    let mut metrics = vec![
        ("miou".to_owned(), Formula::MeanIou(classes)),
        ("pixel_acc".to_owned(), Formula::Share(right, pixels)),
    ];
    metrics.extend((0..classes).map(|class| (format!("iou/{class}"), Formula::Iou(2 * class))));
    let mut samples = Samples::with(2 * classes + 2, metrics);
    for row in rows {
        let counts = row.intersection.iter().zip(&row.predicted).zip(&row.target);
        let by_class = counts.flat_map(|((&both, &predicted), &target)| {
            [both as f64, predicted as f64 + target as f64 - both as f64]
        });
        let sum = |counts: &[u64]| counts.iter().map(|&count| count as f64).sum::<f64>();
        let whole = [sum(&row.intersection), sum(&row.target)];
        samples.push(&row.path, 0, (0..).zip(by_class.chain(whole)));
    }
    samples
}

/// Every policy has two sums. An image is one number of episode of a task, with the rollouts of all
/// seeds: where they start alike (TriFinger's test demonstrations), they are not independent.
fn policies(rows: &[&EpisodeRow]) -> Samples {
    let mut tasks: Vec<&str> = Vec::new();
    for row in rows {
        if !tasks.contains(&&*row.task) {
            tasks.push(&row.task);
        }
    }
    let (mut ranges, mut strata, mut next) = (Vec::new(), Vec::new(), 0);
    for task in &tasks {
        let own = || rows.iter().filter(|row| row.task == *task);
        let seeds: BTreeSet<u64> = own().map(|row| row.seed).collect();
        let places: BTreeMap<u64, u32> = seeds.into_iter().zip(next..).collect();
        let to = next + places.len() as u32;
        ranges.push(next as usize..to as usize);
        next = to;
        let mut episodes: BTreeMap<u32, Vec<(u32, f64)>> = BTreeMap::new();
        for row in own() {
            let Some(place) = places.get(&row.seed) else { continue };
            let entries = [(2 * place, row.score), (2 * place + 1, 1.0)];
            episodes.entry(row.episode).or_default().extend(entries);
        }
        strata.push(episodes);
    }
    let mut metrics = vec![("score".to_owned(), Formula::Tasks(ranges.clone()))];
    let of_task = |(task, range): (&&str, Range<usize>)| {
        (format!("score/{task}"), Formula::Tasks(vec![range]))
    };
    metrics.extend(tasks.iter().zip(ranges).map(of_task));
    let mut samples = Samples::with(2 * next as usize, metrics);
    for ((task, episodes), stratum) in tasks.iter().zip(strata).zip(0..) {
        for (episode, entries) in episodes {
            samples.push(&format!("{task}/{episode}"), stratum, entries);
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{depth_rows, episode_rows, prediction_rows, segmentation_rows};

    fn named(rows: &SampleRows) -> Vec<(String, f64)> {
        let samples = Samples::new(rows);
        samples.metrics().map(str::to_owned).zip(samples.values()).collect()
    }

    #[test]
    fn values_are_those_of_the_whole_set() {
        let knn = named(&SampleRows::Knn(prediction_rows(6)));
        let expected = [("top1@10", 100.0 / 3.0), ("top5@10", 100.0), ("top1@20", 50.0)];
        for ((name, value), (wanted, right)) in knn.iter().zip(expected) {
            assert_eq!(name, wanted);
            assert!((value - right).abs() < 1e-12, "{name} {value}");
        }
        let mut rows = depth_rows(4);
        rows[3].metrics = None;
        let samples = Samples::new(&SampleRows::Depth(rows));
        assert_eq!((samples.images(), samples.metrics().nth(3)), (3, Some("abs_rel")));
        assert!((samples.values()[3] - 1.1).abs() < 1e-12);
        assert_eq!(samples.values()[0], 50.0);
    }

    #[test]
    fn the_mean_iou_counts_an_absent_class_as_zero() {
        let row = |intersection: [u64; 3], predicted: [u64; 3], target: [u64; 3]| SegmentationRow {
            path: String::new(),
            intersection: intersection.into(),
            predicted: predicted.into(),
            target: target.into(),
        };
        let rows = vec![row([2, 0, 0], [4, 0, 0], [2, 2, 0]), row([1, 1, 0], [1, 2, 0], [2, 1, 0])];
        let values = named(&SampleRows::Segmentation(rows));
        // Class 0: 3 of 5 + 4 - 3 = 6; class 1: 1 of 2 + 3 - 1 = 4; class 2 is nowhere.
        let expected = [25.0, 400.0 / 7.0, 50.0, 25.0, 0.0];
        for ((name, value), right) in values.iter().zip(expected) {
            assert!((value - right).abs() < 1e-4, "{name} {value}");
        }
        assert_eq!(named(&SampleRows::Segmentation(Vec::new())).len(), 2);
    }

    #[test]
    fn a_score_is_the_mean_over_tasks_of_the_mean_over_policies() {
        let mut rows = episode_rows(5);
        let at = |rows: &[EpisodeRow], selection| {
            let samples = Samples::at(&SampleRows::Policy(rows.to_vec()), selection);
            samples.metrics().map(str::to_owned).zip(samples.values()).collect::<Vec<_>>()
        };
        let named = |score, first, second| {
            [("score", score), ("score/drawer-open", first), ("score/assembly", second)]
                .map(|(name, value): (&str, f64)| (name.to_owned(), value))
        };
        // Drawer: 4 of 5 solved at the last evaluation, 3 before. Assembly: 3 and 2, the second
        // policy the other way round.
        assert_eq!(at(&rows, Selection::Last), named(65.0, 80.0, 50.0));
        assert_eq!(at(&rows, Selection::BestEach), named(70.0, 80.0, 60.0));
        // The order of rows decides the order of tasks and nothing else.
        rows.reverse();
        assert_eq!(at(&rows, Selection::Last)[0], named(65.0, 80.0, 50.0)[0]);
        // A task with fewer seeds weighs as much.
        rows.retain(|row| row.task == "assembly" || row.seed == 100);
        assert_eq!(at(&rows, Selection::Last)[0], named(65.0, 80.0, 50.0)[0]);
        assert_eq!(at(&[], Selection::Last).len(), 1);
    }

    #[test]
    fn episodes_are_drawn_within_their_task() {
        let samples = Samples::new(&SampleRows::Policy(episode_rows(4)));
        let strata = |of: &Samples| format!("{:?}", of.strata());
        assert_eq!((samples.images(), strata(&samples)), (8, "[0..4, 4..8]".to_owned()));
        let all: Vec<usize> = (0..8).collect();
        let second = samples.pick("score/assembly", &all).unwrap();
        assert_eq!((second.images(), strata(&second)), (4, "[0..4]".to_owned()));
        assert_eq!(second.values(), samples.values()[2..]);
        assert_eq!(samples.pick("score", &all).unwrap().values(), samples.values()[..1]);
        let knn = Samples::new(&SampleRows::Knn(prediction_rows(6)));
        assert_eq!(strata(&knn), "[0..6]");
    }

    #[test]
    fn one_metric_of_some_images_is_the_metric_of_these_images() {
        let rows = segmentation_rows(6, 5);
        let samples = Samples::new(&SampleRows::Segmentation(rows.clone()));
        let some: Vec<_> = [4, 1].map(|i| rows[i].clone()).into();
        let expected = Samples::new(&SampleRows::Segmentation(some));
        for (metric, value) in expected.metrics().zip(expected.values()) {
            let picked = samples.pick(metric, &[4, 1]).unwrap();
            assert_eq!(picked.values(), [value], "{metric}");
            assert_eq!(picked.paths(), expected.paths());
        }
        assert_eq!(samples.pick("rmse", &[0]), None);
    }
}
