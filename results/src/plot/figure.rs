//! A figure: panels in columns, a legend and notes below them.

use super::matrix::Matrix;
use super::rows::Rows;
use super::scene::Area;
use super::scene::{Align, Fonts, GREY, Item, SMALL, Scene, Stroke, TEXT, TextStyle};
use super::style::{colour, dash, hatch, marker};
use super::xy::Xy;

/// Around everything.
const MARGIN: f32 = 3.0;
/// Between panels.
const GAP: f32 = 12.0;
/// From one line of the legend or the notes to the next.
const LINE: f32 = 8.6;

/// One of a figure's charts.
#[derive(Clone, Debug)]
pub(super) enum Panel {
    Xy(Xy),
    Rows(Rows),
    Matrix(Matrix),
}

/// What stands beside a name in the legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A line with marks.
    Line,
    /// Marks alone.
    Mark,
    /// A bar.
    Bar,
}

/// Everything of a figure, before it has places.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// What it shows, for readers who do not see it.
    pub(super) title: String,
    pub(super) panels: Vec<Panel>,
    /// The most panels beside one another at double width.
    pub(super) columns: usize,
    /// Series and their names; a series' number decides its look in every panel.
    pub(super) legend: Vec<(usize, String)>,
    pub(super) key: Key,
    pub(super) notes: Vec<String>,
}

impl Panel {
    fn height(&self, fonts: &Fonts, width: f32) -> f32 {
        match self {
            Self::Xy(panel) => panel.height(fonts, width),
            Self::Rows(panel) => panel.height(fonts, width),
            Self::Matrix(panel) => panel.height(fonts, width),
        }
    }

    fn place(&self, scene: &mut Scene, fonts: &Fonts, at: [f32; 2], width: f32) {
        match self {
            Self::Xy(panel) => panel.place(scene, fonts, at, width),
            Self::Rows(panel) => panel.place(scene, fonts, at, width),
            Self::Matrix(panel) => panel.place(scene, fonts, at, width),
        }
    }
}

