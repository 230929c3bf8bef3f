use comfy_table::{Table, presets};
use serde_json::json;

use super::args::BackbonesCommand;
use super::{CliError, EXIT_DONE, check, print, print_json};
use crate::backbone::families::Architecture;
use crate::progress::Reporter;
use crate::registry::{self, Defaults, Entry, Registry, nearest};
use crate::resolve::{ResolveError, Resolver, SourceOptions};

pub(super) fn backbones(command: BackbonesCommand, reporter: &Reporter) -> Result<u8, CliError> {
    match command {
        BackbonesCommand::List { json, own } => {
            let registry =
                registry::with_own(own.backbones.as_deref()).map_err(ResolveError::from)?;
            if json {
                let cards = registry.backbones.iter();
                let cards = cards.map(|(name, entry)| card(name, entry, &registry.defaults));
                print_json(&cards.collect::<Result<Vec<_>, _>>()?)?;
            } else {
                print(list(&registry).as_bytes())?;
            }
        }
        BackbonesCommand::Show { name, json, own } => {
            let registry =
                registry::with_own(own.backbones.as_deref()).map_err(ResolveError::from)?;
            let Some(entry) = registry.backbones.get(&name) else {
                let names = registry.backbones.keys().map(String::as_str);
                let near = nearest(&name, names);
                return Err(CliError::UnknownBackbone { name, near });
            };
            if json {
                print_json(&card(&name, entry, &registry.defaults)?)?;
            } else {
                print(text_card(&name, entry, &registry.defaults)?.as_bytes())?;
            }
        }
        BackbonesCommand::Pull { names, own } => {
            let options = SourceOptions { own: own.backbones, ..SourceOptions::default() };
            let resolver = Resolver::new(options, reporter)?;
            for spec in names {
                let record = resolver.resolve(&spec)?.record()?;
                let revision = record.revision.as_deref().unwrap_or("-");
                let identity = record.identity.short();
                print(format!("{spec}: revision {revision}, identity {identity}\n").as_bytes())?;
            }
        }
        BackbonesCommand::Check(args) => check::check(&args, reporter)?,
    }
    Ok(EXIT_DONE)
}

fn list(registry: &Registry) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["name", "title", "parameters", "weights", "licence"]);
    for (name, entry) in &registry.backbones {
        let path = entry.path.as_ref().map(|path| path.display().to_string());
        let own = path.or_else(|| entry.python.as_ref().map(|python| format!("py:{python}")));
        let weights = own.or_else(|| entry.repository.clone());
        let none = match entry.elsewhere {
            Some(_) => "a file (--arch)",
            None => "none (random: only)",
        };
        table.add_row([
            name,
            &entry.title,
            &entry.parameters.map_or_else(|| "-".to_owned(), |millions| format!("{millions}M")),
            &weights.unwrap_or_else(|| none.to_owned()),
            entry.licence.as_deref().unwrap_or("-"),
        ]);
    }
    format!("{}\n", trimmed(&table))
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

fn card(name: &str, entry: &Entry, defaults: &Defaults) -> Result<serde_json::Value, CliError> {
    if let Some(python) = &entry.python {
        return Ok(json!({
            "name": name,
            "title": entry.title,
            "family": entry.family,
            "python": python,
            "licence": entry.licence,
            "source": entry.source,
        }));
    }
    let architecture = architecture(entry)?;
    let dimensions = architecture.dimensions();
    let preparation = entry.preparation(defaults);
    Ok(json!({
        "name": name,
        "title": entry.title,
        "family": entry.family,
        "path": entry.path,
        "repository": entry.repository,
        "elsewhere": entry.elsewhere,
        "revision": entry.revision,
        "gated": entry.gated,
        "licence": entry.licence,
        "parameters_millions": entry.parameters,
        "blocks": dimensions.blocks,
        "width": dimensions.width,
        "patch": dimensions.patch,
        "summary_tokens": dimensions.summary_tokens,
        "registers": dimensions.registers,
        "dense_tasks": dimensions.patches,
        "positions": architecture.positions(),
        "resolution": preparation.resolution,
        "mean": preparation.mean,
        "std": preparation.std,
        "knn": { "tokens": entry.recipe.knn.tokens, "final_norm": entry.recipe.knn.final_norm },
        "dense_summary": entry.recipe.dense_summary && dimensions.summary_tokens > 0,
        "source": entry.source,
    }))
}

