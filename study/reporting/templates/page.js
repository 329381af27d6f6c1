// Keeps the charts and the table of runs at one selection of runs.

const root = document.documentElement;
const element = (id) => document.getElementById(id);
const data = element("explorer") ? JSON.parse(element("explorer").textContent) : null;
const selected = new Set();
const charts = {};
let table = null;

async function draw(place, choices) {
  charts[place]?.finalize();
  const { runs, cells, curves } = data;
  const { chart } = choices[element(`${place}-choice`).value];
  const spec = { ...chart, params: [{ name: "selected", value: [...selected] }], datasets: { runs, cells, curves } };
  charts[place] = await vegaEmbed(element(place), spec, { mode: "vega-lite", renderer: "svg", actions: false, ast: true });
  charts[place].view.addEventListener("click", (_, item) => item?.datum?.id && toggle(item.datum.id));
  await showSelection();
}

function toggle(id) {
  selected.delete(id) || selected.add(id);
  return showSelection();
}

let updatesTable = false;  // the table reports a selection that the script itself made, too
async function showSelection() {
  const ids = [...selected];
  if (table) {
    updatesTable = true;
    table.rows().deselect();
    table.rows((_, __, row) => selected.has(row.dataset.run)).select();
    updatesTable = false;
  }
  if (element("selected")) element("selected").textContent = ids.length
    ? `${ids.length} selected: ${ids.slice(0, 6).join(", ")}${ids.length > 6 ? ", …" : ""}`
    : "None selected: click points above, or tick runs in the table.";
  await Promise.all(Object.values(charts).map(({ view }) => view.signal("selected", ids).runAsync()));
}

function readTable() {
  if (updatesTable || !data) return;
  selected.clear();
  table.rows({ selected: true }).nodes().each((row) => selected.add(row.dataset.run));
  showSelection();
}

async function buildTable() {
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
    language: { search: "Search all columns", select: { rows: { _: "%d selected", 1: "1 selected", 0: "" } } },
  });
  table.on("select deselect", readTable);
  const filters = element("filters");
  filters.hidden = !filters.children.length;
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("change", ({ target: { value, dataset } }) =>
    table.column(Number(dataset.column)).search(value, { exact: value !== "" }).draw());
}

function switchThemes() {
  const button = element("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.style.colorScheme || (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to ${isDark() ? "light" : "dark"} colors`);
    root.classList.toggle("dark", isDark());  // DataTables' style sheet looks for it
  };
  button.hidden = false;
  button.addEventListener("click", () => { root.style.colorScheme = isDark() ? "light" : "dark"; show(); });
  system.addEventListener("change", show);
  show();
}

function openSections() {
  const sections = [...document.querySelectorAll("main > section")];
  const open = (hash) => sections.find((section) => `#${section.id}` === hash)?.querySelector("details:has(> summary > h2)")?.setAttribute("open", "");
  document.querySelector("nav").addEventListener("click", ({ target }) => open(target.hash));
  open(location.hash);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
  // Charts and the table of runs take the width that they have: none while they are closed.
  sections.forEach((section) => section.querySelector("details")?.addEventListener("toggle", () => dispatchEvent(new Event("resize"))));
}

switchThemes();
openSections();
await buildTable();
if (data) {
  const series = new Set();
  for (const run of data.runs) if (!series.has(run.series)) selected.add(run.id), series.add(run.series);
  for (const [place, choices] of Object.entries({ scatter: data.costs, curves: data.measures })) {
    if (!choices.length) continue;
    await draw(place, choices);
    element(`${place}-choice`).addEventListener("change", () => draw(place, choices));
  }
  await showSelection();
}
root.dataset.ready = "yes";
