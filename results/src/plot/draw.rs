//! Draws a [`Scene`] with any backend of plotters.

use std::convert::Infallible;

use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontFamily, FontStyle,
};

use super::scene::{Area, Fonts, Item, Point, Scene, Stroke, Text};
use super::style::Marker;
use crate::font::Face;
use crate::picture::Rgb;

/// White: paper, stripes, the inside of hollow marks.
const PAPER: Rgb = [255, 255, 255];
/// How much of a tint covers what is below it.
const TINT: f64 = 0.15;
/// Distance and width of a bar's stripes.
const STRIPES: (f32, f32) = (3.4, 0.7);

type Drawn<B> = Result<(), DrawingErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Draws on a backend with `scale` of its units in a point.
pub(super) fn draw<B: DrawingBackend>(
    scene: &Scene,
    fonts: &Fonts,
    backend: &mut B,
    scale: f32,
) -> Drawn<B> {
    let canvas = Canvas { scale };
    let whole = Area { x0: 0.0, y0: 0.0, x1: scene.width, y1: scene.height };
    canvas.rect(backend, whole, PAPER)?;
    for item in &scene.items {
        match item {
            Item::Line { points, stroke } => {
                for part in dashes(points, stroke.dash) {
                    canvas.line(backend, &part, *stroke)?;
                }
            }
            Item::Rect { area, fill, hatch } => {
                canvas.rect(backend, *area, *fill)?;
                for [from, to] in stripes(*area, *hatch) {
                    let stroke = Stroke { colour: PAPER, width: STRIPES.1, dash: &[] };
                    canvas.line(backend, &[from, to], stroke)?;
                }
            }
            Item::Tint { points, colour } => {
                let paint = Paint { colour: *colour, width: 1, alpha: TINT };
                backend.fill_polygon(points.iter().map(|point| canvas.at(*point)), &paint)?;
            }
            Item::Mark { at, radius, marker, colour, hollow } => {
                canvas.mark(backend, *at, *radius, *marker, *colour)?;
                if *hollow {
                    canvas.mark(backend, *at, radius - 0.8, *marker, PAPER)?;
                }
            }
            Item::Text(text) => {
                let style = Letters { text, face: fonts.face(text.bold), scale };
                backend.draw_text(&text.text, &style, canvas.at([text.x, text.baseline]))?;
            }
        }
    }
    backend.present()
}

struct Canvas {
    scale: f32,
}

impl Canvas {
    fn at(&self, [x, y]: Point) -> BackendCoord {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn line<B: DrawingBackend>(
        &self,
        backend: &mut B,
        points: &[Point],
        stroke: Stroke,
    ) -> Drawn<B> {
        let width = (stroke.width * self.scale).round().max(1.0) as u32;
        let mut path: Vec<_> = points.iter().map(|point| self.at(*point)).collect();
        path.dedup();
        // A path of one place has no direction, and plotters' own backends cannot draw it.
        if path.len() < 2 {
            return Ok(());
        }
        backend.draw_path(path, &Paint { colour: stroke.colour, width, alpha: 1.0 })
    }

    fn rect<B: DrawingBackend>(&self, backend: &mut B, area: Area, fill: Rgb) -> Drawn<B> {
        let (from, to) = (self.at([area.x0, area.y0]), self.at([area.x1, area.y1]));
        if from.0 >= to.0 || from.1 >= to.1 {
            return Ok(());
        }
        backend.draw_rect(from, to, &Paint { colour: fill, width: 1, alpha: 1.0 }, true)
    }

    fn mark<B: DrawingBackend>(
        &self,
        backend: &mut B,
        [x, y]: Point,
        radius: f32,
        marker: Marker,
        colour: Rgb,
    ) -> Drawn<B> {
        let paint = Paint { colour, width: 1, alpha: 1.0 };
        // Shapes of about the same area.
        let corners: &[Point] = match marker {
            Marker::Circle => {
                let radius = (radius * self.scale).round().max(1.0) as u32;
                return backend.draw_circle(self.at([x, y]), radius, &paint, true);
            }
            Marker::Square => &[[-0.88, -0.88], [0.88, -0.88], [0.88, 0.88], [-0.88, 0.88]],
            Marker::Triangle => &[[0.0, -1.2], [1.15, 0.85], [-1.15, 0.85]],
            Marker::Diamond => &[[0.0, -1.3], [1.15, 0.0], [0.0, 1.3], [-1.15, 0.0]],
            Marker::Wedge => &[[0.0, 1.2], [1.15, -0.85], [-1.15, -0.85]],
        };
        let corners = corners.iter().map(|[dx, dy]| self.at([x + dx * radius, y + dy * radius]));
        backend.fill_polygon(corners, &paint)
    }
}

/// The parts of a line that are drawn.
fn dashes(points: &[Point], pattern: &[f32]) -> Vec<Vec<Point>> {
    let whole: f32 = pattern.iter().sum();
    if whole <= 0.0 {
        return vec![points.to_vec()];
    }
    let (mut parts, mut at, mut left, mut open) = (Vec::new(), 0, pattern[0], Vec::new());
    open.extend(points.first().copied());
    for ends in points.windows(2) {
        let ([x0, y0], [x1, y1]) = (ends[0], ends[1]);
        let length = (x1 - x0).hypot(y1 - y0);
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let place = [x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length];
            // Dashes have even places in the pattern, gaps odd ones.
            if at % 2 == 0 {
                open.push(place);
                parts.push(std::mem::take(&mut open));
            } else {
                open = vec![place];
            }
            at = (at + 1) % pattern.len();
            left = pattern[at];
        }
        left -= length - done;
        if at % 2 == 0 {
            open.push([x1, y1]);
        }
    }
    parts.push(open);
    parts.retain(|part| part.len() > 1);
    parts
}

