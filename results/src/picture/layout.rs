//! Where things stand.

/// Places in pixels from the top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// Names of the panels, in order.
pub(super) const NAMES: [&str; 4] = ["input", "truth", "prediction", "error"];

/// The head and the panels; what is below them starts at `below`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    /// Size of the text in pixels.
    pub(super) em: f32,
    /// Free border, and the gap between blocks.
    pub(super) margin: usize,
    /// Width of the picture.
    pub(super) width: usize,
    /// Baseline of the title.
    pub(super) title: usize,
    /// Baseline of the caption.
    pub(super) caption: usize,
    /// Input, truth, prediction and error.
    pub(super) panels: [Rect; 4],
    /// Width that a panel has to itself, at least its own.
    pub(super) cell: usize,
    /// Whether all stand in one row.
    pub(super) one_row: bool,
    /// Top of what is below the panels.
    pub(super) below: usize,
}

impl Layout {
    /// The layout for an image of `height` x `width` pixels (at least one each).
    pub(super) fn of(height: usize, width: usize) -> Self {
        let one_row = width <= 2 * height;
        let (high, wide) = panel(height, width, if one_row { 480 } else { 640 });
        let columns = if one_row { 4 } else { 2 };
        let em = (columns * wide) as f32 / 85.0;
        let em = em.clamp(13.0, 21.0).round();
        let ems = |count: f32| (count * em).round() as usize;
        let (margin, gap, cell) = (ems(1.0), ems(0.7), wide.max(ems(12.0)));
        let title = margin + ems(0.9);
        let caption = title + ems(1.5);
        let top = caption + ems(2.3);
        let panels = [0, 1, 2, 3].map(|index| Rect {
            x: margin + index % columns * (cell + gap),
            y: top + index / columns * (high + ems(2.0)),
            width: wide,
            height: high,
        });
        Self {
            em,
            margin,
            width: 2 * margin + columns * cell + (columns - 1) * gap,
            title,
            caption,
            panels,
            cell,
            one_row,
            below: panels[3].y + high + ems(0.8),
        }
    }

    /// `count` times the size of the text, in whole pixels.
    pub(super) fn ems(&self, count: f32) -> usize {
        (count * self.em).round() as usize
    }

    /// The width between the borders.
    pub(super) fn inner(&self) -> usize {
        self.width - 2 * self.margin
    }

    /// The bar of the depth scale, below truth and prediction in one row, else below the prediction.
    pub(super) fn depth_bar(&self) -> Rect {
        let [_, truth, prediction, _] = self.panels;
        let from = if self.one_row { truth.x } else { prediction.x };
        self.bar(from, prediction.x)
    }

    /// The bar of the error scale, below the error.
    pub(super) fn error_bar(&self) -> Rect {
        self.bar(self.panels[3].x, self.panels[3].x)
    }

    fn bar(&self, from: usize, last: usize) -> Rect {
        let width = last + self.cell - from;
        Rect { x: from, y: self.below, width, height: self.ems(0.8) }
    }

    /// Top left corner of the keys of a depth picture: below the input in one row, else below the bars.
    pub(super) fn depth_keys(&self) -> (usize, usize) {
        (self.margin, if self.one_row { self.below } else { self.below + self.ems(4.0) })
    }

    /// Height of a depth picture.
    pub(super) fn depth_height(&self, keys: usize) -> usize {
        let bars = self.below + self.ems(3.4);
        let (_, top) = self.depth_keys();
        let keys = if keys == 0 { 0 } else { top + (keys - 1) * self.ems(1.5) + self.ems(1.0) };
        bars.max(keys) + self.margin
    }
}

/// Height and width of a panel: the image's, or less with `most` a side, or, for images of less
/// than 160 pixels a side, the largest whole multiple with 320 a side.
fn panel(height: usize, width: usize, most: usize) -> (usize, usize) {
    let longest = height.max(width);
    if longest > most {
        let shrunk = |side: usize| ((side * most + longest / 2) / longest).max(1);
        (shrunk(height), shrunk(width))
    } else {
        let factor = if longest < 160 { 320 / longest } else { 1 };
        (height * factor, width * factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [(usize, usize); 10] = [
        (480, 640),
        (426, 560),
        (375, 1242),
        (1500, 2000),
        (683, 512),
        (1, 1),
        (1, 700),
        (700, 1),
        (64, 96),
        (1024, 1024),
    ];

    fn apart(a: Rect, b: Rect) -> bool {
        a.x + a.width < b.x || b.x + b.width < a.x || a.y + a.height < b.y || b.y + b.height < a.y
    }

    #[test]
    fn panels_keep_the_shape_within_the_bounds() {
        assert_eq!(panel(426, 560, 480), (365, 480));
        assert_eq!(panel(375, 1242, 640), (193, 640));
        assert_eq!(panel(426, 560, 640), (426, 560));
        assert_eq!(panel(64, 96, 480), (192, 288), "a whole multiple");
        assert_eq!(panel(1, 4000, 640), (1, 640));
        assert_eq!(panel(1, 1, 480), (320, 320));
    }

    #[test]
    fn wide_images_take_two_rows() {
        let rows = |height, width| {
            let layout = Layout::of(height, width);
            layout.panels.map(|panel| usize::from(panel.y > layout.panels[0].y))
        };
        assert_eq!(rows(480, 640), [0, 0, 0, 0]);
        assert_eq!(rows(100, 200), [0, 0, 0, 0]);
        assert_eq!(rows(375, 1242), [0, 0, 1, 1]);
    }

    #[test]
    fn nothing_overlaps_or_leaves_the_picture() {
        for (height, width) in SIZES {
            let layout = Layout::of(height, width);
            let [input, truth, prediction, error] = layout.panels;
            let all = [input, truth, prediction, error, layout.depth_bar(), layout.error_bar()];
            for (index, &a) in all.iter().enumerate() {
                assert!(a.x >= layout.margin && a.x + a.width <= layout.width - layout.margin);
                assert!(a.y + a.height <= layout.depth_height(2) - layout.margin);
                assert!(all[index + 1..].iter().all(|&b| apart(a, b)), "{height}x{width}: {a:?}");
            }
            let (x, y) = layout.depth_keys();
            let keys = Rect { x, y, width: layout.cell, height: layout.ems(2.5) };
            assert!(all.iter().all(|&a| apart(a, keys)), "{height}x{width}");
            assert!(layout.title < layout.caption && layout.caption + layout.ems(1.0) < input.y);
        }
    }
}
