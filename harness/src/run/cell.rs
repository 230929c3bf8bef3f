//! A cell: which backbone, which task and head, in which settings.

use std::collections::BTreeSet;

use schema::{BackboneRecord, TaskHead, Tokens};
use serde::{Deserialize, Serialize};

use super::RunError;
use crate::backbone::Dimensions;
use crate::registry::Recipe;
use crate::resolve::Override;

/// One cell of a command or a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The backbone as given.
    pub backbone: String,
    /// What is changed in it, for example `resolution=224`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Data set and head.
    pub task: TaskHead,
    /// How it is measured.
    pub settings: Settings,
}

/// What a cell sets of its protocol; `None` leaves what the protocol says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Name of the protocol that departures are told from.
    pub protocol: String,
    /// Seed of the head.
    pub seed: u64,
    /// Seed of order, crops and `limit`'s shuffle; the head's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_seed: Option<u64>,
    /// Samples of each split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Passes over the training data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Peak learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Decoupled weight decay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// The deepest block that is read, 1 being the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// The blocks that are read, 0 being the first: four for a DPT, else one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taps: Option<Vec<usize>>,
    /// Which tokens a head sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenChoice>,
    /// How many class tokens are averaged, from the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_tokens: Option<usize>,
    /// Numbers of neighbours; empty for the protocol's list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub k: Vec<usize>,
    /// Temperature of the k-NN vote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Other values of the protocol, by their path in it, for example `training.warmup=0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Override>,
}

/// Which tokens a head sees, where it is not the backbone's own recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TokenChoice {
    /// Patch tokens.
    Patch,
    /// The mean of the class tokens: k-NN and policies alone.
    Class,
    /// Patch tokens joined with the mean of the class tokens.
    Both,
}

impl TokenChoice {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Patch, Self::Class, Self::Both];

    /// As it is spelled on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Class => "class",
            Self::Both => "both",
        }
    }
}

impl Cell {
    /// Whether its head is trained on patch tokens.
    pub fn is_dense(&self) -> bool {
        matches!(self.task.head.as_str(), "linear" | "dpt")
    }

    /// The same cell without the settings that its head does not have: cells that are equal then are
    /// one run.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        let settings = &mut self.settings;
        settings.stream_seed = settings.stream_seed.filter(|&seed| seed != settings.seed);
        if settings.tokens == Some(TokenChoice::Patch) {
            settings.class_tokens = None;
        }
        let roots: &[&str] = match self.task.head.as_str() {
            "knn" => &["image", "feature", "vote"],
            "policy" => &["image", "feature", "observation", "training", "rollout"],
            _ => &["sample", "head", "objective", "training", "evaluation"],
        };
        let all = ["image", "feature", "vote", "observation", "training", "rollout", "sample"];
        let elsewhere = |root: &str| {
            let known = all.contains(&root) || ["head", "objective", "evaluation"].contains(&root);
            known && !roots.contains(&root)
        };
        let root = |change: &Override| change.key().split('.').next().unwrap_or("").to_owned();
        settings.set.retain(|change| !elsewhere(&root(change)));
        match self.task.head.as_str() {
            "knn" => {
                // Nothing is initialised: the one seed is that of the shuffle, if there is one.
                settings.seed = settings.stream_seed.take().unwrap_or(settings.seed);
                (settings.epochs, settings.learning_rate, settings.weight_decay) =
                    (None, None, None);
            }
            "policy" => {
                (settings.stream_seed, settings.temperature) = (None, None);
                settings.k.clear();
            }
            _ => {
                settings.temperature = None;
                settings.k.clear();
            }
        }
        self
    }

    /// The arguments after `pixio-eval` that run this cell alone, but for where things are.
    pub fn arguments(&self) -> Vec<String> {
        let settings = &self.settings;
        let task = match self.task.head.as_str() {
            "policy" => format!("cortexbench/{}", self.task.dataset),
            _ => self.task.to_string(),
        };
        let mut all = vec!["run".to_owned(), task, "--backbone".to_owned(), self.backbone.clone()];
        let mut add = |name: &str, value: Option<String>| {
            all.extend(value.map(|value| [format!("--{name}"), value]).into_iter().flatten());
        };
        let list =
            |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        for change in &self.overrides {
            add("override", Some(change.to_string()));
        }
        add("protocol", Some(settings.protocol.clone()));
        add("block", settings.block.map(|n| n.to_string()));
        add("taps", settings.taps.as_deref().map(list));
        add("tokens", settings.tokens.map(|tokens| tokens.name().to_owned()));
        add("class-tokens", settings.class_tokens.map(|n| n.to_string()));
        add("learning-rate", settings.learning_rate.map(|x| x.to_string()));
        add("weight-decay", settings.weight_decay.map(|x| x.to_string()));
        add("epochs", settings.epochs.map(|n| n.to_string()));
        add("k", (!settings.k.is_empty()).then(|| list(&settings.k)));
        add("temperature", settings.temperature.map(|x| x.to_string()));
        add("limit", settings.limit.map(|n| n.to_string()));
        for change in &settings.set {
            add("set", Some(change.to_string()));
        }
        add("seed", (settings.seed != 0).then(|| settings.seed.to_string()));
        add("stream-seed", settings.stream_seed.map(|n| n.to_string()));
        all
    }
}

