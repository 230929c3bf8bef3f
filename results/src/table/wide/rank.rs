use std::collections::BTreeMap;

use schema::{Direction, Selection};

use super::{Group, Line, Row, direction, shown_selection};

/// Place of a value in its column among comparable rows: trained, same protocol, same data, same head
/// and selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// The best, or shown with the same digits as the best.
    First,
    /// The next.
    Second,
    /// Any other, and everything where nothing can be compared.
    Unranked,
}

/// Marks first and second per column among rows that can be compared. Places go by the digits
/// shown: two values that look alike share one.
pub(super) fn rank(rows: &mut [Row], lines: &[Line<'_>], groups: &[Group]) {
    let columns = groups.iter().flat_map(|g| g.metrics.iter().map(move |name| (&g.heading, name)));
    for (column, (heading, name)) in columns.enumerate() {
        let Some(direction) = direction(name) else { continue };
        // What is compared with each other -> (row, value as shown)
        let mut comparable: BTreeMap<_, Vec<(usize, f64)>> = BTreeMap::new();
        for (i, (row, line)) in rows.iter().zip(lines).enumerate() {
            let (Some(Some(cell)), Some(record)) = (row.cells.get(column), line.get(heading))
            else {
                continue;
            };
            match cell.text.parse::<f64>() {
                Ok(value) if row.trained && value.is_finite() => {
                    let selection = shown_selection(record).map(Selection::as_str);
                    let data = &record.plan.data.fingerprint;
                    let key = (row.protocol.clone(), data, &record.plan.task.head, selection);
                    comparable.entry(key).or_default().push((i, value));
                }
                _ => {}
            }
        }
        for values in comparable.into_values() {
            let mut places: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
            places.sort_by(|a, b| match direction {
                Direction::Up => b.total_cmp(a),
                Direction::Down => a.total_cmp(b),
            });
            places.dedup();
            // One row, or rows that all look alike: nobody is ahead.
            let [first, second, ..] = places.as_slice() else { continue };
            for (i, value) in values {
                let rank = match value {
                    value if value == *first => Rank::First,
                    value if value == *second => Rank::Second,
                    _ => continue,
                };
                if let Some(Some(cell)) = rows.get_mut(i).and_then(|r| r.cells.get_mut(column)) {
                    cell.rank = rank;
                }
            }
        }
    }
}
