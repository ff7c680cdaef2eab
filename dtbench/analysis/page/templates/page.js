"use strict";

// The page works without this script. With it: one suite at a time, tables that sort and filter, figures whose
// points speak, and the trials behind every number. Text from the data reaches the page as text alone.

const DASH = "\u2013";

const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const collator = new Intl.Collator("en", { numeric: true });

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  return fill(made, attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(one("#canvas").namespaceURI, tag), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function announce(text) {
  const place = one("dialog[open] [role=status]") ?? one("#live-status");
  place.textContent = "";
  setTimeout(() => { place.textContent = text; }, 50);   // a reader hears a change, and the same words twice
}

function printed(value, digits = 1) {
  if (value === null || value === undefined || value === "") return DASH;
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  if (Number.isInteger(value) && digits === 0) return String(value);
  return value.toFixed(digits).replace("-", "\u2212");
}

// Packed data

const opened = new Map();

function unpacked(id) {
  if (!opened.has(id)) opened.set(id, unpack(id));
  return opened.get(id);
}

async function unpack(id) {
  const holder = document.getElementById(id);
  if (!holder) return {};
  if (!("DecompressionStream" in window)) {
    throw new Error("This browser cannot unpack the page's data (it lacks DecompressionStream). "
      + "The same trials and tables are in the directory of each suite.");
  }
  const bytes = Uint8Array.from(atob(holder.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Figures are packed too; those of a view are unpacked when it is first shown. What they hold was escaped when drawn.

async function drawFigures(view) {
  const waiting = all("[data-packed]", view);
  if (!waiting.length) return;
  const figures = await unpacked(`figures-${view.dataset.key}`);
  for (const plot of waiting) {
    if (!plot.dataset.packed) continue;
    plot.prepend(new DOMParser().parseFromString(figures[plot.dataset.packed], "text/html").body.firstChild);
    plot.removeAttribute("data-packed");
  }
}

// Light and dark

function liveTheme() {
  const button = one("#theme"), root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; button.title = `Switch to ${dark() ? "light" : "dark"} colours`; };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("dtbench-theme", root.dataset.theme); } catch { /* then only for this visit */ }
    label();
  });
  system.addEventListener("change", label);
  button.hidden = false;
  label();
}

// One suite at a time

function follow(address) {
  const named = decodeURIComponent(address.slice(1));
  if (/^(cell|trial)-/.test(named)) {
    if (!one(".view.shown")) show(one(".view"));
    return void openTrials(named);
  }
  const target = named ? document.getElementById(named) : null;
  const view = target?.closest(".view");
  if (view || !one(".view.shown")) show(view ?? one(".view"));
  if (view === target && view) {
    scrollTo({ top: Math.min(scrollY, one("main").offsetTop), behavior: "instant" });
    one("h2", view).focus({ preventScroll: true });
  } else if (view) {
    for (let box = target; box; box = box.parentElement.closest("details")) if (box.tagName === "DETAILS") box.open = true;
    target.scrollIntoView({ behavior: "instant" });
  }
}

function show(view) {
  for (const other of all(".view")) other.classList.toggle("shown", other === view);
  one("main").dataset.view = view.dataset.key;
  for (const link of all(".bar a")) {
    const here = link.hash === `#${view.id}`;
    if (here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    if (here) link.parentElement.parentElement.scrollLeft = link.offsetLeft - 80;
  }
  for (const place of all(".trials:empty", view)) liveTrials(place);
  drawFigures(view).catch((error) => {
    for (const plot of all("[data-packed]", view)) plot.textContent = error.message;
  });
}
