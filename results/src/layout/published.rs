//! Figures of the Pixio paper, as printed.

use super::{Layout, LayoutColumn, LayoutError};

const FIGURES: &str = include_str!("../../reference/pixio_paper.csv");

/// Published figures, in the order of the paper.
#[derive(Debug, Default)]
pub(super) struct Published {
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    table: &'static str,
    backbone: &'static str,
    vit: &'static str,
    parameters: &'static str,
    task: [&'static str; 3],
    value: f64,
}

/// One row of a published table.
#[derive(Debug)]
pub(super) struct PublishedRow {
    pub(super) table: &'static str,
    pub(super) backbone: &'static str,
    pub(super) vit: &'static str,
    pub(super) parameters: &'static str,
    /// One entry a column of the layout.
    pub(super) values: Vec<Option<f64>>,
}

impl Published {
    pub(super) fn builtin() -> Result<Self, LayoutError> {
        let figure = |(line, text): (usize, &'static str)| {
            let fields: Vec<&'static str> = text.split(',').collect();
            let parsed = match fields.as_slice() {
                [table, backbone, vit, parameters, dataset, head, metric, value] => {
                    value.parse().ok().map(|value| Figure {
                        table,
                        backbone,
                        vit,
                        parameters,
                        task: [dataset, head, metric],
                        value,
                    })
                }
                _ => None,
            };
            parsed.ok_or_else(|| LayoutError::Published { line: line + 1, found: text.to_owned() })
        };
        let lines = FIGURES.lines().enumerate().skip(1);
        Ok(Self { figures: lines.map(figure).collect::<Result<_, _>>()? })
    }

    /// The rows of the layout's tables.
    pub(super) fn rows(&self, layout: &Layout) -> Vec<PublishedRow> {
        let mut rows: Vec<PublishedRow> = Vec::new();
        for table in &layout.published {
            for figure in self.figures.iter().filter(|figure| figure.table == *table) {
                let known = rows
                    .iter_mut()
                    .find(|row| (row.table, row.backbone) == (figure.table, figure.backbone));
                let row = match known {
                    Some(row) => row,
                    None => {
                        rows.push(PublishedRow {
                            table: figure.table,
                            backbone: figure.backbone,
                            vit: figure.vit,
                            parameters: figure.parameters,
                            values: vec![None; layout.columns.len()],
                        });
                        let Some(row) = rows.last_mut() else { continue };
                        row
                    }
                };
                let is = |column: &LayoutColumn| {
                    [&*column.dataset, &*column.head, &*column.metric] == figure.task
                };
                for (column, value) in layout.columns.iter().zip(&mut row.values) {
                    if is(column) {
                        *value = Some(figure.value);
                    }
                }
            }
        }
        rows
    }
}
