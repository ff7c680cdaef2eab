// Tables: sorting and filtering.

// Headings become buttons; `sort` is called with the column and 1, -1 or 0, the order that the table came in.
function sortable(table, sort) {
  const headings = all("thead th", table);
  headings.forEach((heading, column) => {
    const button = element("button", { type: "button", class: "sort" });
    button.append(...heading.childNodes);
    button.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const direction = before === "ascending" ? -1 : before === "descending" ? 0 : 1;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      if (direction) heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      sort(column, direction);
      const how = { 1: "ascending", "-1": "descending", 0: "in the first order" }[direction];
      announce(`Sorted by ${button.textContent}, ${how}.`);
    });
    heading.append(button);
  });
}

// Holes (null) come last in either direction.
function compare(left, right, direction) {
  if (left === null || right === null) return (left === null) - (right === null);
  return direction * (typeof left === "number" ? left - right : collator.compare(left, right));
}

function sortKey(cell, numeric) {
  if (!cell) return null;
  if (numeric) {
    const number = Number(cell.dataset.value);
    return cell.dataset.value === undefined || Number.isNaN(number) ? null : number;
  }
  const text = cell.textContent.trim();
  return cell.classList.contains("hole") || text === "" || text === DASH ? null : text;
}

function liveTable(box) {
  const table = one("table", box);
  const rows = [...table.tBodies[0].rows];
  sortable(table, (column, direction) => {
    const numeric = rows.some((row) => row.cells[column]?.dataset.value !== undefined);
    const keys = new Map(rows.map((row) => [row, sortKey(row.cells[column], numeric)]));
    const order = direction ? rows.toSorted((a, b) => compare(keys.get(a), keys.get(b), direction)) : rows;
    table.tBodies[0].append(...order);
  });
  if (rows.length > 6) box.prepend(element("div", { class: "tools" }, ...filterOf(table.caption.textContent, rows)));
}

function filterOf(caption, rows) {
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const count = element("output", { "aria-live": "polite" });
  const input = element("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter rows: ${caption}` });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, place) => { row.hidden = !words.every((word) => texts[place].includes(word)); });
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
  return [input, count];
}