/// The data sets of cells, each once, by name.
pub fn datasets(cells: &[Cell]) -> Vec<String> {
    let names: BTreeSet<&String> = cells.iter().map(|cell| &cell.task.dataset).collect();
    names.into_iter().cloned().collect()
}

impl Settings {
    /// The blocks that a head reads, 0 being the first, ascending, and how that departs from `standard`.
    ///
    /// A head of one tap at `block` K reads the K-th block. A DPT reads four, K/4 blocks apart (rounded
    /// down), the deepest being the K-th: where four divides K, those of the published rule for an encoder
    /// that ends there.
    pub fn blocks(
        &self,
        backbone: &BackboneRecord,
        standard: Vec<usize>,
    ) -> Result<(Vec<usize>, String), RunError> {
        let wrong = |what, value: String, why: String| RunError::Setting { what, value, why };
        let (all, taps) = (backbone.blocks, standard.len());
        if let Some(list) = &self.taps {
            let given = list.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            if list.len() != taps {
                let why = format!("this head reads {taps}");
                return Err(wrong("taps", given, why));
            }
            if list.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(wrong("taps", given, "expected ascending blocks".to_owned()));
            }
            if let Some(last) = list.last().filter(|&&last| last >= all) {
                let (name, last_block) = (&backbone.name, all - 1);
                let why = format!("there is no block {last}: {name} has blocks 0 to {last_block}");
                return Err(wrong("taps", given, why));
            }
            let departs = if *list == standard { String::new() } else { format!("+taps={given}") };
            return Ok((list.clone(), departs));
        }
        let Some(block) = self.block.filter(|&block| block != all) else {
            return Ok((standard, String::new()));
        };
        if block == 0 || block > all {
            let why = format!("{} has blocks 1 to {all}", backbone.name);
            return Err(wrong("block", block.to_string(), why));
        }
        if block < taps {
            let why = format!("this head reads {taps} blocks");
            return Err(wrong("block", block.to_string(), why));
        }
        let blocks = (1..=taps).map(|i| block - (taps - i) * (block / taps) - 1).collect();
        Ok((blocks, format!("+block={block}")))
    }

    /// Whether a dense head's patch tokens are joined with the mean of how many class tokens, and how
    /// that departs from the backbone's recipe.
    pub fn dense_tokens(
        &self,
        recipe: &Recipe,
        name: &str,
        dimensions: &Dimensions,
    ) -> Result<(bool, Option<usize>, String), RunError> {
        let standard = recipe.dense_summary && dimensions.summary_tokens > 0;
        let summary = match self.tokens {
            None => standard,
            Some(TokenChoice::Patch) => false,
            Some(TokenChoice::Both) => true,
            Some(TokenChoice::Class) => {
                let why = "a dense head needs patch tokens (patch or both)".to_owned();
                return Err(RunError::Setting { what: "tokens", value: "class".to_owned(), why });
            }
        };
        let (count, mut departs) = self.class_tokens(summary, name, dimensions)?;
        if let Some(tokens) = self.tokens.filter(|_| summary != standard) {
            departs.insert_str(0, &format!("+tokens={}", tokens.name()));
        }
        Ok((summary, count, departs))
    }

    /// Which tokens become the one vector of an image, of how many class tokens, and how that departs from
    /// the backbone's recipe.
    pub fn vector_tokens(
        &self,
        recipe: &Recipe,
        name: &str,
        dimensions: &Dimensions,
    ) -> Result<(Tokens, Option<usize>, String), RunError> {
        let standard = recipe.knn.tokens;
        let tokens = match self.tokens {
            None => standard,
            Some(TokenChoice::Patch) => Tokens::PatchMean,
            Some(TokenChoice::Class) => Tokens::SummaryMean,
            Some(TokenChoice::Both) => Tokens::PatchAndSummaryMean,
        };
        let summary = matches!(tokens, Tokens::SummaryMean | Tokens::PatchAndSummaryMean);
        let patches = matches!(tokens, Tokens::PatchMean | Tokens::PatchAndSummaryMean);
        if patches && !dimensions.patches {
            let value = self.tokens.map_or("patch", TokenChoice::name).to_owned();
            let why = format!("{name} has no token grid");
            return Err(RunError::Setting { what: "tokens", value, why });
        }
        let (count, mut departs) = self.class_tokens(summary, name, dimensions)?;
        if let Some(choice) = self.tokens.filter(|_| tokens != standard) {
            departs.insert_str(0, &format!("+tokens={}", choice.name()));
        }
        Ok((tokens, count, departs))
    }

    /// How many class tokens are averaged, if not all of them.
    fn class_tokens(
        &self,
        summary: bool,
        name: &str,
        dimensions: &Dimensions,
    ) -> Result<(Option<usize>, String), RunError> {
        let have = dimensions.summary_tokens;
        if summary && have == 0 {
            let value = self.tokens.map_or("class", TokenChoice::name).to_owned();
            let why = format!("{name} has no class token");
            return Err(RunError::Setting { what: "tokens", value, why });
        }
        let Some(count) = self.class_tokens.filter(|_| summary) else {
            return Ok((None, String::new()));
        };
        if count == 0 || count > have {
            let (value, why) = (count.to_string(), format!("{name} has 1 to {have}"));
            return Err(RunError::Setting { what: "class-tokens", value, why });
        }
        if count == have {
            return Ok((None, String::new()));
        }
        Ok((Some(count), format!("+class-tokens={count}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(blocks: usize) -> BackboneRecord {
        let json = serde_json::json!({
            "name": "mae-h", "source": "mae-h", "family": "mae", "identity": "00", "trained": true,
            "parameters": 1, "blocks": blocks, "width": 8,
        });
        serde_json::from_value(json).unwrap()
    }

    fn at(block: usize, all: usize, standard: &[usize]) -> Result<(Vec<usize>, String), RunError> {
        let settings = Settings { block: Some(block), ..Settings::default() };
        settings.blocks(&record(all), standard.to_vec())
    }

    #[test]
    fn block_k_is_the_deepest_that_a_head_reads() {
        let published = [7, 15, 23, 31];
        assert_eq!(at(32, 32, &published).unwrap(), (published.to_vec(), String::new()));
        assert_eq!(at(24, 32, &published).unwrap(), (vec![5, 11, 17, 23], "+block=24".to_owned()));
        assert_eq!(at(21, 24, &[5, 11, 17, 23]).unwrap().0, [5, 10, 15, 20]);
        assert_eq!(at(4, 32, &published).unwrap().0, [0, 1, 2, 3]);
        assert_eq!(at(9, 32, &[31]).unwrap(), (vec![8], "+block=9".to_owned()));
        for (block, taps, why) in [
            (33, &published[..], "mae-h has blocks 1 to 32"),
            (33, &published[3..], "mae-h has blocks 1 to 32"),
            (3, &published[..], "this head reads 4 blocks"),
        ] {
            let error = at(block, 32, taps).unwrap_err().to_string();
            assert_eq!(error, format!("block {block}: {why}"));
        }
    }

    #[test]
    fn taps_are_checked_one_by_one() {
        let taps = |list: &[usize]| {
            let settings = Settings { taps: Some(list.to_vec()), ..Settings::default() };
            settings.blocks(&record(12), vec![2, 5, 8, 11])
        };
        assert_eq!(taps(&[2, 5, 8, 11]).unwrap().1, "");
        assert_eq!(taps(&[0, 1, 2, 3]).unwrap(), (vec![0, 1, 2, 3], "+taps=0,1,2,3".to_owned()));
        for (list, why) in [
            (&[1, 2][..], "this head reads 4"),
            (&[1, 2, 2, 3], "expected ascending blocks"),
            (&[1, 2, 3, 12], "there is no block 12: mae-h has blocks 0 to 11"),
        ] {
            assert!(taps(list).unwrap_err().to_string().ends_with(why));
        }
    }

    #[test]
    fn settings_that_a_head_does_not_have_make_no_second_run() {
        let cell = |head: &str, seed, rate| Cell {
            backbone: "mae-h".to_owned(),
            overrides: Vec::new(),
            task: TaskHead { dataset: "nyuv2".to_owned(), head: head.to_owned() },
            settings: Settings {
                protocol: "pixio".to_owned(),
                seed,
                stream_seed: Some(0),
                learning_rate: Some(rate),
                ..Settings::default()
            },
        };
        let same = |head| cell(head, 0, 0.1).normalised() == cell(head, 1, 0.2).normalised();
        assert!(same("knn") && !same("linear") && !same("dpt"));
        let arguments = cell("dpt", 3, 0.1).normalised().arguments().join(" ");
        assert_eq!(
            arguments,
            "run nyuv2/dpt --backbone mae-h --protocol pixio --learning-rate 0.1 --seed 3 --stream-seed 0"
        );
    }
}
