//! Whether LaTeX takes the tables: every layout, a plot as PDF beside it, and names made to do harm.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::fixtures::{dense_record, mixed_records, on_sample_data, record, untrained};
use crate::plot::{Kind, PlotOptions, Runs, plot};
use crate::store::{Listed, Status};
use crate::{TableOptions, render};

/// Names with everything that TeX acts on, and letters that its fonts lack.
const HOSTILE: [&str; 7] = [
    r"\input{/etc/hostname} \end{document} ^^5c",
    "100% & $x_1^2$ ~ {#1} <<a>> --- |\"'`",
    "[2em] \\\\ \\hline",
    "*\u{202e}\u{1b}[31m\u{0}\n\ttab",
    "模型 🦀 Ελληνικά кириллица",
    "naïve café Ünïcødé ß ± × δ → ≤ “quoted” …",
    "]{}\\csname",
];

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Bars of three backbones, as `plot` writes them.
fn bars() -> Vec<u8> {
    let listed = mixed_records().into_iter().map(|record| Listed {
        folder: "nowhere".into(),
        status: Status::Finished(Box::new(record)),
    });
    let runs = Runs::finished(listed.collect());
    plot(&runs, Kind::Bars, &PlotOptions::default()).unwrap().pdf().unwrap()
}

/// Compiles tables with a figure after them; the log where that fails.
fn compile(folder: &Path, tables: &[(String, Vec<u8>)]) {
    fs::write(folder.join("plot.pdf"), bars()).unwrap();
    let mut main =
        "\\documentclass{article}\n\\usepackage[a3paper,landscape,margin=1cm]{geometry}\n\
                    \\usepackage{booktabs}\n\\usepackage{graphicx}\n\\begin{document}\n"
            .to_owned();
    for (name, table) in tables {
        fs::write(folder.join(format!("{name}.tex")), table).unwrap();
        main += &format!("\\input{{{name}}}\n\\clearpage\n");
    }
    main += "\\begin{figure}\\includegraphics[width=7.2in]{plot.pdf}\\caption{A plot.}\\end{figure}\n\\end{document}\n";
    fs::write(folder.join("main.tex"), main).unwrap();
    let ran = Command::new("pdflatex")
        .args(["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"])
        .current_dir(folder)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{log}");
    assert!(!log.contains("Missing character"), "{log}");
    let pages = format!("({} page", tables.len() + 1);
    assert!(log.contains(&pages), "not {pages}s:\n{log}");
}

#[test]
fn every_layout_compiles_whatever_runs_are_called() {
    if !installed("pdflatex") {
        println!(
            "skipped: pdflatex is not installed (texlive-latex-base, texlive-latex-recommended)"
        );
        return;
    }
    let mut records = mixed_records();
    records.push(untrained(dense_record("random:pixio-b", "nyuv2", "dpt", 0.5)));
    for name in HOSTILE {
        for (dataset, head) in [("nyuv2", "dpt"), ("ade20k", "linear")] {
            let mut hostile = dense_record(name, dataset, head, 0.5);
            hostile.outcome.warnings = HOSTILE.map(str::to_owned).into();
            hostile.outcome.metrics.iter_mut().for_each(|metric| {
                (metric.ci_low, metric.ci_high) = (Some(0.25), Some(f64::INFINITY));
            });
            hostile.plan.protocol.name = format!("pixio+{name}");
            records.push(hostile);
        }
        records.push(record(name, f64::NAN));
    }
    let options = LayoutOptions { published: true, intervals: true, ..LayoutOptions::default() };
    let mut tables: Vec<(String, Vec<u8>)> = (BUILTIN.iter())
        .map(|(name, _)| {
            let layout = Layout::open(name).unwrap();
            ((*name).to_owned(), layout.render(&records, options, Format::Latex).unwrap())
        })
        .collect();
    tables.push((
        "wide".to_owned(),
        render(
            &records,
            Format::Latex,
            &TableOptions { intervals: true, ..TableOptions::default() },
        )
        .unwrap(),
    ));
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), &tables);
    // For a look at the pages: PIXIO_EVAL_LATEX=FOLDER keeps them.
    if let Some(kept) = std::env::var_os("PIXIO_EVAL_LATEX") {
        let main = Path::new(&kept).join("main.pdf");
        fs::copy(folder.path().join("main.pdf"), main).unwrap();
    }

    // Runs on sample data have a second table, and a caption of one's own is text too.
    let mut both = mixed_records();
    both.push(on_sample_data(dense_record("pixio-b", "nyuv2", "dpt", 0.5)));
    let mut layout = Layout::open("depth").unwrap();
    layout.caption = HOSTILE.join(" ");
    for column in &mut layout.columns {
        (column.group, column.heading) = (HOSTILE[1].to_owned(), HOSTILE[0].to_owned());
    }
    let own = layout.render(&both, LayoutOptions::default(), Format::Latex).unwrap();
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), &[("own".to_owned(), own)]);
}
