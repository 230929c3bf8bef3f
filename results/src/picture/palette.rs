//! Colours of classes.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use super::Rgb;
use super::segmentation::{IGNORED, WRONG};

/// Steps of each channel: neither black nor white, which paper and text have.
const LEVELS: [u8; 12] = [28, 47, 66, 85, 104, 123, 142, 161, 180, 199, 218, 237];
/// By how much a colour's largest and smallest channels differ: greys are ignored pixels, and
/// glaring colours hide small areas beside them.
const CHROMA: RangeInclusive<u8> = 38..=160;
/// The first colour, and what the others also keep away from.
const FIRST: Rgb = [66, 123, 180];
const AWAY: [Rgb; 4] = [[0, 0, 0], [255, 255, 255], IGNORED, WRONG];

/// Each colour is the one of the grid farthest from all before it, so the first few differ most.
static COLOURS: LazyLock<Vec<Rgb>> = LazyLock::new(|| {
    let grid = LEVELS
        .iter()
        .flat_map(|&r| LEVELS.iter().flat_map(move |&g| LEVELS.iter().map(move |&b| [r, g, b])));
    let mut left: Vec<(Rgb, i64)> = grid
        .filter(|[r, g, b]| CHROMA.contains(&(r.max(g).max(b) - r.min(g).min(b))))
        .map(|colour| (colour, AWAY.iter().map(|&away| distance(colour, away)).min().unwrap_or(0)))
        .collect();
    let mut colours = vec![FIRST];
    while colours.len() < 256
        && let Some(&last) = colours.last()
    {
        for (colour, nearest) in &mut left {
            *nearest = (*nearest).min(distance(*colour, last));
        }
        // Of several, the first on the grid.
        let Some(&(next, _)) = left.iter().rev().max_by_key(|(_, nearest)| *nearest) else { break };
        colours.push(next);
    }
    colours
});

/// The colour of class `class`: fixed, distinct from every other class's, no grey.
pub fn class_colour(class: u8) -> Rgb {
    COLOURS.get(usize::from(class)).copied().unwrap_or(FIRST)
}

/// Squared distance of two colours, the channels weighted by the mean red ("redmean", T. Riemersma):
/// closer to what the eye sees than RGB, in whole numbers and so the same on every machine.
fn distance(a: Rgb, b: Rgb) -> i64 {
    let [r, g, b_] = [0, 1, 2].map(|channel| i64::from(a[channel]) - i64::from(b[channel]));
    let mean = (i64::from(a[0]) + i64::from(b[0])) / 2;
    (((512 + mean) * r * r) >> 8) + 4 * g * g + (((767 - mean) * b_ * b_) >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_distinct_and_never_grey() {
        let colours: Vec<Rgb> = (0..=255).map(class_colour).collect();
        for (k, &colour) in colours.iter().enumerate() {
            let [r, g, b] = colour;
            assert!(
                CHROMA.contains(&(r.max(g).max(b) - r.min(g).min(b))),
                "class {k} is grey: {colour:?}"
            );
            let nearest = colours[..k].iter().map(|&other| distance(colour, other)).min();
            let bound = if k < 24 { 5_000 } else { 1_000 };
            assert!(nearest.is_none_or(|nearest| nearest >= bound), "class {k}: {nearest:?}");
        }
    }

    #[test]
    fn neighbours_differ_more_than_any_two_must() {
        for k in 0..255 {
            let apart = distance(class_colour(k), class_colour(k + 1));
            assert!(apart >= 2_000, "classes {k} and {}: {apart}", k + 1);
        }
    }

    #[test]
    fn colours_stay_as_they_are() {
        insta::assert_debug_snapshot!(
            [0, 1, 2, 3, 20, 149, 255].map(class_colour).map(|c| format!("{c:?}"))
        );
    }
}
