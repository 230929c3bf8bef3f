//! A heat map: rows, columns and a value in each cell.

use super::figure::{heading_height, place_along, place_heading};
use super::scene::{Align, Area, Fonts, GREY, INK, Point, SMALL, Scene, TEXT, TextStyle};
use crate::picture::Rgb;

/// Height of a row; cells are no higher than this and as wide as there is room, up to the second.
const ROW: f32 = 9.6;
const WIDEST: f32 = 42.0;
/// Room above for labels of columns, and below for the scale of colours.
const ABOVE: f32 = 9.0;
const BELOW: f32 = 19.0;
/// Longest share of the width that names of rows take.
const NAMES: f32 = 0.42;

/// A heat map.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) title: String,
    pub(super) below: Vec<String>,
    pub(super) rows: Vec<String>,
    /// Labels above the columns; those without room are left out.
    pub(super) columns: Vec<String>,
    /// By row, by column; none where there is nothing.
    pub(super) cells: Vec<Vec<Option<f64>>>,
    /// Values of the first and the last colour.
    pub(super) ends: (f64, f64),
    /// How a value is written.
    pub(super) number: fn(f64) -> String,
}

impl Matrix {
    pub(super) fn height(&self, fonts: &Fonts, width: f32) -> f32 {
        heading_height(fonts, &self.below, width) + ABOVE + self.rows.len() as f32 * ROW + BELOW
    }

    fn colour(&self, value: f64) -> Rgb {
        let (low, high) = self.ends;
        let share = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
        // The darkest part is left out: lines and numbers show on all the rest.
        colorous::CIVIDIS.eval_continuous(0.08 + 0.92 * share).as_array()
    }

    pub(super) fn place(&self, scene: &mut Scene, fonts: &Fonts, at: Point, width: f32) {
        let heading = (self.title.as_str(), self.below.as_slice());
        let top = place_heading(scene, fonts, at, width, heading) + ABOVE;
        let names = self.rows.iter().map(|name| fonts.width(name, TEXT)).fold(0.0, f32::max);
        let left = at[0] + names.min(NAMES * width) + 3.0;
        let count = self.columns.len().max(1) as f32;
        let cell = ((at[0] + width - left) / count).min(WIDEST);
        let right = left + cell * count;
        let middles = (0..self.columns.len()).map(|i| left + (i as f32 + 0.5) * cell);
        let labels = middles.zip(self.columns.iter().cloned());
        place_along(scene, fonts, labels, top - 2.5, (left, (at[0] + width).max(right)));

        let texts: Vec<Vec<String>> = self
            .cells
            .iter()
            .map(|row| row.iter().map(|cell| cell.map_or(String::new(), self.number)).collect())
            .collect();
        let widest = texts.iter().flatten().map(|t| fonts.width(t, SMALL)).fold(0.0, f32::max);
        for (i, name) in self.rows.iter().enumerate() {
            let (y0, y1) = (top + i as f32 * ROW, top + (i + 1) as f32 * ROW);
            let baseline = (y0 + y1) / 2.0 + 0.36 * TEXT;
            let name = fonts.fit(name, TEXT, left - 3.0 - at[0] + 0.1);
            scene.text(fonts, &name, [left - 3.0, baseline], TextStyle::new(TEXT, Align::Right));
            let cells =
                self.cells.get(i).into_iter().flatten().zip(texts.get(i).into_iter().flatten());
            for (j, (value, text)) in cells.enumerate() {
                let x0 = left + j as f32 * cell;
                let Some(value) = value else { continue };
                let fill = match value.is_finite() {
                    true => self.colour(*value),
                    false => [255, 255, 255],
                };
                scene.rect(Area { x0, y0, x1: x0 + cell - 0.4, y1: y1 - 0.4 }, fill, 0);
                if widest <= cell - 2.0 {
                    let [r, g, b] = fill.map(u32::from);
                    let light = 2 * r + 5 * g + b > 8 * 115;
                    let colour = if light { INK } else { [255, 255, 255] };
                    let style = TextStyle { colour, ..TextStyle::new(SMALL, Align::Middle) };
                    scene.text(fonts, text, [x0 + cell / 2.0, baseline], style);
                }
            }
        }
        self.place_scale(scene, fonts, [left, top + self.rows.len() as f32 * ROW + 4.0], right);
    }

    fn place_scale(&self, scene: &mut Scene, fonts: &Fonts, [x, y]: Point, right: f32) {
        let width = (right - x).clamp(40.0, 120.0);
        let (low, high) = self.ends;
        let steps = 32;
        for i in 0..steps {
            let share = |i: i32| i as f32 / steps as f32;
            let value = low + (high - low) * f64::from(share(i) + 0.5 / steps as f32);
            let area =
                Area { x0: x + share(i) * width, y0: y, x1: x + share(i + 1) * width, y1: y + 4.0 };
            scene.rect(area, self.colour(value), 0);
        }
        let style = TextStyle { colour: GREY, ..TextStyle::new(SMALL, Align::Left) };
        let (first, last) = ((self.number)(low), (self.number)(high));
        scene.text(fonts, &first, [x, y + 6.0 + 0.8 * SMALL], style);
        let end = x + width - fonts.width(&last, SMALL);
        if end > x + fonts.width(&first, SMALL) + 2.5 {
            scene.text(fonts, &last, [end, y + 6.0 + 0.8 * SMALL], style);
        }
    }
}
