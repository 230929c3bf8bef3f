//! Text without the machine's fonts: Noto Sans (SIL Open Font License 1.1) is part of the program.

use ab_glyph::{Font, FontRef, InvalidFont, ScaleFont, point};

/// One weight of the font.
pub(crate) struct Face(FontRef<'static>);

impl Face {
    /// Noto Sans Regular.
    pub(crate) fn regular() -> Result<Self, InvalidFont> {
        FontRef::try_from_slice(notosans::REGULAR_TTF).map(Self)
    }

    /// Noto Sans Bold.
    pub(crate) fn bold() -> Result<Self, InvalidFont> {
        FontRef::try_from_slice(notosans::BOLD_TTF).map(Self)
    }

    /// Width in pixels of `text` at `em` pixels.
    pub(crate) fn width(&self, text: &str, em: f32) -> f32 {
        self.pens(text, em).1
    }

    /// Calls `dot(x, y, coverage)` for every pixel that `text` touches, in pixels right of the start
    /// and below the baseline (above it, y is negative); the coverage is in 0..=1.
    pub(crate) fn draw(&self, text: &str, em: f32, mut dot: impl FnMut(i64, i64, f32)) {
        for glyph in self.pens(text, em).0 {
            if let Some(outline) = self.0.outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                outline.draw(|x, y, coverage| {
                    dot(corner.x as i64 + i64::from(x), corner.y as i64 + i64::from(y), coverage);
                });
            }
        }
    }

    /// `text` itself where it is at most `width` pixels wide, else its two ends around an ellipsis:
    /// of a file's path, the end tells it from others.
    pub(crate) fn fit(&self, text: &str, em: f32, width: f32) -> String {
        let letters: Vec<char> = text.chars().collect();
        let mut shown = text.to_owned();
        let mut kept = letters.len();
        while kept > 0 && self.width(&shown, em) > width {
            kept -= 1;
            let tail = letters.len() - kept / 2;
            let head = &letters[..kept - kept / 2];
            shown = head.iter().chain(&['…']).chain(&letters[tail..]).collect();
        }
        shown
    }

    /// The glyphs at their places, and where the next would start.
    fn pens(&self, text: &str, em: f32) -> (Vec<ab_glyph::Glyph>, f32) {
        let units = self.0.units_per_em().unwrap_or(1000.0);
        let font = self.0.as_scaled(em * self.0.height_unscaled() / units);
        let (mut pen, mut glyphs) = (0.0, Vec::new());
        for letter in text.chars() {
            let mut glyph = font.scaled_glyph(letter);
            if let Some(previous) = glyphs.last() {
                let previous: &ab_glyph::Glyph = previous;
                pen += font.kern(previous.id, glyph.id);
            }
            glyph.position = point(pen, 0.0);
            pen += font.h_advance(glyph.id);
            glyphs.push(glyph);
        }
        (glyphs, pen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_grow_with_text_and_size() {
        let face = Face::regular().unwrap();
        assert_eq!(face.width("", 16.0), 0.0);
        let one = face.width("m", 16.0);
        assert!((10.0..20.0).contains(&one), "{one}");
        assert!((face.width("mm", 16.0) - 2.0 * one).abs() < 0.01);
        assert!((face.width("m", 32.0) - 2.0 * one).abs() < 0.01);
        assert!(Face::bold().unwrap().width("m", 16.0) > one);
    }

    #[test]
    fn capitals_stand_on_the_baseline() {
        let (mut top, mut bottom, mut ink) = (0, i64::MIN, 0.0);
        Face::regular().unwrap().draw("H", 20.0, |_, y, coverage| {
            if coverage > 0.5 {
                (top, bottom) = (top.min(y), bottom.max(y));
            }
            ink += coverage;
        });
        assert_eq!((top, bottom), (-14, -1), "0.714 em above the baseline");
        assert!(ink > 30.0);
    }

    #[test]
    fn long_text_keeps_its_ends() {
        let face = Face::regular().unwrap();
        assert_eq!(face.fit("short", 16.0, 200.0), "short");
        let shown = face.fit("basement_0001a/rgb_00012.jpg", 16.0, 120.0);
        assert!(face.width(&shown, 16.0) <= 120.0);
        assert!(
            shown.starts_with("base") && shown.ends_with(".jpg") && shown.contains('…'),
            "{shown}"
        );
        assert_eq!(face.fit("wide", 16.0, 1.0), "…");
    }
}
