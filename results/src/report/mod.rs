//! One self-contained HTML file over runs, for `pixio-eval report`: tables, plots, pictures, training
//! curves and where every number comes from. It asks nothing of any server, and its content security
//! policy forbids it to.

mod gallery;
mod provenance;
mod tables;
mod terms;

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::plot::{Kind, PlotOptions, Run, Runs, Width, figure};
use crate::runs::run_lines;
use crate::store::{Listed, Status};
use crate::table::{SAMPLE, escape_html};
use crate::{TableError, TableOptions};

pub use terms::Terms;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The most backbones of a chart: more are in the tables.
const BARS: usize = 30;
const LINES: usize = 8;
/// Above this many runs their per-image rows are not read for histograms and win rates.
const ROWS: usize = 120;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No run of any state was found.
    #[error("there is no run to report; `pixio-eval all --sample` makes some")]
    NoRuns,
    /// The finished runs cannot be chosen from.
    #[error(transparent)]
    Runs(#[from] TableError),
    /// The data of the page cannot be written.
    #[error("the report cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// The page over listed runs. A run given twice is shown once, as it was last finished; runs that are
/// not finished are listed. The same runs give the same page. `known` are the terms of the data sets: those that
/// the runs used are told.
///
/// # Errors
/// [`ReportError`] when there is no run.
pub fn report(listed: Vec<Listed>, known: &[Terms]) -> Result<String, ReportError> {
    if listed.is_empty() {
        return Err(ReportError::NoRuns);
    }
    let lines = run_lines(&listed);
    let any = listed.iter().any(|run| matches!(run.status, Status::Finished(_)));
    let runs = Runs::finished(listed);
    let mut chosen = if any { runs.chosen(&TableOptions::default())? } else { Vec::new() };
    chosen.sort_by_cached_key(|run| {
        let plan = &run.record.plan;
        let protocol = crate::text::shown_protocol(plan);
        (
            plan.data.sample,
            plan.task.clone(),
            plan.backbone.name.clone(),
            protocol,
            plan.seed,
            plan.key(),
        )
    });
    let unfinished: Vec<_> = lines.iter().filter(|line| line.status != "finished").collect();
    let gallery = gallery::gallery(&chosen);

    let mut body = String::from("<h1>pixio-eval report</h1>\n");
    body += &format!(
        "<p class=\"soft\">{} finished runs, {} others.</p>\n<nav aria-label=\"Sections\"><a href=\"#results\">Results</a> \
         <a href=\"#plots\">Plots</a> <a href=\"#pictures\">Pictures</a> <a href=\"#data-sets\">Data sets</a> <a href=\"#others\">Other runs</a></nav>\n",
        chosen.len(),
        unfinished.len()
    );
    body += &tables::filters(&chosen);
    body += "<main>\n<h2 id=\"results\">Results</h2>\n";
    body += &tables::tables(&chosen);
    body += "<h2 id=\"plots\">Plots</h2>\n";
    body += &plots(&chosen);
    body += "<h2 id=\"pictures\">Pictures</h2>\n";
    body += &gallery;
    body += "<h2 id=\"data-sets\">Data sets</h2>\n";
    body += &terms::section(&chosen, known);
    body += "<h2 id=\"others\">Runs that are not finished</h2>\n";
    body += &tables::unfinished(&unfinished);
    body += "</main>\n<dialog id=\"dialog\" aria-labelledby=\"dialog-title\"><button id=\"close\" type=\"button\">Close</button>\
             <h2 id=\"dialog-title\"></h2><div id=\"dialog-body\"></div></dialog>\n";
    Ok(page(&body, &provenance::data(&chosen)?))
}

/// The whole file. Style and script are allowed by their hashes, images as data, nothing else.
fn page(body: &str, data: &str) -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src \
         'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>pixio-eval report</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\
         <script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>\n\
         </body>\n</html>\n",
        hash(SCRIPT),
        hash(STYLE),
        in_script(data)
    )
}

/// JSON that cannot end the element it stands in: `<`, `>` and `&` are only ever in its strings.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The plots that these runs give, real ones and those on sample data apart.
fn plots(runs: &[Run<'_>]) -> String {
    let mut out = String::new();
    for sample in [false, true] {
        let runs: Vec<Run<'_>> =
            runs.iter().filter(|run| run.record.plan.data.sample == sample).copied().collect();
        if runs.is_empty() {
            continue;
        }
        for kind in Kind::ALL {
            let (title, most) = match kind {
                Kind::Bars => ("Results by backbone", BARS),
                Kind::Pareto => ("Quality against size", BARS),
                Kind::Blocks => ("Depth of the tapped block", LINES),
                Kind::Curves => ("Training", LINES),
                Kind::Classes => ("Classes", LINES),
                Kind::Errors if runs.len() <= ROWS => ("Images by their metric", LINES),
                Kind::Wins if runs.len() <= ROWS => ("Win rates over images", BARS),
                Kind::Errors | Kind::Wins | Kind::Setting => continue,
            };
            let options =
                PlotOptions { width: Width::Double, most: Some(most), ..PlotOptions::default() };
            // What has nothing to show has no plot.
            let Ok(svg) = figure(&runs, kind, &options).and_then(|plot| plot.svg()) else {
                continue;
            };
            let told = if sample { format!(" ({SAMPLE})") } else { String::new() };
            out += &format!("<h3>{title}{}</h3>\n<figure>{svg}</figure>\n", escape_html(&told));
        }
    }
    if out.is_empty() { "<p>There is nothing to plot.</p>\n".to_owned() } else { out }
}
