use comfy_table::{Table, presets};
use serde_json::json;

use super::args::BackbonesCommand;
use super::{CliError, EXIT_DONE, print, print_json};
use crate::backbone::families::Architecture;
use crate::hub::HubOptions;
use crate::progress::Reporter;
use crate::registry::{self, Entry, nearest};
use crate::resolve::Resolver;

pub(super) fn backbones(command: BackbonesCommand, reporter: &Reporter) -> Result<u8, CliError> {
    let registry = registry::builtin().map_err(CliError::Embedded)?;
    match command {
        BackbonesCommand::List { json: true } => {
            let cards = registry.backbones.iter().map(|(name, entry)| card(name, entry));
            print_json(&cards.collect::<Result<Vec<_>, _>>()?)?;
        }
        BackbonesCommand::List { json: false } => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table.set_header(["name", "title", "parameters", "weights", "licence"]);
            for (name, entry) in &registry.backbones {
                let weights = entry.repository.as_deref().unwrap_or("none (random: only)");
                table.add_row([
                    name,
                    &entry.title,
                    &format!("{}M", entry.parameters),
                    weights,
                    entry.licence.as_deref().unwrap_or("-"),
                ]);
            }
            print(format!("{}\n", trimmed(&table)).as_bytes())?;
        }
        BackbonesCommand::Show { name, json } => {
            let Some(entry) = registry.backbones.get(&name) else {
                let names = registry.backbones.keys().map(String::as_str);
                let near = nearest(&name, names);
                return Err(CliError::UnknownBackbone { name, near });
            };
            if json {
                print_json(&card(&name, entry)?)?;
            } else {
                print(text_card(&name, entry)?.as_bytes())?;
            }
        }
        BackbonesCommand::Pull { backbones } => {
            let hub = HubOptions::from_env(false);
            let resolver = Resolver { arch: None, hub, reporter };
            for spec in backbones {
                let record = resolver.resolve(&spec)?.record()?;
                let revision = record.revision.as_deref().unwrap_or("-");
                let identity = record.identity.short();
                print(format!("{spec}: revision {revision}, identity {identity}\n").as_bytes())?;
            }
        }
    }
    Ok(EXIT_DONE)
}

/// comfy-table pads every line to the table's width; a pipe wants none of that.
pub(super) fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    text.lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
        .collect::<Vec<_>>()
        .join("\n")
}

fn architecture(entry: &Entry) -> Result<std::sync::Arc<dyn Architecture>, CliError> {
    entry.architecture().map_err(CliError::Embedded)
}

fn card(name: &str, entry: &Entry) -> Result<serde_json::Value, CliError> {
    let dimensions = architecture(entry)?.dimensions();
    Ok(json!({
        "name": name,
        "title": entry.title,
        "family": entry.family,
        "repository": entry.repository,
        "revision": entry.revision,
        "gated": entry.gated,
        "licence": entry.licence,
        "parameters_millions": entry.parameters,
        "blocks": dimensions.blocks,
        "width": dimensions.width,
        "patch": dimensions.patch,
        "summary_tokens": dimensions.summary_tokens,
        "resolution": resolution(entry)?,
        "knn": { "tokens": entry.recipe.knn.tokens, "final_norm": entry.recipe.knn.final_norm },
        "source": entry.source,
    }))
}

fn resolution(entry: &Entry) -> Result<usize, CliError> {
    let defaults = &registry::builtin().map_err(CliError::Embedded)?.defaults;
    Ok(entry.resolution.unwrap_or(defaults.resolution))
}

fn text_card(name: &str, entry: &Entry) -> Result<String, CliError> {
    let dimensions = architecture(entry)?.dimensions();
    let weights = match (&entry.repository, entry.gated) {
        (None, _) => format!("none published; random:{name} for seeded random weights"),
        (Some(repository), gated) => {
            let revision = entry.revision.as_deref().unwrap_or("main");
            let gate = if gated { ", gated" } else { "" };
            format!("hf:{repository}@{revision}{gate}")
        }
    };
    let tokens = match entry.recipe.knn.tokens {
        schema::Tokens::SummaryMean => "mean of the class tokens",
        schema::Tokens::PatchMean => "mean of the patch tokens",
    };
    let norm = if entry.recipe.knn.final_norm { "after" } else { "before" };
    let lines = [
        ("title", entry.title.clone()),
        ("family", entry.family.clone()),
        ("weights", weights),
        ("licence", entry.licence.clone().unwrap_or_else(|| "-".to_owned())),
        ("parameters", format!("{}M", entry.parameters)),
        (
            "encoder",
            format!(
                "{} blocks of width {}, patch {}, {} class tokens",
                dimensions.blocks, dimensions.width, dimensions.patch, dimensions.summary_tokens
            ),
        ),
        ("resolution", format!("{} pixels", resolution(entry)?)),
        ("k-NN feature", format!("{tokens} of the last block, {norm} the final norm")),
        ("source", entry.source.clone()),
    ];
    let mut text = format!("{name}\n");
    for (key, value) in lines {
        text.push_str(&format!("  {key:<13} {value}\n"));
    }
    Ok(text)
}
