//! What is seen in depth maps and masks, added up over a split.

use ndarray::{Array2, s};

use super::evidence::{
    BEYOND_SHARE, FILLED_HOLES, NEIGHBOURS, SCAN_DENSITY, SPARSEST, crop, far_metres, near_metres,
};
use crate::data::{Dataset, Layout};

/// Depth maps. Each map is judged on its own, so that what is said of a split is a number of maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Depths {
    /// Maps in 8 bits, which are not looked at further.
    pub eight_bit: usize,
    /// Maps that were decoded.
    pub maps: usize,
    /// Of these, the ones that reach over the protocol's crop.
    pub whole: usize,
    /// Of those, the ones without holes in it.
    pub filled: usize,
    /// Maps as sparse as a single scan.
    pub scans: usize,
    /// Maps whose depths lie mostly before what the sensor sees.
    pub near: usize,
    /// Maps with depths beyond what the sensor sees.
    pub beyond: usize,
    /// Share of pixels with a depth, of each map.
    pub valid: Vec<f32>,
    /// Median depth in metres, of each map that has a depth.
    pub medians: Vec<f32>,
    /// The largest depth, metres.
    pub farthest: f32,
}

impl Depths {
    /// Adds a map as it is stored, `[H, W]`.
    pub fn add(&mut self, dataset: &Dataset, steps: f32, map: &Array2<u16>) {
        let (height, width) = map.dim();
        self.maps += 1;
        let mut depths: Vec<u16> = map.iter().copied().filter(|&value| value > 0).collect();
        self.valid.push(depths.len() as f32 / map.len().max(1) as f32);
        if let Some([top, bottom, left, right]) = crop(dataset)
            && height >= bottom
            && width >= right
        {
            let kept = map.slice(s![top..bottom, left..right]);
            let holes = kept.iter().filter(|&&value| value == 0).count();
            self.whole += 1;
            self.filled += usize::from((holes as f32) < FILLED_HOLES * kept.len() as f32);
        }
        if dataset.layout == Layout::KittiEigen {
            self.scans += usize::from(is_scan(map));
        }
        if depths.is_empty() {
            return;
        }
        let far = far_metres(dataset) * steps;
        let beyond = depths.iter().filter(|&&value| f32::from(value) > far).count();
        self.beyond += usize::from(beyond as f32 > BEYOND_SHARE * depths.len() as f32);
        let farthest = depths.iter().copied().max().map_or(0.0, |value| f32::from(value) / steps);
        self.farthest = self.farthest.max(farthest);
        let middle = depths.len() / 2;
        let median = f32::from(*depths.select_nth_unstable(middle).1) / steps;
        self.near += usize::from(median < near_metres(dataset));
        self.medians.push(median);
    }

    pub fn merge(&mut self, other: Self) {
        self.eight_bit += other.eight_bit;
        self.maps += other.maps;
        self.whole += other.whole;
        self.filled += other.filled;
        self.scans += other.scans;
        self.near += other.near;
        self.beyond += other.beyond;
        self.valid.extend(other.valid);
        self.medians.extend(other.medians);
        self.farthest = self.farthest.max(other.farthest);
    }

    /// Mean share of pixels with a depth.
    pub fn mean_valid(&self) -> f32 {
        let sum: f64 = sorted(&self.valid).iter().map(|&share| f64::from(share)).sum();
        (sum / self.valid.len().max(1) as f64) as f32
    }

    /// The middle one of the maps' medians, metres.
    pub fn median(&self) -> Option<f32> {
        let sorted = sorted(&self.medians);
        sorted.get(sorted.len() / 2).copied()
    }
}

/// In an order that does not depend on threads.
fn sorted(values: &[f32]) -> Vec<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted
}

/// Whether a map has the pattern of one scan: between its first and last measured rows few pixels are
/// measured, and those are seldom above one another.
fn is_scan(map: &Array2<u16>) -> bool {
    let (height, width) = map.dim();
    let measured = |row: usize| map.row(row).iter().any(|&value| value > 0);
    let (Some(first), Some(last)) =
        ((0..height).find(|&row| measured(row)), (0..height).rev().find(|&row| measured(row)))
    else {
        return false;
    };
    let (mut valid, mut neighbours) = (0_usize, 0_usize);
    for row in first..=last {
        for column in 0..width {
            if map[(row, column)] > 0 {
                valid += 1;
                let above = row > first && map[(row - 1, column)] > 0;
                let below = row < last && map[(row + 1, column)] > 0;
                neighbours += usize::from(above || below);
            }
        }
    }
    let density = valid as f32 / ((last - first + 1) * width) as f32;
    valid >= SPARSEST && density < SCAN_DENSITY && (neighbours as f32) < NEIGHBOURS * valid as f32
}

/// Masks, by stored label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Labels {
    /// Masks in colour, which are not looked at further.
    pub colour: usize,
    /// Masks of 16 bits, likewise.
    pub deep: usize,
    /// Masks that were decoded.
    pub masks: usize,
    /// Pixels.
    pub counts: [u64; 256],
    /// Masks with at least one such pixel in a hundred.
    pub in_masks: [usize; 256],
    /// The first mask that has it.
    pub first: [usize; 256],
    /// Sum over pixels of how far down they are, in thousandths of the image's height.
    down: [u64; 256],
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            colour: 0,
            deep: 0,
            masks: 0,
            counts: [0; 256],
            in_masks: [0; 256],
            first: [usize::MAX; 256],
            down: [0; 256],
        }
    }
}

impl Labels {
    /// Adds a mask as it is stored, `[H, W]`, at an index of its split.
    pub fn add(&mut self, index: usize, mask: &Array2<u8>) {
        let height = mask.nrows();
        let mut counts = [0_u64; 256];
        for (row, labels) in mask.rows().into_iter().enumerate() {
            let mut of_row = [0_u32; 256];
            labels.iter().for_each(|&label| of_row[usize::from(label)] += 1);
            let down = (1000 * row + 500) as u64 / height as u64;
            for (label, &count) in of_row.iter().enumerate().filter(|(_, count)| **count > 0) {
                counts[label] += u64::from(count);
                self.down[label] += u64::from(count) * down;
            }
        }
        self.masks += 1;
        for (label, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.counts[label] += count;
            self.in_masks[label] += usize::from(100 * count >= mask.len() as u64);
            self.first[label] = self.first[label].min(index);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.colour += other.colour;
        self.deep += other.deep;
        self.masks += other.masks;
        for label in 0..256 {
            self.counts[label] += other.counts[label];
            self.in_masks[label] += other.in_masks[label];
            self.first[label] = self.first[label].min(other.first[label]);
            self.down[label] += other.down[label];
        }
    }

    pub fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Share of all pixels that labels have together.
    pub fn share(&self, labels: impl IntoIterator<Item = usize>) -> f64 {
        let sum: u64 = labels.into_iter().map(|label| self.counts[label]).sum();
        sum as f64 / self.pixels().max(1) as f64
    }

    /// How far down the pixels of some labels lie on average: 0 at the top, 1 at the bottom.
    pub fn height(&self, labels: &[usize]) -> f64 {
        let (down, count) = labels.iter().fold((0, 0), |(down, count), &label| {
            (down + self.down[label], count + self.counts[label])
        });
        down as f64 / (1000.0 * count.max(1) as f64)
    }
}
