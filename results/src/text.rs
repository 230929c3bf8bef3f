//! How names and numbers are shown.

use schema::{BackboneRecord, Direction, RunPlan, Unit, describe};

/// The backbone's name, with ` (untrained)` where its weights are random.
pub(crate) fn shown_backbone(backbone: &BackboneRecord) -> String {
    match backbone.trained {
        true => backbone.name.clone(),
        false => format!("{} (untrained)", backbone.name),
    }
}

/// The protocol's name. On sample data its first word is `sample`, whatever was recorded.
pub(crate) fn shown_protocol(plan: &RunPlan) -> String {
    let name = &plan.protocol.name;
    match name.split_once('+') {
        _ if !plan.data.sample => name.clone(),
        Some((_, departures)) => format!("sample+{departures}"),
        None => "sample".to_owned(),
    }
}

/// Name without what could act on a terminal or reorder a line: control and bidirectional
/// formatting characters become U+FFFD.
pub(crate) fn clean(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if acts(c) { '\u{fffd}' } else { c }).collect()
}

/// A value with the decimals of its metric: two for percentages, three for the rest.
pub(crate) fn shown_value(metric: &str, value: f64) -> String {
    let decimals = match describe(metric).map(|metric| metric.unit) {
        Some(Unit::Percent) => 2,
        _ => 3,
    };
    if value.is_finite() && value.abs() >= 1e6 {
        return format!("{value:.decimals$e}");
    }
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|b| matches!(b, b'0' | b'.')) => digits.to_owned(),
        _ => text,
    }
}

/// Unit and direction of metrics in words, for a caption: one sentence where all agree.
pub(crate) fn legend<'a>(metrics: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut kinds: Vec<(String, Vec<&str>)> = Vec::new();
    for name in metrics {
        let Some(metric) = describe(name) else { continue };
        let name = name.split(['@', '/']).next().unwrap_or(name);
        let unit = match metric.unit {
            Unit::Percent => "in %, ",
            Unit::Metres => "in metres, ",
            Unit::None => "",
        };
        let better = match metric.direction {
            Direction::Up => "higher is better",
            Direction::Down => "lower is better",
        };
        let kind = format!("{unit}{better}");
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => kinds.push((kind, vec![name])),
        }
    }
    match kinds.as_slice() {
        [] => None,
        [(kind, _)] => Some(format!("Values {kind}.")),
        kinds => {
            let parts: Vec<_> =
                kinds.iter().map(|(kind, names)| format!("{}: {kind}", names.join(", "))).collect();
            Some(format!("{}.", parts.join("; ")))
        }
    }
}

/// Lines of at most `width` characters, broken at spaces (a longer word stands alone).
pub(crate) fn wrap(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_decimals_of_their_metric() {
        for (value, text) in [
            (100.0, "100.00"),
            (84.125_1, "84.13"),
            (-0.001, "0.00"),
            (-0.0, "0.00"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
            (1.5e300, "1.50e300"),
        ] {
            assert_eq!(shown_value("top1@10", value), text);
        }
        assert_eq!(shown_value("of-another-version", 0.12345), "0.123");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\n\u{202e}c"), "a\u{fffd}[31mb\u{fffd}\u{fffd}c");
    }

    #[test]
    fn captions_wrap_at_spaces() {
        assert_eq!(wrap("aa bb  cc dddddddd e", 5), "aa bb\ncc\ndddddddd\ne");
    }

    #[test]
    fn the_legend_follows_the_descriptors() {
        assert_eq!(legend(["top1@10", "top5@10"]).unwrap(), "Values in %, higher is better.");
        assert_eq!(legend(["unknown"]), None);
        let mixed = ["top1@10", "top1@20", "iou/wall", "rmse", "abs_rel"];
        insta::assert_snapshot!(legend(mixed).unwrap(), @"top1, iou: in %, higher is better; rmse: in metres, lower is better; abs_rel: lower is better.");
    }
}
