//! Horizontal bars with intervals, or points, one row a name: names of any length and number fit.

use super::axis::{Scale, plain};
use super::figure::{heading_height, place_along, place_heading};
use super::scene::{
    Align, Area, Fonts, GREY, GRID, INK, Item, Point, SMALL, Scene, TEXT, TextStyle,
};
use super::style::{colour, hatch, marker};

/// Height of a bar, of a row of points, and the gap between rows.
const BAR: f32 = 7.7;
const DOTS: f32 = 7.4;
const GAP: f32 = 2.4;
/// Room for tick labels below.
const BELOW: f32 = 11.0;
/// Longest share of the width that names take.
const NAMES: f32 = 0.45;
/// Rows of points above which they go on in another column, and the least width of one.
const HIGH: usize = 70;
const NARROW: f32 = 150.0;

/// A chart of rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    pub(super) title: String,
    pub(super) below: Vec<String>,
    pub(super) scale: Scale,
    pub(super) rows: Vec<Row>,
    /// Points instead of bars.
    pub(super) dots: bool,
}

/// One name and its values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) values: Vec<Value>,
}

/// One bar or point.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    /// Decides its look.
    pub(super) look: usize,
    /// Not finite: no bar, only its text.
    pub(super) value: f64,
    /// Ends of the interval.
    pub(super) ends: Option<(f64, f64)>,
    pub(super) text: String,
}

impl Rows {
    fn row_height(&self, row: &Row) -> f32 {
        if self.dots { DOTS } else { row.values.len().max(1) as f32 * BAR + GAP }
    }

    fn columns(&self, width: f32) -> usize {
        if !self.dots {
            return 1;
        }
        self.rows.len().div_ceil(HIGH).min((width / NARROW) as usize).max(1)
    }

    fn in_columns(&self, width: f32) -> impl Iterator<Item = &[Row]> {
        self.rows.chunks(self.rows.len().div_ceil(self.columns(width)).max(1))
    }

    pub(super) fn height(&self, fonts: &Fonts, width: f32) -> f32 {
        let highest = |rows: &[Row]| rows.iter().map(|row| self.row_height(row)).sum::<f32>();
        let rows = self.in_columns(width).map(highest).fold(0.0, f32::max);
        heading_height(fonts, &self.below, width) + rows + BELOW
    }

    pub(super) fn place(&self, scene: &mut Scene, fonts: &Fonts, at: Point, width: f32) {
        let heading = (self.title.as_str(), self.below.as_slice());
        let top = place_heading(scene, fonts, at, width, heading);
        let columns = self.columns(width);
        let each = (width - 8.0 * (columns - 1) as f32) / columns as f32;
        for (column, rows) in self.in_columns(width).enumerate() {
            let x = at[0] + column as f32 * (each + 8.0);
            self.place_column(scene, fonts, [x, top], each, rows);
        }
    }

    fn place_column(&self, scene: &mut Scene, fonts: &Fonts, at: Point, width: f32, rows: &[Row]) {
        let widest = |texts: &mut dyn Iterator<Item = &str>| {
            texts.map(|text| fonts.width(text, TEXT)).fold(0.0, f32::max)
        };
        let names = widest(&mut rows.iter().map(|row| row.name.as_str())).min(NAMES * width);
        let mut texts = rows.iter().flat_map(|row| row.values.iter().map(|v| v.text.as_str()));
        let values = if self.dots { 0.0 } else { widest(&mut texts).min(0.25 * width) };
        let right = at[0] + width - if values > 0.0 { values + 3.0 } else { 4.0 };
        let bottom = at[1] + rows.iter().map(|row| self.row_height(row)).sum::<f32>();
        let area = Area { x0: at[0] + names + 3.0, y0: at[1], x1: right, y1: bottom };

        let ticks = self.scale.ticks(((area.x1 - area.x0) / 26.0).max(2.0) as usize, plain);
        let places: Vec<_> = ticks
            .into_iter()
            .map(|(value, label)| (self.scale.place(value, area.x0, area.x1), label))
            .collect();
        for (x, _) in &places {
            scene.line(vec![[*x, area.y0], [*x, area.y1 + 1.5]], GRID, 0.4);
        }
        let ends = (at[0], at[0] + width);
        place_along(scene, fonts, places, area.y1 + 3.0 + 0.8 * SMALL, ends);
        let mut y = at[1];
        for row in rows {
            let height = self.row_height(row);
            let name = fonts.fit(&row.name, TEXT, names + 0.1);
            let baseline = y + (height - if self.dots { 0.0 } else { GAP }) / 2.0 + 0.36 * TEXT;
            scene.text(fonts, &name, [area.x0 - 3.0, baseline], TextStyle::new(TEXT, Align::Right));
            match self.dots {
                true => self.place_dots(scene, row, y + height / 2.0, area),
                false => self.place_bars(scene, fonts, row, y, (area, values)),
            }
            y += height;
        }
        let zero = self.scale.place(0.0, area.x0, area.x1);
        if !self.dots && (area.x0..=area.x1).contains(&zero) {
            scene.line(vec![[zero, area.y0], [zero, area.y1]], GREY, 0.6);
        }
    }

    fn place_dots(&self, scene: &mut Scene, row: &Row, y: f32, area: Area) {
        let at = |value: f64| self.scale.place(value, area.x0, area.x1);
        scene.line(vec![[area.x0, y], [area.x1, y]], GRID, 0.3);
        for value in row.values.iter().filter(|value| value.value.is_finite()) {
            let (colour, marker) = (colour(value.look), marker(value.look));
            let at = [at(value.value), y];
            scene.items.push(Item::Mark { at, radius: 1.9, marker, colour, hollow: false });
        }
    }

    fn place_bars(
        &self,
        scene: &mut Scene,
        fonts: &Fonts,
        row: &Row,
        top: f32,
        (area, values): (Area, f32),
    ) {
        let at = |value: f64| self.scale.place(value, area.x0, area.x1);
        for (i, value) in row.values.iter().enumerate() {
            let y0 = top + i as f32 * BAR + 0.5;
            let y1 = y0 + BAR - 1.0;
            let middle = (y0 + y1) / 2.0;
            if value.value.is_finite() {
                let (x0, x1) = (at(value.value.min(0.0)), at(value.value.max(0.0)));
                scene.rect(Area { x0, y0, x1, y1 }, colour(value.look), hatch(value.look));
            }
            if let Some((low, high)) = value.ends.filter(|(a, b)| a.is_finite() && b.is_finite()) {
                let (x0, x1) = (at(low).max(area.x0), at(high).min(area.x1));
                // White below: the whisker shows on a bar of any colour.
                scene.line(vec![[x0, middle], [x1, middle]], [255, 255, 255], 1.8);
                scene.line(vec![[x0, middle], [x1, middle]], INK, 0.8);
                for x in [x0, x1] {
                    scene.line(vec![[x, middle - 1.6], [x, middle + 1.6]], INK, 0.8);
                }
            }
            let text = fonts.fit(&value.text, TEXT, values + 0.1);
            let place = [area.x1 + 3.0 + values, middle + 0.36 * TEXT];
            scene.text(fonts, &text, place, TextStyle::new(TEXT, Align::Right));
        }
    }
}
