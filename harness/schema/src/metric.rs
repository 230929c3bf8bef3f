use serde::{Deserialize, Serialize};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Larger is better.
    Up,
    /// Smaller is better.
    Down,
}

/// What a metric's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// 0 to 100.
    Percent,
    /// Metres.
    Metres,
    /// A ratio or logarithm without a unit.
    None,
}

/// A metric's name, unit and direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricDescriptor {
    /// Name as it stands in every format, for example `top1@10`.
    pub name: String,
    /// Unit of its values.
    pub unit: Unit,
    /// Which way is better.
    pub direction: Direction,
}

/// Describes a metric by its name: `top1@K`, `top5@K`; `delta1` to `delta3`, `abs_rel`, `sq_rel`, `rmse`,
/// `rmse_log`, `log10`, `silog`; `miou`, `pixel_acc`, `iou/CLASS`; `score`, `score/TASK`. `None` for a name this version does
/// not know.
pub fn describe(name: &str) -> Option<MetricDescriptor> {
    let (base, k) = name.split_once(['@', '/']).unwrap_or((name, ""));
    let (unit, direction) = match base {
        "top1" | "top5" if k.parse::<usize>().is_ok() => (Unit::Percent, Direction::Up),
        "iou" if !k.is_empty() => (Unit::Percent, Direction::Up),
        "score" => (Unit::Percent, Direction::Up),
        "delta1" | "delta2" | "delta3" | "miou" | "pixel_acc" => (Unit::Percent, Direction::Up),
        "rmse" | "sq_rel" => (Unit::Metres, Direction::Down),
        "abs_rel" | "rmse_log" | "log10" | "silog" => (Unit::None, Direction::Down),
        _ => return None,
    };
    Some(MetricDescriptor { name: name.to_owned(), unit, direction })
}

/// Which epoch a value was taken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// The last epoch; also everything that has no epochs.
    Last,
    /// One epoch, chosen by the task's first metric.
    Best,
    /// Each metric at its own best epoch, as the published code does.
    BestEach,
}

impl Selection {
    /// The word used in every table format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
            Self::BestEach => "best-each",
        }
    }
}

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    /// Name, see [`describe`].
    pub name: String,
    /// Value in the metric's unit, at full precision; not finite where the run diverged.
    #[serde(with = "crate::real")]
    pub value: f64,
    /// Lower end of the 95% interval, where one was computed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::real::option")]
    pub ci_low: Option<f64>,
    /// Upper end of the 95% interval, where one was computed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::real::option")]
    pub ci_high: Option<f64>,
    /// Which epoch it belongs to.
    pub selection: Selection,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracies_are_percentages_and_unknown_names_are_refused() {
        let top = describe("top1@10").unwrap();
        assert_eq!((top.unit, top.direction), (Unit::Percent, Direction::Up));
        assert!(describe("top1@ten").is_none());
        assert!(describe("accuracy").is_none());
    }

    #[test]
    fn every_number_survives_json_to_the_bit() {
        let awkward = [0.1 + 0.2, 100.0 / 3.0, 84.123_456_789_012_34, 5e-324, f64::MAX, -0.0, 7.0];
        for value in awkward.into_iter().chain([f64::NAN, f64::INFINITY, f64::NEG_INFINITY]) {
            let metric = MetricValue {
                name: "top1@10".to_owned(),
                value,
                ci_low: Some(value),
                ci_high: None,
                selection: Selection::Last,
            };
            let json = serde_json::to_string(&metric).unwrap();
            let back: MetricValue = serde_json::from_str(&json).unwrap();
            assert_eq!(back.value.to_bits(), value.to_bits(), "{json}");
            assert_eq!(back.ci_low.map(f64::to_bits), Some(value.to_bits()), "{json}");
            assert_eq!(back.ci_high, None);
        }
        let worded = r#"{"name":"top1@10","value":"many","selection":"last"}"#;
        let error = serde_json::from_str::<MetricValue>(worded).unwrap_err().to_string();
        assert!(error.contains("expected a number"), "{error}");
    }
}
