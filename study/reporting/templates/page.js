// The page's own script: draws what was computed, and keeps plot, curves and table of runs at one selection.

const root = document.documentElement;
const element = (id) => document.getElementById(id);
const data = element("explorer") ? JSON.parse(element("explorer").textContent) : null;
const chosen = new Set();
const views = {};
let table = null;

// A colour of the page ("var(--mark-0)") as the browser shows it now, so that plots follow light and dark.
function resolved(value) {
  const probe = document.createElement("span");
  probe.style.color = value;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function withColours(part) {
  if (typeof part === "string") return part.startsWith("var(--") ? resolved(part) : part;
  if (Array.isArray(part)) return part.map(withColours);
  if (part === null || typeof part !== "object") return part;
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, withColours(value)]));
}

function look() {
  const ink = "var(--ink)", grid = "var(--grid)";
  const axis = { labelColor: ink, titleColor: ink, gridColor: grid, domainColor: ink, tickColor: ink, titleFontWeight: "normal",
    labelFontSize: 12, titleFontSize: 13 };
  return { background: "transparent", axis, axisX: { grid: false }, view: { stroke: null },
    legend: { labelColor: ink, labelFontSize: 12, columns: innerWidth < 600 ? 2 : 0 }, font: "system-ui, sans-serif" };
}

async function draw(place, spec, datasets) {
  views[place]?.finalize();
  const filled = withColours({ ...spec, datasets, config: look() });
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true };
  const result = await vegaEmbed(element(place), filled, options);
  views[place] = result;
  return result.view;
}

const runsNow = () => data.runs.map((run) => ({ ...run, chosen: chosen.has(run.id) }));

function curvesNow() {
  return data.runs.filter((run) => chosen.has(run.id) && data.curves[run.id]).flatMap((run) => {
    const curve = data.curves[run.id];
    return curve.epoch.map((epoch, at) => {
      const values = Object.fromEntries(Object.entries(curve).map(([name, column]) => [name, column[at]]));
      return { id: run.id, cell: run.cell, seed: run.seed, series: run.series, ...values };
    });
  });
}

async function drawScatter() {
  const view = await draw("scatter", data.costs[element("cost").value].spec, { runs: runsNow(), cells: data.cells });
  view.addEventListener("click", (_, item) => item?.datum?.id && toggle(item.datum.id));
}

async function drawCurves() {
  if (!element("measure")) return;
  await draw("curves", data.measures[element("measure").value].spec, { chosen: curvesNow() });
  const names = [...chosen];
  element("chosen").textContent = names.length ? `${names.length} chosen: ${names.slice(0, 6).join(", ")}${names.length > 6 ? ", …" : ""}`
    : "None chosen: click points above, or tick runs in the table.";
}

function toggle(id) {
  chosen.has(id) ? chosen.delete(id) : chosen.add(id);
  selectRows();
  return redraw();
}

function redraw() {
  return data ? Promise.all([drawScatter(), drawCurves()]) : Promise.resolve();
}

// The table is told without being asked back, or each selection would answer the other for ever.
let telling = false;
function selectRows() {
  if (!table) return;
  telling = true;
  table.rows().deselect();
  table.rows((_, __, row) => chosen.has(row.dataset.run)).select();
  telling = false;
}

function readRows() {
  if (telling || !data) return;
  chosen.clear();
  table.rows({ selected: true }).nodes().each((row) => chosen.add(row.dataset.run));
  redraw();
}

async function makeTable() {
  const source = element("datatables");
  if (!source) return;
  const address = URL.createObjectURL(new Blob([source.textContent], { type: "text/javascript" }));
  const { default: DataTable } = await import(address);
  URL.revokeObjectURL(address);
  table = new DataTable("#run-table", {
    columnDefs: [{ targets: 0, orderable: false, searchable: false, render: DataTable.render.select() }],
    select: { style: "multi", selector: "td:first-child" },
    order: [],
    pageLength: 25,
    language: { search: "Search all columns", select: { rows: { _: "%d chosen", 1: "1 chosen", 0: "" } } },
  });
  table.on("select deselect", readRows);
  const filters = element("filters");
  filters.hidden = !filters.children.length;
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("change", (event) => {
    const wanted = event.target.value;
    table.column(Number(event.target.dataset.column)).search(wanted, { exact: wanted !== "" }).draw();
  });
}

function firstChoice() {
  const seen = new Set();
  for (const run of data.runs) {
    if (!seen.has(run.series)) chosen.add(run.id);
    seen.add(run.series);
  }
}

function themes() {
  const button = element("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.style.colorScheme || (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to ${dark() ? "light" : "dark"} colours`);
    root.classList.toggle("dark", dark());
  };
  button.hidden = false;
  button.addEventListener("click", () => { root.style.colorScheme = dark() ? "light" : "dark"; show(); redraw(); });
  system.addEventListener("change", () => { show(); redraw(); });
  show();
}

themes();
await makeTable();
if (data) {
  firstChoice();
  selectRows();
  await redraw();
  element("cost").addEventListener("change", drawScatter);
  element("measure")?.addEventListener("change", drawCurves);
}
root.dataset.ready = "yes";
