//! Colours that colour-blind readers tell apart, each with a marker, a dash and a hatch: colour is
//! never the only difference.

use crate::picture::Rgb;

/// Colours of M. Okabe and K. Ito, "Color Universal Design", without their yellow, which vanishes on
/// white paper, and with a grey.
const COLOURS: [Rgb; 8] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [0, 0, 0],
    [86, 180, 233],
    [120, 120, 120],
];

/// Shapes of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Wedge,
}

const MARKERS: [Marker; 5] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Wedge];

const DASHES: [&[f32]; 4] = [&[], &[4.0, 1.5], &[1.2, 1.2], &[5.0, 1.5, 1.2, 1.5]];

/// Colour of a series. With [`marker`], the first forty differ.
pub(super) fn colour(series: usize) -> Rgb {
    COLOURS[series % COLOURS.len()]
}

/// Marker of a series.
pub(super) fn marker(series: usize) -> Marker {
    MARKERS[series % MARKERS.len()]
}

/// Dashes of a series' line.
pub(super) fn dash(series: usize) -> &'static [f32] {
    DASHES[(series + series / COLOURS.len()) % DASHES.len()]
}

/// Stripes of a series' bars: 0 none, 1 rising, 2 falling, 3 both.
pub(super) fn hatch(series: usize) -> u8 {
    (series % 4) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_series_differ_in_more_than_colour() {
        for a in 0..40 {
            for b in 0..a {
                assert!(
                    (colour(a), marker(a)) != (colour(b), marker(b)),
                    "series {a} and {b} look alike"
                );
            }
            assert_ne!(marker(a), marker(a + 1));
            assert_ne!(hatch(a), hatch(a + 1));
        }
    }

    #[test]
    fn every_colour_stands_out_on_paper() {
        // Relative luminance and contrast as in the Web Content Accessibility Guidelines 2.2; the
        // bound leaves out yellow and other pale colours.
        for [r, g, b] in COLOURS {
            let linear = |c: u8| {
                let c = f64::from(c) / 255.0;
                if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            };
            let luminance = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
            assert!(1.05 / (luminance + 0.05) > 2.0, "{r} {g} {b}");
        }
    }
}
