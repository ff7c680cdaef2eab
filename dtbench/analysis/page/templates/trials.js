// Every trial, and the trials behind a number.

const SHOWN_ROWS = 100;
const TRIAL_COLUMNS = [   // heading, what it sorts by, digits (null: text)
  ["Task", (trial, cell) => cell.task, null], ["Contender", (trial, cell) => cell.contender, null],
  ["Seed", (trial) => trial.seed, 0], ["State", (trial) => trial.state, null], ["Score", (trial) => trial.score, 1],
  ["Target", (trial) => trial.target, 2], ["Step", (trial) => trial.step, 0],
  ["Episodes", (trial) => trial.episodes, 0], ["Seconds", (trial) => trial.seconds, 0],
  ["Trial", (trial) => trial.key, null],
];

async function liveTrials(box) {
  box.append(element("p", { class: "note" }, "Unpacking \u2026"));
  try {
    trialTable(box, await unpacked(`data-${box.dataset.key}`));
  } catch (error) { box.replaceChildren(element("p", { class: "note" }, error.message)); }
}

function trialTable(box, data) {
  const rows = data.trials.map((trial) => {
    const values = TRIAL_COLUMNS.map(([, value]) => value(trial, data.cells[trial.cell] ?? {}) ?? null);
    return { values, text: values.join(" ").toLowerCase() };
  });
  let ordered = rows;
  const count = element("output", { "aria-live": "polite" });
  const input = element("input", { type: "search", placeholder: "Filter trials", "aria-label": "Filter trials" });
  const body = element("tbody");
  const heads = TRIAL_COLUMNS.map(([name, , digits]) => element("th", { scope: "col", class: digits !== null && "number" }, name));
  const table = element("table", {}, element("caption", {}, "Every trial of the suite"),
    element("thead", {}, element("tr", {}, ...heads)), body);
  const refresh = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = ordered.filter((row) => words.every((word) => row.text.includes(word)));
    body.replaceChildren(...kept.slice(0, SHOWN_ROWS).map(({ values }) => trialRow(values)));
    const first = kept.length > SHOWN_ROWS ? `first ${SHOWN_ROWS} of ` : "";
    const among = kept.length < rows.length ? ` of ${rows.length}` : "";
    count.textContent = `${first}${kept.length}${among} trials`;
  };
  sortable(table, (column, direction) => {
    const sorted = (a, b) => compare(a.values[column], b.values[column], direction);
    ordered = direction ? rows.toSorted(sorted) : rows;
    refresh();
  });
  input.addEventListener("input", refresh);
  box.replaceChildren(element("div", { class: "tools" }, input, count),
    element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Every trial of the suite" }, table));
  refresh();
}

function trialRow(values) {
  return element("tr", {}, ...values.map((value, column) => {
    const [name, , digits] = TRIAL_COLUMNS[column];
    if (column === 0) return element("th", { scope: "row" }, printed(value));
    if (name === "State") return element("td", {}, state(value));
    const text = digits === null ? printed(value) : printed(value, digits);
    const linked = name === "Trial" ? element("a", { href: `#trial-${value}` }, text) : text;
    return element("td", { class: [digits !== null && "number", value === null && "hole"].filter(Boolean).join(" ") }, linked);
  }));
}

const state = (name) => element("span", { class: `badge ${/^[a-z]+$/.test(name) ? name : ""}` }, printed(name));

function openDialog(title, ...content) {
  const dialog = one("#details");
  const close = element("button", { type: "button", class: "close", click: () => dialog.close() }, "Close");
  dialog.replaceChildren(
    element("div", { class: "head" }, element("h2", { id: "details--title", tabindex: "-1" }, title), close),
    ...content, element("p", { class: "unseen", role: "status", "aria-live": "polite" }));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  one("h2", dialog).focus();
}

function complain(error) {
  openDialog("This cannot be shown", element("p", {}, error.message));
}

