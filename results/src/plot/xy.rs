//! Lines, points and histogram bars over two axes.

use super::axis::{Scale, plain};
use super::figure::{heading_height, place_along, place_heading};
use super::scene::{
    Align, Area, Fonts, GREY, GRID, INK, Item, Point, SMALL, Scene, Stroke, Text, TextStyle,
};
use super::style::{colour, dash, marker};

/// Room for tick labels and the axis name below the plot area.
const BELOW: f32 = 19.0;
/// Height of the plot area as a share of the panel's width, and its bounds.
const SHAPE: (f32, f32, f32) = (0.55, 60.0, 150.0);

/// A chart over two axes.
#[derive(Clone, Debug)]
pub(super) struct Xy {
    pub(super) title: String,
    pub(super) below: Vec<String>,
    pub(super) x_name: String,
    pub(super) x: Scale,
    pub(super) y: Scale,
    /// How a number of the x axis is written.
    pub(super) number: fn(f64) -> String,
    /// Values of the x axis that have a label; empty for round ones.
    pub(super) x_ticks: Vec<f64>,
    pub(super) series: Vec<Series>,
    /// Between what a series varies.
    pub(super) bands: Vec<Band>,
    /// Bars of a histogram: left, right, height.
    pub(super) bars: Vec<[f64; 3]>,
    /// A vertical line.
    pub(super) rule: Option<f64>,
    /// The line through the points of a Pareto front, as steps.
    pub(super) front: Vec<(f64, f64)>,
    /// Height as a share of the usual.
    pub(super) flat: f32,
}

/// One line or cloud of points.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    /// Decides its look.
    pub(super) look: usize,
    /// Places; a value that is not finite breaks the line.
    pub(super) points: Vec<(f64, f64)>,
    /// Whether the points are joined.
    pub(super) joined: bool,
    /// Whether the points are marked, and whether inside white.
    pub(super) marked: Option<bool>,
    /// A name beside the first point, left out for the whole panel where one has no room.
    pub(super) name: Option<String>,
}

/// From a least to a greatest value at every place of a series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Band {
    /// That of the series.
    pub(super) look: usize,
    /// Place, least and greatest, ascending.
    pub(super) points: Vec<(f64, f64, f64)>,
}

impl Xy {
    fn area_height(&self, width: f32) -> f32 {
        (SHAPE.0 * width).clamp(SHAPE.1, SHAPE.2) * self.flat
    }

    pub(super) fn height(&self, fonts: &Fonts, width: f32) -> f32 {
        heading_height(fonts, &self.below, width) + 3.0 + self.area_height(width) + BELOW
    }

    pub(super) fn place(&self, scene: &mut Scene, fonts: &Fonts, at: Point, width: f32) {
        let heading = (self.title.as_str(), self.below.as_slice());
        let top = place_heading(scene, fonts, at, width, heading) + 3.0;
        let bottom = top + self.area_height(width);
        let y_count = ((bottom - top) / 16.0).max(2.0) as usize;
        let y_ticks = self.y.ticks(y_count, plain);
        let widest = y_ticks.iter().map(|(_, label)| fonts.width(label, SMALL)).fold(0.0, f32::max);
        let area = Area { x0: at[0] + widest + 3.0, y0: top, x1: at[0] + width, y1: bottom };
        for (value, label) in y_ticks {
            let y = self.y.place(value, area.y1, area.y0);
            scene.line(vec![[area.x0, y], [area.x1, y]], GRID, 0.4);
            let style = TextStyle::new(SMALL, Align::Right);
            // The lowest keeps clear of the labels below the area.
            let baseline = (y + 0.36 * SMALL).min(area.y1 + 3.4 - 0.24 * SMALL);
            scene.text(fonts, &label, [area.x0 - 2.5, baseline], style);
        }
        let x_ticks = match self.x_ticks.is_empty() || matches!(self.x, Scale::Names(_)) {
            true => self.x.ticks(((area.x1 - area.x0) / 30.0).max(2.0) as usize, self.number),
            false => self.x_ticks.iter().map(|value| (*value, (self.number)(*value))).collect(),
        };
        let places: Vec<_> = x_ticks
            .into_iter()
            .map(|(value, label)| (self.x.place(value, area.x0, area.x1), label))
            .collect();
        for (x, _) in &places {
            scene.line(vec![[*x, area.y1], [*x, area.y1 + 2.0]], GREY, 0.5);
        }
        place_along(scene, fonts, places, area.y1 + 3.5 + 0.8 * SMALL, (at[0], area.x1));
        let name = fonts.fit(&self.x_name, SMALL, width);
        let style = TextStyle { colour: GREY, ..TextStyle::new(SMALL, Align::Left) };
        let x = (area.x0 + area.x1 - fonts.width(&name, SMALL)) / 2.0;
        let x = x.min(area.x1 - fonts.width(&name, SMALL)).max(at[0]);
        scene.text(fonts, &name, [x, area.y1 + 11.5 + 0.8 * SMALL], style);
        self.place_data(scene, fonts, area);
    }