impl Figure {
    /// Titles, names and what stands below titles.
    pub(super) fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.legend.iter().map(|(_, name)| name.clone()).collect();
        for panel in &self.panels {
            match panel {
                Panel::Xy(panel) => {
                    texts.push(panel.title.clone());
                    texts.extend(panel.below.iter().cloned());
                }
                Panel::Rows(panel) => {
                    texts.extend(panel.rows.iter().map(|row| row.name.clone()));
                    texts.extend(panel.below.iter().cloned());
                }
                Panel::Matrix(panel) => {
                    texts.extend(panel.rows.iter().chain(&panel.below).cloned());
                }
            }
        }
        texts
    }

    /// The figure with everything at its place, `width` points wide and as high as it needs.
    pub(super) fn layout(&self, fonts: &Fonts, width: f32, double: bool) -> Scene {
        let mut scene = Scene { width, height: 0.0, title: self.title.clone(), items: Vec::new() };
        let columns = if double { self.columns.min(self.panels.len()).max(1) } else { 1 };
        let inner = width - 2.0 * MARGIN;
        let each = (inner - GAP * (columns - 1) as f32) / columns as f32;
        let mut y = MARGIN;
        for row in self.panels.chunks(columns) {
            let mut highest = 0.0_f32;
            for (column, panel) in row.iter().enumerate() {
                let x = MARGIN + column as f32 * (each + GAP);
                panel.place(&mut scene, fonts, [x, y], each);
                highest = highest.max(panel.height(fonts, each));
            }
            y += highest + GAP * 0.7;
        }
        y = self.place_legend(&mut scene, fonts, inner, y);
        for note in &self.notes {
            for line in fonts.wrap(note, SMALL, inner) {
                let style = TextStyle { colour: GREY, ..TextStyle::new(SMALL, Align::Left) };
                scene.text(fonts, &line, [MARGIN, y + SMALL], style);
                y += LINE;
            }
        }
        scene.height = y + MARGIN;
        scene
    }

    /// The legend in as many columns as its longest name allows; the y below it.
    fn place_legend(&self, scene: &mut Scene, fonts: &Fonts, width: f32, from: f32) -> f32 {
        let sample = if self.key == Key::Line { 19.0 } else { 11.0 };
        let longest =
            self.legend.iter().map(|(_, name)| fonts.width(name, TEXT)).fold(0.0, f32::max);
        let each = (longest + sample + 8.0).min(width);
        let columns = ((width / each) as usize).clamp(1, self.legend.len().max(1));
        let rows = self.legend.len().div_ceil(columns);
        for (i, (series, name)) in self.legend.iter().enumerate() {
            // Down the columns: neighbours in order stand below one another.
            let x = MARGIN + (i / rows) as f32 * each;
            let y = from + (i % rows) as f32 * LINE;
            let middle = y + 0.5 * TEXT;
            match self.key {
                Key::Bar => {
                    let area = Area { x0: x, y0: middle - 2.8, x1: x + 8.0, y1: middle + 2.8 };
                    scene.rect(area, colour(*series), hatch(*series));
                }
                Key::Line | Key::Mark => {
                    if self.key == Key::Line {
                        scene.items.push(Item::Line {
                            points: vec![[x, middle], [x + 16.0, middle]],
                            stroke: Stroke {
                                colour: colour(*series),
                                width: 0.9,
                                dash: dash(*series),
                            },
                        });
                    }
                    let at = [x + if self.key == Key::Line { 8.0 } else { 4.0 }, middle];
                    let (colour, marker) = (colour(*series), marker(*series));
                    scene.items.push(Item::Mark { at, radius: 2.2, marker, colour, hollow: false });
                }
            }
            let name = fonts.fit(name, TEXT, each - sample - 4.0);
            let style = TextStyle::new(TEXT, Align::Left);
            scene.text(fonts, &name, [x + sample, y + TEXT * 0.86], style);
        }
        if rows == 0 { from } else { from + rows as f32 * LINE + 3.0 }
    }
}

/// Title and lines below it at the top of a panel; the height they take.
pub(super) fn heading_height(fonts: &Fonts, below: &[String], width: f32) -> f32 {
    let lines: usize = below.iter().map(|text| fonts.wrap(text, SMALL, width).len()).sum();
    10.0 + lines as f32 * 7.8 + 2.0
}

/// Writes what [`heading_height`] measures; the y below it.
pub(super) fn place_heading(
    scene: &mut Scene,
    fonts: &Fonts,
    [x, y]: [f32; 2],
    width: f32,
    (title, below): (&str, &[String]),
) -> f32 {
    let style = TextStyle { bold: true, ..TextStyle::new(TEXT, Align::Left) };
    let title = fonts.face(true).fit(&crate::text::clean(title), TEXT, width);
    scene.text(fonts, &title, [x, y + TEXT], style);
    let mut baseline = y + 10.0 + SMALL;
    for line in below.iter().flat_map(|text| fonts.wrap(text, SMALL, width)) {
        let style = TextStyle { colour: GREY, ..TextStyle::new(SMALL, Align::Left) };
        scene.text(fonts, &line, [x, baseline], style);
        baseline += 7.8;
    }
    y + heading_height(fonts, below, width)
}

/// Labels of places along a line, each in the middle of its place and inside `from..to`; one that
/// would touch the one before it is left out.
pub(super) fn place_along(
    scene: &mut Scene,
    fonts: &Fonts,
    labels: impl IntoIterator<Item = (f32, String)>,
    baseline: f32,
    (from, to): (f32, f32),
) {
    let mut free = from;
    for (middle, label) in labels {
        let style = TextStyle::new(SMALL, Align::Left);
        let label = fonts.fit(&label, SMALL, to - from);
        let width = fonts.width(&label, SMALL);
        let x = (middle - width / 2.0).min(to - width).max(from);
        if x >= free {
            scene.text(fonts, &label, [x, baseline], style);
            free = x + width + 2.5;
        }
    }
}
