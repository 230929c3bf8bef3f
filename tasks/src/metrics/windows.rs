/// A square window over an image; the part beyond the image's edge is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows inside the image, at most the window's side.
    pub height: usize,
    /// Columns inside the image, at most the window's side.
    pub width: usize,
}

/// The windows of an image of `height` x `width` pixels, row by row: starts at 0, `stride`,
/// 2 `stride`, ... while inside the image (PROTOCOL section 3). A window over the edge is not shifted.
pub fn windows(height: usize, width: usize, side: usize, stride: usize) -> Vec<Window> {
    let starts = |size: usize| (0..size).step_by(stride.max(1));
    let window = |top: usize, left: usize| Window {
        top,
        left,
        height: side.min(height - top),
        width: side.min(width - left),
    };
    starts(height).flat_map(|top| starts(width).map(move |left| window(top, left))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nyuv2_has_three_by_four() {
        let all = windows(426, 560, 256, 170);
        assert_eq!(all.len(), 12);
        assert_eq!(all[0], Window { top: 0, left: 0, height: 256, width: 256 });
        assert_eq!(all[11], Window { top: 340, left: 510, height: 86, width: 50 });
    }

    proptest! {
        #[test]
        fn every_pixel_is_covered_and_no_window_leaves_the_image(
            height in 1usize..600, width in 1usize..600, side in 1usize..300, part in 1usize..100,
        ) {
            let stride = (side * part).div_ceil(100);
            let mut covered = vec![false; height * width];
            for window in windows(height, width, side, stride) {
                prop_assert!(window.height > 0 && window.width > 0);
                for row in window.top..window.top + window.height {
                    covered[row * width + window.left..][..window.width].fill(true);
                }
            }
            prop_assert!(covered.into_iter().all(|pixel| pixel));
        }
    }
}
