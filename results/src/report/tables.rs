//! Tables of finished runs, a table a task, and of the others.

use std::collections::BTreeSet;

use schema::RunRecord;

use crate::departures::differs;
use crate::headline::{default_metrics, selection};
use crate::plot::Run;
use crate::runs::RunLine;
use crate::table::{SAMPLE, escape_html};
use crate::text::{legend, shown_backbone, shown_protocol, shown_value};

/// What filters the tables and the gallery.
pub(super) fn filters(runs: &[Run<'_>]) -> String {
    let choice = |id: &str, label: &str, get: &dyn Fn(&RunRecord) -> String| {
        let values: BTreeSet<String> = runs.iter().map(|run| get(run.record)).collect();
        let options: String =
            values.iter().map(|value| format!("<option>{}</option>", escape_html(value))).collect();
        format!(
            "<label>{label} <select id=\"{id}\"><option value=\"\">all</option>{options}</select></label>\n"
        )
    };
    format!(
        "<form id=\"filter\" aria-label=\"Filter runs\">\n{}{}{}<label>backbone <input id=\"backbone\" type=\"search\" \
         placeholder=\"part of a name\" autocomplete=\"off\"></label>\n<button type=\"reset\">Show all</button>\n\
         <output id=\"count\" class=\"soft\" aria-live=\"polite\"></output>\n</form>\n",
        choice("task", "task", &|record| record.plan.task.dataset.clone()),
        choice("head", "head", &|record| record.plan.task.head.clone()),
        choice("protocol", "protocol", &|record| shown_protocol(&record.plan)),
    )
}

/// A table for each task; those on sample data come last and say so.
pub(super) fn tables(runs: &[Run<'_>]) -> String {
    if runs.is_empty() {
        return "<p>No run is finished.</p>\n".to_owned();
    }
    let same = |a: &Run<'_>, b: &Run<'_>| {
        let (a, b) = (&a.record.plan, &b.record.plan);
        (a.data.sample, &a.task) == (b.data.sample, &b.task)
    };
    let mut place = 0;
    runs.chunk_by(same)
        .map(|runs| {
            let first = place;
            place += runs.len();
            table(runs, first)
        })
        .collect()
}

/// Metrics that are columns: the task's first ones, of k-NN every one.
fn columns<'a>(runs: &[Run<'a>]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        let wanted = default_metrics(&run.record.plan);
        for metric in &run.record.outcome.metrics {
            let name = metric.name.as_str();
            let shown = wanted.contains(&name) || wanted.is_empty() && !name.contains('/');
            if shown && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if let Some(run) = runs.first() {
        let wanted = default_metrics(&run.record.plan);
        names.sort_by_key(|name| wanted.iter().position(|wanted| wanted == name));
    }
    names.truncate(12);
    names
}

fn sortable(name: &str, word: bool) -> String {
    let class = if word { " class=\"word\"" } else { "" };
    format!("<th scope=\"col\"{class}><button type=\"button\">{}</button></th>", escape_html(name))
}

fn table(runs: &[Run<'_>], first: usize) -> String {
    let Some(plan) = runs.first().map(|run| &run.record.plan) else { return String::new() };
    let columns = columns(runs);
    let mut caption = if plan.data.sample { format!("{SAMPLE} ") } else { String::new() };
    caption += &legend(columns.iter().copied()).unwrap_or_default();
    if runs.iter().any(|run| !run.record.outcome.curve.is_empty()) {
        caption += " Trained heads: the best epoch.";
    }
    let tall = if runs.len() > 25 { " tall" } else { "" };
    let (task, head) = (escape_html(&plan.task.dataset), escape_html(&plan.task.head));
    let sample = if plan.data.sample { " <span class=\"mark\">sample data</span>" } else { "" };
    let at = format!("t{first}");
    let mut out = format!(
        "<section><h3 id=\"{at}\">{task}/{head}{sample}</h3>\n<p class=\"soft\" id=\"{at}d\">{}</p>\n\
         <div class=\"scroll{tall}\" tabindex=\"0\" role=\"region\" aria-labelledby=\"{at}\">\
         <table class=\"runs\" data-task=\"{task}\" data-head=\"{head}\" aria-labelledby=\"{at}\" \
         aria-describedby=\"{at}d\">\n<thead><tr>{}{}{}",
        escape_html(&caption),
        sortable("backbone", true),
        sortable("protocol", true),
        sortable("seed", false),
    );
    for name in &columns {
        out += &sortable(name, false);
    }
    out += &["parameters", "images/s", "finished"].map(|name| sortable(name, false)).concat();
    out += "<th scope=\"col\" class=\"word\">more</th></tr></thead>\n<tbody>\n";
    for (run, place) in runs.iter().zip(first..) {
        out += &row(run.record, &columns, place);
    }
    out + "</tbody>\n</table></div></section>\n"
}

fn row(record: &RunRecord, columns: &[&str], place: usize) -> String {
    let (plan, outcome) = (&record.plan, &record.outcome);
    let mut marks = Vec::new();
    if !plan.backbone.trained {
        marks.push("untrained");
    }
    if shown_protocol(plan).contains("limit=") {
        marks.push("limited");
    }
    if plan.data.splits.values().any(|s| s.published.is_some_and(|n| n != s.found)) {
        marks.push("other samples than published");
    }
    if differs(plan).is_some() && !plan.data.sample {
        marks.push("not comparable with published figures");
    }
    if !outcome.warnings.is_empty() || !outcome.skipped_images.is_empty() {
        marks.push("warnings");
    }
    let marks = match marks.is_empty() {
        true => String::new(),
        false => format!(" <span class=\"mark\">{}</span>", marks.join(", ")),
    };
    let name = escape_html(&plan.backbone.name);
    let mut out = format!(
        "<tr data-run=\"{place}\"><th scope=\"row\" title=\"{}\"><span class=\"name\">{name}</span>{marks}</th><td class=\"word\">{}</td><td>{}</td>",
        escape_html(&shown_backbone(&plan.backbone)),
        escape_html(&shown_protocol(plan)),
        plan.seed
    );
    let shown = selection(record, None);
    for column in columns {
        let found = outcome.metrics.iter().find(|m| m.name == *column && m.selection == shown);
        out += &match found {
            None => "<td data-v=\"\">–</td>".to_owned(),
            Some(metric) => {
                let text = |value| shown_value(&metric.name, value);
                let ends =
                    metric.ci_low.zip(metric.ci_high).map_or(String::new(), |(low, high)| {
                        format!(" <span class=\"ci\">{} to {}</span>", text(low), text(high))
                    });
                format!("<td data-v=\"{}\">{}{ends}</td>", metric.value, text(metric.value))
            }
        };
    }
    let speed = outcome.images_per_second;
    let day = outcome.finished.split('T').next().unwrap_or_default();
    out + &format!(
        "<td data-v=\"{}\">{}</td><td data-v=\"{}\">{}</td><td data-v=\"{}\">{}</td>\
         <td class=\"word\"><button type=\"button\" data-details aria-label=\"details of {name}\">…</button></td></tr>\n",
        plan.backbone.parameters,
        crate::plot::counted(plan.backbone.parameters as f64),
        speed.map_or(String::new(), |speed| speed.to_string()),
        speed.map_or("–".to_owned(), |speed| format!("{speed:.1}")),
        escape_html(&outcome.finished),
        escape_html(day),
    )
}

/// Runs that are not finished, failed, or cannot be read.
pub(super) fn unfinished(lines: &[&RunLine]) -> String {
    if lines.is_empty() {
        return "<p>Every run is finished.</p>\n".to_owned();
    }
    let heads = ["state", "task", "backbone", "protocol", "folder", "why"];
    let mut out = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Runs that are not finished\"><table>\n<thead><tr>",
    );
    out += &heads.map(|name| sortable(name, true)).concat();
    out += "</tr></thead>\n<tbody>\n";
    for line in lines {
        let cell = |text: Option<&str>| {
            format!("<td class=\"word\">{}</td>", escape_html(text.unwrap_or("–")))
        };
        let why = line.message.as_deref().map(|why| why.lines().next().unwrap_or_default());
        out += &format!(
            "<tr><th scope=\"row\">{}</th>{}{}{}{}{}</tr>\n",
            escape_html(line.status),
            cell(line.task.as_deref()),
            cell(line.backbone.as_deref()),
            cell(line.protocol.as_deref()),
            cell(Some(&line.folder)),
            cell(why),
        );
    }
    out + "</tbody>\n</table></div>\n"
}
