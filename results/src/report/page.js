"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const tables = [...document.querySelectorAll("table.runs")];

  // Sorting: numbers by their value, words by the alphabet, what is missing last.
  const key = (row, at) => {
    const cell = row.cells[at];
    const text = cell.dataset.v ?? cell.textContent;
    const number = Number(text);
    return { text, number, absent: text === "" || text === "NaN", isNumber: text !== "" && !Number.isNaN(number) };
  };
  const compare = (a, b) => a.absent || b.absent ? a.absent - b.absent
    : a.isNumber && b.isNumber ? a.number - b.number : a.text.localeCompare(b.text);
  for (const table of document.querySelectorAll("table")) {
    table.addEventListener("click", (event) => {
      const head = event.target.closest("thead button")?.closest("th");
      if (!head) return;
      const up = head.getAttribute("aria-sort") !== "ascending";
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => ({ row, key: key(row, head.cellIndex) }));
      rows.sort((a, b) => (a.key.absent || b.key.absent || up ? 1 : -1) * compare(a.key, b.key));
      for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows.map(({ row }) => row));
    });
  }

  // Filtering.
  const form = $("filter");
  const filter = () => {
    const [task, head, protocol] = ["task", "head", "protocol"].map((name) => $(name).value);
    const words = $("backbone").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const table of tables) {
      let left = 0;
      const here = (!task || table.dataset.task === task) && (!head || table.dataset.head === head);
      for (const row of table.tBodies[0].rows) {
        const run = data.runs[row.dataset.run];
        const name = run.backbone.toLowerCase();
        row.hidden = !(here && (!protocol || run.protocol === protocol) && words.every((word) => name.includes(word)));
        if (!row.hidden) left += 1;
      }
      table.closest("section").hidden = left === 0;
      shown += left;
    }
    for (const item of document.querySelectorAll(".gallery li")) {
      const run = data.runs[item.dataset.run];
      const name = run.backbone.toLowerCase();
      item.hidden = (task && run.dataset !== task) || (head && run.head !== head)
        || (protocol && run.protocol !== protocol) || !words.every((word) => name.includes(word));
    }
    $("count").textContent = shown + " of " + data.runs.length + " runs";
  };
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();

  // Opening: text only ever becomes text.
  const make = (name, attributes = {}, ...children) => {
    const made = document.createElementNS(
      ["svg", "polyline", "text", "line"].includes(name) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", name);
    for (const [at, value] of Object.entries(attributes)) made.setAttribute(at, value);
    made.append(...children);
    return made;
  };
  const dialog = $("dialog");
  const open = (title, ...children) => {
    $("dialog-title").textContent = title;
    $("dialog-body").replaceChildren(...children);
    if (!dialog.open) dialog.showModal();
  };
  $("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  const short = (value) => Number(value.toPrecision(4)).toString();
  const curve = (name, epochs, values) => {
    const points = values.map((value, at) => [epochs[at], value]).filter(([, value]) => typeof value === "number");
    if (!points.length) return "";
    const [w, h, left] = [480, 120, 60];
    const ends = (at) => [Math.min(...points.map((p) => p[at])), Math.max(...points.map((p) => p[at]))];
    const [[x0, x1], [y0, y1]] = [ends(0), ends(1)];
    const place = ([x, y]) => [
      left + (w - left - 8) * (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5),
      8 + (h - 30) * (y1 > y0 ? (y1 - y) / (y1 - y0) : 0.5)];
    const at = (x, y, text, anchor) => make("text", { x, y, "font-size": 11, fill: "currentColor", "text-anchor": anchor }, text);
    return make("svg", { viewBox: "0 0 " + w + " " + h, class: "curve", role: "img", "aria-label": name + " by epoch" },
      make("line", { x1: left, y1: h - 20, x2: w - 6, y2: h - 20, stroke: "currentColor", "stroke-width": 0.5 }),
      make("polyline", { points: points.map((p) => place(p).map((v) => v.toFixed(1)).join()).join(" "), fill: "none", stroke: "currentColor", "stroke-width": 1.5 }),
      at(left - 4, 14, short(y1), "end"), at(left - 4, h - 20, short(y0), "end"),
      at(left, h - 6, "epoch " + x0, "start"), at(w - 8, h - 6, String(x1), "end"));
  };
  const details = (run) => {
    const list = make("dl");
    const told = [
      ["task", run.dataset + "/" + run.head], ["protocol", run.protocol],
      ["protocol fingerprint", run.fingerprint], ["run key", run.key], ["seed", run.seed],
      ...Object.entries(data.backbones[run.b]), ...Object.entries(data.data[run.d]),
      ...Object.entries(data.hosts[run.h]), ["started", run.started], ["finished", run.finished],
      ["seconds", Object.entries(run.seconds).map(([name, s]) => name + " " + s).join(", ")],
      ["images a second", run.speed ?? "not measured"], ["micro-batch", run.batch], ["folder", run.folder]];
    const counts = Object.entries(run.counts).map(([name, n]) => name + " " + n).join(", ");
    if (counts) told.push(["counted", counts]);
    if (run.head_weights) told.push(["head weights", run.head_weights]);
    for (const text of run.warnings) told.push(["warning", text]);
    if (run.skipped) told.push(["unreadable images left out", run.skipped]);
    for (const [name, value] of told) list.append(make("dt", {}, name), make("dd", {}, String(value)));
    const body = make("tbody");
    for (const [name, selection, value, low, high] of run.metrics) {
      body.append(make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "word" }, selection),
        make("td", {}, value), make("td", {}, low === null ? "" : low + " to " + high)));
    }
    const over = "95% interval over " + (run.head === "policy" ? "episodes" : "images");
    const head = make("thead", {}, make("tr", {}, ...["metric", "epoch", "value", over].map((name) => make("th", { scope: "col" }, name))));
    const curves = run.curve ? run.curve.lines.flatMap(([name, values]) => {
      const drawn = curve(name, run.curve.epochs, values);
      return drawn ? [make("h3", {}, name), drawn] : [];
    }) : [];
    open(run.backbone, list, ...curves, make("h3", {}, "Metrics"),
      make("div", { class: "scroll tall" }, make("table", {}, head, body)),
      make("h3", {}, "Configuration"), make("pre", {}, JSON.stringify(data.protocols[run.p], null, 1)));
  };
  let pictures = [];
  let at = 0;
  const picture = () => {
    const button = pictures[at];
    const image = button.querySelector("img");
    // Another address of the same bytes: an animation plays from its start.
    open(button.textContent.trim(), make("img", { src: image.src + "#" + Date.now(), alt: image.alt, class: image.className }),
      make("p", { class: "soft" }, at + 1 + " of " + pictures.length + "; arrow keys for the others, Escape to close"));
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.details !== undefined) {
      pictures = [];
      details(data.runs[button.closest("tr").dataset.run]);
    } else if (button.closest(".gallery")) {
      pictures = [...document.querySelectorAll(".gallery li:not([hidden]) button")];
      at = pictures.indexOf(button);
      picture();
    }
  });
  dialog.addEventListener("close", () => { if (pictures.length) pictures[at].focus(); });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !pictures.length) return;
    at = (at + step + pictures.length) % pictures.length;
    picture();
  });
})();