/// Diagonals of a rectangle: 1 rising, 2 falling, 3 both.
fn stripes(area: Area, hatch: u8) -> Vec<[Point; 2]> {
    let (width, height) = (area.x1 - area.x0, area.y1 - area.y0);
    let mut lines = Vec::new();
    let mut along = STRIPES.0;
    while hatch > 0 && width > 0.0 && height > 0.0 && along < width + height {
        // Both ends on the rectangle's sides, `along` from a corner.
        let from = [along.min(width), (along - width).max(0.0)];
        let to = [(along - height).max(0.0), along.min(height)];
        if hatch & 1 == 1 {
            lines.push([from, to].map(|[x, y]| [area.x0 + x, area.y0 + y]));
        }
        if hatch & 2 == 2 {
            lines.push([from, to].map(|[x, y]| [area.x0 + x, area.y1 - y]));
        }
        along += STRIPES.0;
    }
    lines
}

struct Paint {
    colour: Rgb,
    width: u32,
    alpha: f64,
}

impl BackendStyle for Paint {
    fn color(&self) -> BackendColor {
        paint(self.colour, self.alpha)
    }

    fn stroke_width(&self) -> u32 {
        self.width
    }
}

fn paint([r, g, b]: Rgb, alpha: f64) -> BackendColor {
    BackendColor { alpha, rgb: (r, g, b) }
}

/// Text for plotters, measured and drawn with the program's own font; its place is the start of the
/// baseline.
struct Letters<'a> {
    text: &'a Text,
    face: &'a Face,
    scale: f32,
}

impl BackendTextStyle for Letters<'_> {
    type FontError = Infallible;

    fn color(&self) -> BackendColor {
        paint(self.text.colour, 1.0)
    }

    fn size(&self) -> f64 {
        f64::from(self.text.size * self.scale)
    }

    fn style(&self) -> FontStyle {
        if self.text.bold { FontStyle::Bold } else { FontStyle::Normal }
    }

    fn family(&self) -> FontFamily<'_> {
        FontFamily::Name("Noto Sans")
    }

    fn layout_box(&self, _: &str) -> Result<((i32, i32), (i32, i32)), Infallible> {
        let end = |length: f32| (length * self.scale).round() as i32;
        Ok(((0, 0), (end(self.text.width), end(self.text.size))))
    }

    fn draw<E, F: FnMut(i32, i32, BackendColor) -> Result<(), E>>(
        &self,
        text: &str,
        (left, baseline): BackendCoord,
        mut dot: F,
    ) -> Result<Result<(), E>, Infallible> {
        let mut done = Ok(());
        self.face.draw(text, self.text.size * self.scale, |x, y, coverage| {
            if done.is_ok() {
                let colour = paint(self.text.colour, f64::from(coverage.min(1.0)));
                done = dot(left + x as i32, baseline + y as i32, colour);
            }
        });
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_go_round_corners_and_cover_their_share() {
        let corner = [[0.0, 0.0], [5.0, 0.0], [5.0, 5.0]];
        assert_eq!(dashes(&corner, &[]), [corner.to_vec()]);
        let parts = dashes(&corner, &[3.0, 1.0]);
        assert_eq!(parts[1], [[4.0, 0.0], [5.0, 0.0], [5.0, 2.0]]);
        let length = |part: &Vec<Point>| -> f32 {
            part.windows(2).map(|w| (w[1][0] - w[0][0]).hypot(w[1][1] - w[0][1])).sum()
        };
        assert!((parts.iter().map(length).sum::<f32>() - 8.0).abs() < 1e-4);
    }

    #[test]
    fn stripes_stay_inside() {
        let area = Area { x0: 10.0, y0: 20.0, x1: 40.0, y1: 26.0 };
        for hatch in 1..4 {
            let lines = stripes(area, hatch);
            assert!(lines.len() >= 9);
            for [x, y] in lines.into_iter().flatten() {
                assert!((9.99..40.01).contains(&x) && (19.99..26.01).contains(&y), "{x} {y}");
            }
        }
        assert!(stripes(area, 0).is_empty());
    }
}