// Looks in the suite that is shown first: suites share trials and may name contenders differently.
async function openTrials(address) {
  const [, kind, key] = address.match(/^(cell|trial)-(.*)$/s);
  const shown = one("main").dataset.view;
  const suites = all(".view").map((view) => view.dataset.key).sort((a, b) => (b === shown) - (a === shown));
  try {
    for (const suite of suites) {
      const data = await unpacked(`data-${suite}`);
      const trial = kind === "trial" ? data.trials?.find((other) => other.key === key) : null;
      const cell = kind === "trial" ? trial?.cell : key;
      if (cell !== undefined && Object.hasOwn(data.cells ?? {}, cell)) return describe(data, cell, trial);
    }
    complain(new Error(`No trial of this page has the address ${address}.`));
  } catch (error) { complain(error); }
}

function describe(data, key, only) {
  const cell = data.cells[key];
  const siblings = data.trials.filter((trial) => trial.cell === key);
  const trials = only ? [only] : siblings;
  const content = [
    section("What was asked", facts({
      Algorithm: cell.algorithm, Version: cell.version, "Gradient steps": cell.budget, ...nested("Evaluation", cell.evaluation),
      ...nested("Task option", cell.task_options), ...nested("Learner", cell.learner) })),
    section("Seeds", seedTable(trials), ...errors(trials)),
    section("Curves", curves(trials)),
    section("Hyperparameters", facts(flat(cell.hyperparameters))),
    ...origins(data, trials),
  ];
  if (only && siblings.length > 1) {
    content.unshift(element("p", {}, element("button", { type: "button", click: () => describe(data, key) },
      `Show all ${siblings.length} seeds beside it`)));
  }
  openDialog(`${cell.contender} on ${cell.task}${only ? `, seed ${only.seed}` : ""}`, ...content);
}

const section = (heading, ...content) => element("section", {}, element("h3", {}, heading), ...content);

function flat(values, prefix = "") {
  const plain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  return Object.assign({}, ...Object.entries(values ?? {}).map(([name, value]) =>
    (plain(value) ? flat(value, `${prefix}${name}.`) : { [prefix + name]: value })));
}

const nested = (title, values) => Object.fromEntries(
  Object.entries(flat(values)).map(([name, value]) => [`${title}: ${name}`, value]));

function printedValue(value) {
  if (value === null || value === undefined) return DASH;
  if (typeof value === "number") return String(Number(value.toPrecision(10)));
  if (!Array.isArray(value)) return typeof value === "string" ? value : JSON.stringify(value);
  if (value.length > 16) return `${value.length} values, from ${printedValue(value[0])} to ${printedValue(value.at(-1))}`;
  return value.map(printedValue).join(", ") || DASH;
}

function facts(values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined);
  if (!pairs.length) return element("p", { class: "note" }, "None.");
  return element("dl", { class: "facts" }, ...pairs.map(([name, value]) =>
    element("div", { class: printedValue(value).length > 36 && "wide" }, element("dt", {}, name), element("dd", {}, printedValue(value)))));
}

function seedTable(trials) {
  const names = ["Seed", "State", "Score", "Return", "Target", "Step", "Episodes", "Seconds", "Finished", "In a terminal"];
  const rows = trials.map((trial) => element("tr", {}, element("th", { scope: "row" }, String(trial.seed)),
    element("td", {}, state(trial.state)), ...[[trial.score, 2], [trial.return_mean, 2], [trial.target, 2], [trial.step, 0], [trial.episodes, 0],
      [trial.seconds, 0]].map(([value, digits]) => element("td", { class: "number" }, printed(value, digits))),
    element("td", { class: "line" }, printed(trial.finished).replace(/T(\d\d:\d\d).*/, " $1")), element("td", {}, element("code", {}, `dtbench status ${trial.key}`))));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Seeds" }, element("table", {},
    element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows)));
}

function errors(trials) {
  return trials.filter((trial) => trial.error).flatMap((trial) => [
    element("h4", {}, `Seed ${trial.seed}: what went wrong`), element("pre", { tabindex: "0" }, String(trial.error))]);
}

