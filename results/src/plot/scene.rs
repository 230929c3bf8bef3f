//! A figure as shapes and measured text, in points (1/72 inch), before anything is drawn.

use ab_glyph::InvalidFont;

use super::style::Marker;
use crate::font::Face;
use crate::picture::Rgb;
use crate::text::clean;

/// A place, right and down from the upper left corner.
pub(super) type Point = [f32; 2];

/// Size of running text.
pub(super) const TEXT: f32 = 7.0;
/// Size of notes and ticks.
pub(super) const SMALL: f32 = 6.0;

/// Above the baseline and below it, in em: what letters of Latin and most other scripts fill.
const ASCENT: f32 = 0.8;
const DESCENT: f32 = 0.24;

/// The two weights of the font.
pub(super) struct Fonts {
    regular: Face,
    bold: Face,
}

impl Fonts {
    /// The fonts that are part of the program.
    pub(super) fn load() -> Result<Self, InvalidFont> {
        Ok(Self { regular: Face::regular()?, bold: Face::bold()? })
    }

    pub(super) fn face(&self, bold: bool) -> &Face {
        if bold { &self.bold } else { &self.regular }
    }

    /// Width of regular text.
    pub(super) fn width(&self, text: &str, size: f32) -> f32 {
        self.regular.width(text, size)
    }

    /// Regular text cut in the middle to at most `width`.
    pub(super) fn fit(&self, text: &str, size: f32, width: f32) -> String {
        self.regular.fit(&clean(text), size, width)
    }

    /// Text in lines of at most `width`, broken at spaces; a longer word is cut.
    pub(super) fn wrap(&self, text: &str, size: f32, width: f32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in clean(text).split_whitespace() {
            let longer = lines.last().map(|line| format!("{line} {word}"));
            match longer.filter(|line| self.width(line, size) <= width) {
                Some(longer) => {
                    lines.pop();
                    lines.push(longer);
                }
                None => lines.push(self.fit(word, size, width)),
            }
        }
        lines
    }
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stroke {
    pub(super) colour: Rgb,
    pub(super) width: f32,
    /// Lengths of dashes and gaps in turn; empty for a whole line.
    pub(super) dash: &'static [f32],
}

/// One shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Line {
        points: Vec<Point>,
        stroke: Stroke,
    },
    /// Filled, with white stripes where `hatch` is not 0.
    Rect {
        area: Area,
        fill: Rgb,
        hatch: u8,
    },
    /// A polygon that lets through what is below it.
    Tint {
        points: Vec<Point>,
        colour: Rgb,
    },
    Mark {
        at: Point,
        radius: f32,
        marker: Marker,
        colour: Rgb,
        hollow: bool,
    },
    Text(Text),
}

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) x0: f32,
    pub(super) y0: f32,
    pub(super) x1: f32,
    pub(super) y1: f32,
}

impl Area {
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.x0 < other.x1 && other.x0 < self.x1 && self.y0 < other.y1 && other.y0 < self.y1
    }

    pub(super) fn inside(&self, outer: &Self) -> bool {
        self.x0 >= outer.x0 && self.x1 <= outer.x1 && self.y0 >= outer.y0 && self.y1 <= outer.y1
    }
}

/// Text that starts at `x` on a baseline.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub(super) x: f32,
    pub(super) baseline: f32,
    pub(super) width: f32,
    pub(super) size: f32,
    pub(super) bold: bool,
    pub(super) colour: Rgb,
    pub(super) text: String,
}

impl Text {
    /// What the text covers.
    pub(super) fn area(&self) -> Area {
        Area {
            x0: self.x,
            y0: self.baseline - ASCENT * self.size,
            x1: self.x + self.width,
            y1: self.baseline + DESCENT * self.size,
        }
    }
}

/// Where `x` is in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Middle,
    Right,
}

/// Dark enough on white for small print.
pub(super) const INK: Rgb = [34, 34, 34];
/// Text of second rank.
pub(super) const GREY: Rgb = [85, 85, 85];
/// Lines behind the data.
pub(super) const GRID: Rgb = [222, 222, 222];

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scene {
    pub(super) width: f32,
    pub(super) height: f32,
    /// What it shows, in a sentence, for readers who do not see it.
    pub(super) title: String,
    pub(super) items: Vec<Item>,
}

impl Scene {
    pub(super) fn line(&mut self, points: Vec<Point>, colour: Rgb, width: f32) {
        self.items.push(Item::Line { points, stroke: Stroke { colour, width, dash: &[] } });
    }

    pub(super) fn rect(&mut self, area: Area, fill: Rgb, hatch: u8) {
        self.items.push(Item::Rect { area, fill, hatch });
    }

    /// Text measured now, so that what is drawn has its place.
    pub(super) fn text(&mut self, fonts: &Fonts, text: &str, at: Point, style: TextStyle) {
        self.items.push(Item::Text(style.measure(fonts, text, at)));
    }

    /// Every text of the figure.
    #[cfg(test)]
    pub(super) fn texts(&self) -> impl Iterator<Item = &Text> {
        self.items.iter().filter_map(|item| match item {
            Item::Text(text) => Some(text),
            _ => None,
        })
    }
}

/// How text looks and hangs at its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextStyle {
    pub(super) size: f32,
    pub(super) bold: bool,
    pub(super) colour: Rgb,
    pub(super) align: Align,
}

impl TextStyle {
    pub(super) const fn new(size: f32, align: Align) -> Self {
        Self { size, bold: false, colour: INK, align }
    }

    pub(super) fn measure(self, fonts: &Fonts, text: &str, [x, baseline]: Point) -> Text {
        let text = clean(text);
        let width = fonts.face(self.bold).width(&text, self.size);
        let x = match self.align {
            Align::Left => x,
            Align::Middle => x - width / 2.0,
            Align::Right => x - width,
        };
        Text { x, baseline, width, size: self.size, bold: self.bold, colour: self.colour, text }
    }
}