fn text_card(name: &str, entry: &Entry, defaults: &Defaults) -> Result<String, CliError> {
    let licence = entry.licence.clone().unwrap_or_else(|| "-".to_owned());
    if let Some(python) = &entry.python {
        let declared = "by the function; `pixio-eval backbones check` runs it".to_owned();
        return Ok(lines(
            name,
            &[
                ("title", entry.title.clone()),
                ("made by", format!("py:{python}")),
                ("declared", declared),
                ("licence", licence),
            ],
        ));
    }
    let architecture = architecture(entry)?;
    let dimensions = architecture.dimensions();
    let preparation = entry.preparation(defaults);
    let weights = match (&entry.repository, entry.gated) {
        (None, _) => match (&entry.path, &entry.elsewhere) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(place)) => format!("{place}: --backbone FILE --arch {name}"),
            (None, None) => format!("none published; random:{name} for seeded random weights"),
        },
        (Some(repository), gated) => {
            let revision = entry.revision.as_deref().unwrap_or("main");
            let gate = if gated { ", gated" } else { "" };
            format!("hf:{repository}@{revision}{gate}")
        }
    };
    let norm = if entry.recipe.knn.final_norm { "after" } else { "before" };
    let knn = match (entry.recipe.knn.tokens, dimensions.summary_tokens) {
        (schema::Tokens::Pooled, 0) if dimensions.pooled != Some(dimensions.width) => {
            "mean of the neck's output over the last block".to_owned()
        }
        (schema::Tokens::Pooled, _) => "pooling head over the last block".to_owned(),
        (schema::Tokens::SummaryMean, _) if !dimensions.patches => {
            "mean of the last stage over the image".to_owned()
        }
        (schema::Tokens::SummaryMean, 1) => {
            format!("class token of the last block, {norm} the final norm")
        }
        (schema::Tokens::SummaryMean, _) => {
            format!("mean of the class tokens of the last block, {norm} the final norm")
        }
        (schema::Tokens::PatchAndSummaryMean, _) => {
            format!("mean patch token joined with the mean class token, {norm} the final norm")
        }
        (schema::Tokens::PatchMean, _) => {
            format!("mean of the patch tokens of the last block, {norm} the final norm")
        }
    };
    let dense = match (entry.recipe.dense_summary, dimensions.summary_tokens) {
        _ if !dimensions.patches => "none: no token grid, no dense tasks",
        _ if entry.family == "sam" => "patch tokens alone (there is no final norm)",
        (true, 1) => "patch tokens joined with the class token, after the final norm",
        (true, 2..) => "patch tokens joined with the mean class token, after the final norm",
        _ => "patch tokens alone, after the final norm",
    };
    let registers = match dimensions.registers {
        0 => String::new(),
        count => format!(", {count} registers"),
    };
    let parameters = entry.parameters.map_or_else(|| "-".to_owned(), |m| format!("{m}M"));
    let all = [
        ("title", entry.title.clone()),
        ("family", entry.family.clone()),
        ("weights", weights),
        ("licence", licence),
        ("parameters", parameters),
        (
            "encoder",
            match dimensions.patches {
                true => format!(
                    "{} blocks of width {}, patch {}, {} class tokens{registers}",
                    dimensions.blocks,
                    dimensions.width,
                    dimensions.patch,
                    dimensions.summary_tokens
                ),
                false => format!(
                    "{} stages, the last of width {} and stride {}",
                    dimensions.blocks, dimensions.width, dimensions.patch
                ),
            },
        ),
        ("positions", architecture.positions()),
        ("resolution", format!("{} pixels", preparation.resolution)),
        ("image", "shorter side to that, bicubic (Pillow); centre crop".to_owned()),
        ("mean, std", format!("{:?}, {:?}", preparation.mean, preparation.std)),
        ("k-NN feature", knn),
        ("dense feature", dense.to_owned()),
        ("source", entry.source.clone()),
    ];
    Ok(lines(name, &all))
}

/// A card of a name and its fields.
pub(super) fn lines(name: &str, fields: &[(&str, String)]) -> String {
    let mut text = format!("{name}\n");
    for (key, value) in fields {
        text.push_str(&format!("  {key:<14} {value}\n"));
    }
    text
}
