//! Pixels, boxes and text.

use ndarray::ArrayView3;

use super::layout::{Layout, NAMES, Rect};
use super::scale::{ColourMap, Scale};
use super::{PictureError, Rgb};
use crate::font::Face;

pub(super) const INK: Rgb = [34, 34, 34];
const QUIET: Rgb = [90, 90, 90];
const LINE: Rgb = [150, 150, 150];

/// Where text stands against its x.
#[derive(Clone, Copy)]
pub(super) enum Align {
    Left,
    Centre,
}

/// A white picture that is drawn on.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    regular: Face,
    bold: Face,
    em: f32,
}

impl Canvas {
    /// A white picture with text of `em` pixels.
    pub(super) fn blank((height, width): (usize, usize), em: f32) -> Result<Self, PictureError> {
        let pixels = vec![255; width * height * 3];
        let (regular, bold) = (Face::regular()?, Face::bold()?);
        Ok(Self { width, height, pixels, regular, bold, em })
    }

    /// A picture of `height` with title, caption and the names of the panels.
    pub(super) fn with_head(
        layout: &Layout,
        height: usize,
        title: &str,
        caption: &str,
    ) -> Result<Self, PictureError> {
        let mut canvas = Self::blank((height, layout.width), layout.em)?;
        let em = layout.em * 1.1;
        let title = canvas.bold.fit(title, em, layout.inner() as f32);
        draw(
            &mut canvas.pixels,
            layout.width,
            &canvas.bold,
            &title,
            em,
            (layout.margin, layout.title),
            INK,
        );
        let caption = canvas.fit(caption, layout.inner());
        canvas.text(&caption, (layout.margin, layout.caption), Align::Left, QUIET);
        for (panel, name) in layout.panels.iter().zip(NAMES) {
            canvas.text(name, (panel.x, panel.y - layout.ems(0.5)), Align::Left, INK);
        }
        Ok(canvas)
    }

    /// `text`, shortened to `width` pixels.
    pub(super) fn fit(&self, text: &str, width: usize) -> String {
        self.regular.fit(text, self.em, width as f32)
    }

    /// Width of `text` in pixels.
    pub(super) fn text_width(&self, text: &str) -> usize {
        self.regular.width(text, self.em).ceil() as usize
    }

    /// Puts a panel's pixels `[height, width, 3]` on its place, with a thin line around it.
    pub(super) fn panel(&mut self, place: Rect, pixels: ArrayView3<'_, u8>) {
        self.frame(place);
        for ((y, x, channel), &value) in pixels.indexed_iter() {
            if let Some(at) = self.at(place.x + x, place.y + y) {
                self.pixels[at + channel] = value;
            }
        }
    }

    /// A colour and what it means; `top` is the upper edge of the line.
    pub(super) fn key(&mut self, (x, top): (usize, usize), colour: Rgb, meaning: &str) {
        let side = (0.85 * self.em).round() as usize;
        let swatch = Rect { x, y: top, width: side, height: side };
        self.frame(swatch);
        self.fill(swatch, colour);
        // The middle of a lower-case letter is 0.27 em above its baseline.
        let baseline = top + side / 2 + (0.3 * self.em).round() as usize;
        self.text(meaning, (x + Self::key_indent(self.em), baseline), Align::Left, INK);
    }

    /// From the left of a key to its words.
    pub(super) fn key_indent(em: f32) -> usize {
        (1.4 * em).round() as usize
    }

    /// A bar of the colours of `scale` with its ticks below and `title` below these. `beyond` tells
    /// whether values lie below and above the scale.
    pub(super) fn bar(
        &mut self,
        place: Rect,
        scale: &Scale,
        colours: ColourMap,
        title: &str,
        beyond: (bool, bool),
    ) {
        self.frame(place);
        for x in 0..place.width {
            let position = x as f64 / (place.width.max(2) - 1) as f64;
            let column = Rect { x: place.x + x, width: 1, ..place };
            self.fill(column, colours(position));
        }
        let under = place.y + place.height;
        let baseline = under + (1.15 * self.em).round() as usize;
        for (at, word) in self.labels(scale, place.width, beyond) {
            let x = (at * (place.width - 1) as f64).round() as usize;
            self.fill(Rect { x: place.x + x, y: under, width: 1, height: 4 }, LINE);
            let half = self.text_width(&word) / 2;
            let x = x.clamp(half, (place.width - half).max(half));
            self.text(&word, (place.x + x, baseline), Align::Centre, INK);
        }
        let title_at = (place.x + place.width / 2, baseline + (1.35 * self.em).round() as usize);
        self.text(title, title_at, Align::Centre, QUIET);
    }

    /// The ticks that fit `width` beside each other.
    fn labels(&self, scale: &Scale, width: usize, beyond: (bool, bool)) -> Vec<(f64, String)> {
        let mut every = 1;
        loop {
            let mut ticks = scale.ticks(every);
            if let Some((_, word)) = ticks.first_mut().filter(|_| beyond.0) {
                *word = format!("≤ {word}");
            }
            if let Some((_, word)) = ticks.last_mut().filter(|(at, _)| beyond.1 && *at == 1.0) {
                *word = format!("≥ {word}");
            }
            let gap = self.em as usize;
            let all: usize = ticks.iter().map(|(_, word)| self.text_width(word) + gap).sum();
            if all <= width || ticks.len() < 2 {
                return ticks;
            }
            every += 1;
        }
    }

    pub(super) fn text(&mut self, text: &str, at: (usize, usize), align: Align, colour: Rgb) {
        let left = match align {
            Align::Left => at.0,
            Align::Centre => at.0.saturating_sub(self.text_width(text) / 2),
        };
        draw(&mut self.pixels, self.width, &self.regular, text, self.em, (left, at.1), colour);
    }

    fn fill(&mut self, place: Rect, colour: Rgb) {
        for y in place.y..place.y + place.height {
            for x in place.x..place.x + place.width {
                if let Some(at) = self.at(x, y) {
                    self.pixels[at..at + 3].copy_from_slice(&colour);
                }
            }
        }
    }

    /// A line of one pixel around `place`, whose inside it leaves white.
    fn frame(&mut self, place: Rect) {
        let Rect { x, y, width, height } = place;
        self.fill(Rect { x: x - 1, y: y - 1, width: width + 2, height: height + 2 }, LINE);
        self.fill(place, [255; 3]);
    }

    fn at(&self, x: usize, y: usize) -> Option<usize> {
        (x < self.width && y < self.height).then_some((y * self.width + x) * 3)
    }

    /// The PNG: 8-bit RGB.
    pub(super) fn png(&self) -> Result<Vec<u8>, PictureError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// Text from `left` on the baseline, mixed with what is there.
fn draw(
    pixels: &mut [u8],
    width: usize,
    face: &Face,
    text: &str,
    em: f32,
    (left, baseline): (usize, usize),
    colour: Rgb,
) {
    face.draw(text, em, |x, y, coverage| {
        let (x, y) = (left as i64 + x, baseline as i64 + y);
        if x < 0 || x >= width as i64 || y < 0 {
            return;
        }
        let at = (y as usize * width + x as usize) * 3;
        if let Some(pixel) = pixels.get_mut(at..at + 3) {
            for (value, ink) in pixel.iter_mut().zip(colour) {
                let mixed = f32::from(*value) + (f32::from(ink) - f32::from(*value)) * coverage;
                *value = mixed.round() as u8;
            }
        }
    });
}