    fn place_data(&self, scene: &mut Scene, fonts: &Fonts, area: Area) {
        let at = |&(x, y): &(f64, f64)| {
            [self.x.place(x, area.x0, area.x1), self.y.place(y, area.y1, area.y0)]
        };
        for [left, right, height] in &self.bars {
            let ([x0, y0], [x1, y1]) = (at(&(*left, *height)), at(&(*right, 0.0)));
            scene.rect(Area { x0: x0 + 0.2, y0, x1: x1 - 0.2, y1 }, colour(0), 0);
        }
        for Band { look, points } in &self.bands {
            let low = points.iter().map(|(x, low, _)| at(&(*x, *low)));
            let high = points.iter().rev().map(|(x, _, high)| at(&(*x, *high)));
            let corners: Vec<Point> = low.chain(high).collect();
            match points.len() {
                0 | 1 => scene.line(corners, colour(*look), 0.6),
                _ => scene.items.push(Item::Tint { points: corners, colour: colour(*look) }),
            }
        }
        scene.line(vec![[area.x0, area.y1], [area.x1, area.y1]], GREY, 0.6);
        if let Some(value) = self.rule {
            let x = self.x.place(value, area.x0, area.x1);
            let stroke = Stroke { colour: colour(1), width: 0.9, dash: &[2.5, 1.5] };
            scene.items.push(Item::Line { points: vec![[x, area.y0], [x, area.y1]], stroke });
        }
        if self.front.len() > 1 {
            let mut points = Vec::new();
            for ends in self.front.windows(2) {
                let ([x0, y0], [x1, y1]) = (at(&ends[0]), at(&ends[1]));
                points.extend([[x0, y0], [x1, y0], [x1, y1]]);
            }
            scene.line(points, GREY, 0.7);
        }
        let finite = |(x, y): &&(f64, f64)| x.is_finite() && y.is_finite();
        for series in self.series.iter().filter(|series| series.joined) {
            for part in series.points.split(|point| !finite(&point)) {
                let stroke =
                    Stroke { colour: colour(series.look), width: 0.9, dash: dash(series.look) };
                scene.items.push(Item::Line { points: part.iter().map(at).collect(), stroke });
            }
        }
        for series in &self.series {
            let Some(hollow) = series.marked else { continue };
            let (colour, marker) = (colour(series.look), marker(series.look));
            // Long curves have a mark here and there.
            let every = series.points.len().div_ceil(16).max(1);
            let last = series.points.len().saturating_sub(1);
            let shown = series.points.iter().enumerate();
            let shown = shown.filter(|(i, _)| i % every == 0 || *i == last).map(|(_, point)| point);
            for point in shown.filter(finite) {
                let radius = if series.joined { 1.7 } else { 2.4 };
                scene.items.push(Item::Mark { at: at(point), radius, marker, colour, hollow });
            }
        }
        scene.items.extend(self.names(fonts, area).unwrap_or_default().into_iter().map(Item::Text));
    }

    /// Names beside their points; none at all where one would touch another, a point or the border.
    pub(super) fn names(&self, fonts: &Fonts, area: Area) -> Option<Vec<Text>> {
        let at = |&(x, y): &(f64, f64)| {
            [self.x.place(x, area.x0, area.x1), self.y.place(y, area.y1, area.y0)]
        };
        let mark = |[x, y]: Point| Area { x0: x - 2.8, y0: y - 2.8, x1: x + 2.8, y1: y + 2.8 };
        let marks: Vec<Area> =
            self.series.iter().flat_map(|s| s.points.iter().map(|point| mark(at(point)))).collect();
        let mut placed: Vec<Text> = Vec::new();
        for series in &self.series {
            let (Some(name), Some(point)) = (&series.name, series.points.first()) else { continue };
            let [x, y] = at(point);
            let middle = y + 0.36 * SMALL;
            let sides = [
                ([x + 4.5, middle], Align::Left),
                ([x - 4.5, middle], Align::Right),
                ([x, y - 5.0], Align::Middle),
                ([x, y + 9.5], Align::Middle),
                ([x + 3.5, y - 4.0], Align::Left),
                ([x + 3.5, y + 8.5], Align::Left),
                ([x - 3.5, y - 4.0], Align::Right),
                ([x - 3.5, y + 8.5], Align::Right),
            ];
            let texts = sides.map(|(place, align)| {
                TextStyle { colour: INK, ..TextStyle::new(SMALL, align) }
                    .measure(fonts, name, place)
            });
            let free = texts.into_iter().find(|text| {
                let covers = text.area();
                covers.inside(&area)
                    && !marks.iter().any(|mark| mark.overlaps(&covers))
                    && !placed.iter().any(|other| other.area().overlaps(&covers))
            });
            placed.push(free?);
        }
        Some(placed)
    }
}