// Where trials ran on different commits or data, each origin names its seeds.
function origins(data, trials) {
  const places = [...new Set(trials.map((trial) => trial.from))];
  return places.flatMap((from) => {
    const { dataset, versions, ...where } = (data.provenance ?? [])[from] ?? {};
    const seeds = trials.filter((trial) => trial.from === from).map((trial) => trial.seed).join(", ");
    const whose = places.length > 1 ? ` (seeds ${seeds})` : "";
    if (!dataset && !versions) return section(`Data and software${whose}`, element("p", { class: "note" }, "Not recorded: nothing has finished."));
    const { info, card, ...named } = dataset ?? {};
    return [section(`Data${whose}`, facts({ ...named, ...flat(card), ...flat(info) })),
      section(`Software and hardware${whose}`, facts({ ...flat(where), ...nested("version of", versions) }))];
  });
}

function curves(trials) {
  const names = [...new Set(trials.flatMap((trial) => Object.keys(trial.metrics ?? {})))];
  const select = element("select", { "aria-label": "Curve of" },
    ...["score", ...names].map((name, place) => element("option", { value: String(place) }, name)));
  const box = element("div");
  const refresh = () => {
    const name = select.value === "0" ? "score" : names[select.value - 1];
    const lines = trials.map((trial) => ({ seed: trial.seed, points: (select.value === "0" ? trial.curve : trial.metrics?.[name]) ?? [] }));
    box.replaceChildren(chart(lines.filter((line) => line.points.some(([, y]) => y !== null)), name));
  };
  select.addEventListener("change", refresh);
  refresh();
  return element("div", {}, element("p", {}, select), box);
}

function chart(lines, name) {
  if (!lines.length) return element("p", { class: "note" }, `No ${name} was recorded.`);
  const every = lines.flatMap((line) => line.points).filter(([, y]) => y !== null);
  const [left, right, top, bottom] = [64, 560, 12, 220];
  const scale = (values, from, to) => {
    const low = Math.min(...values), high = Math.max(...values);
    const at = (value) => (high > low ? from + (value - low) / (high - low) * (to - from) : (from + to) / 2);
    return { at, ticks: high > low ? [low, (low + high) / 2, high] : [low] };
  };
  const x = scale(every.map(([step]) => step), left, right), y = scale(every.map(([, value]) => value), bottom, top);
  const short = (value) => String(Number(value.toPrecision(4))).replace("-", "\u2212");
  const children = [
    ...y.ticks.flatMap((tick) => [drawn("line", { class: "rule", x1: left, x2: right, y1: y.at(tick), y2: y.at(tick) }),
      drawn("text", { x: left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, short(tick))]),
    ...x.ticks.map((tick) => drawn("text", { x: x.at(tick), y: bottom + 20, "text-anchor": "middle" }, short(tick))),
    drawn("text", { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle" }, "gradient steps"),
    ...lines.flatMap(({ seed, points: shown }, place) => {
      const kept = shown.filter(([, value]) => value !== null).map(([step, value]) => [x.at(step), y.at(value)]);
      return [drawn("polyline", { class: `line line-${place % 6}`, points: kept.map((point) => point.join()).join(" ") }),
        ...(kept.length < 40 ? kept.map(([cx, cy]) => drawn("circle", { class: `line-${place % 6}`, cx, cy, r: 2.5 })) : []),
        ...(place < 11 ? [drawn("text", { class: `line-${place % 6}`, x: right + 28, y: top + 8 + 19 * place }, `seed ${seed}`),
          drawn("line", { class: `line line-${place % 6}`, x1: right + 8, x2: right + 24, y1: top + 4 + 19 * place, y2: top + 4 + 19 * place })] : [])];
    })];
  const seeds = lines.map(({ seed, points: shown }) => `seed ${seed} ends at ${short(shown.findLast(([, value]) => value !== null)[1])}`);
  const label = `${name} over gradient steps: ${seeds.join(", ")}.`;
  return element("div", { class: "chart", tabindex: "0", role: "group", "aria-label": name },
    drawn("svg", { viewBox: "0 0 640 264", role: "img", "aria-label": label }, ...children));
}
