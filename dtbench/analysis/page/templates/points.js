// Points of figures: a sentence for each, by pointer, touch and keyboard.

const REACH = 14;   // pixels between the pointer and a point that it still means
const points = { plot: null, series: [], at: [0, 0] };   // what the tooltip speaks of
const pointer = { x: NaN, y: NaN, moved: false };        // a page that scrolls below a resting mouse moves no mouse

function livePlot(plot) {
  plot.setAttribute("aria-roledescription", "figure with points");
  plot.setAttribute("aria-label", `${plot.getAttribute("aria-label")} Arrow keys walk along the points.`);
  plot.append(element("div", { class: "ring", hidden: true }));
  let series = null;
  const load = async () => {
    if (series === null) {
      await drawFigures(plot.closest(".view"));
      const marks = await unpacked(`points-${plot.closest(".view").dataset.key}`);
      series = marks[plot.dataset.marks].map(([gid, labels]) => marked(plot.dataset.prefix + gid, labels));
      series = series.filter((marks) => marks.length);
    }
    return series;
  };
  const pointed = async (event) => {
    if (event.type === "pointermove" && !pointer.moved) return;
    const found = nearest(await load(), event.clientX, event.clientY);
    if (found) tell(plot, series, found); else if (points.plot === plot) hush();
  };
  plot.addEventListener("pointermove", pointed);
  plot.addEventListener("pointerdown", pointed);
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hush(); });
  plot.addEventListener("blur", hush);
  plot.addEventListener("keydown", async (event) => {
    if (!/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    await load();
    if (!series.length) return;
    tell(plot, series, points.plot === plot ? step(series, points.at, event.key) : [0, 0]);
    one(".ring", plot).scrollIntoView({ block: "nearest", inline: "nearest" });
    announce(points.series[points.at[0]][points.at[1]].label);
  });
}

// The drawn children of a group, in order: markers of a line or shapes of bars, one for each label.
function marked(id, labels) {
  const group = document.getElementById(id);
  if (!group) return [];
  const shapes = all("path, rect, circle", group).filter((shape) => !shape.closest("defs"));
  const found = [all("use", group), shapes].find((nodes) => nodes.length === labels.length) ?? [];
  return found.map((node, place) => ({ node, label: labels[place] }));
}

function nearest(series, x, y) {
  let best = null;
  series.forEach((marks, row) => marks.forEach(({ node }, place) => {
    const box = node.getBoundingClientRect();
    const far = Math.hypot(Math.max(box.left - x, x - box.right, 0), Math.max(box.top - y, y - box.bottom, 0));
    const centre = Math.hypot((box.left + box.right) / 2 - x, (box.top + box.bottom) / 2 - y);
    if (far > REACH || (best && (far > best.far || (far === best.far && centre >= best.centre)))) return;
    best = { far, centre, at: [row, place] };
  }));
  return best?.at ?? null;
}

// Left and right run on into the neighbouring series at an end, so that no point is out of reach.
function step(series, [row, place], key) {
  const rows = series.length, last = series[row].length - 1;
  if (key === "Home") return [row, 0];
  if (key === "End") return [row, last];
  if (key === "ArrowRight") return place < last ? [row, place + 1] : [(row + 1) % rows, 0];
  if (key === "ArrowLeft" && place > 0) return [row, place - 1];
  const other = (row + (key === "ArrowDown" ? 1 : rows - 1)) % rows;
  return [other, key === "ArrowLeft" ? series[other].length - 1 : Math.min(place, series[other].length - 1)];
}

function tell(plot, series, at) {
  if (points.plot && points.plot !== plot) hush();
  Object.assign(points, { plot, series, at });
  one("#tip").textContent = series[at[0]][at[1]].label;
  one("#tip").hidden = false;
  one(".ring", plot).hidden = false;
  place();
}

function hush() {
  if (points.plot) one(".ring", points.plot).hidden = true;
  points.plot = null;
  one("#tip").hidden = true;
}

function place() {
  if (!points.plot) return;
  const { plot, series, at } = points, tip = one("#tip"), ring = one(".ring", plot);
  const box = series[at[0]][at[1]].node.getBoundingClientRect(), around = plot.getBoundingClientRect();
  const x = (box.left + box.right) / 2, top = box.top;
  const size = Math.min(26, Math.max(14, Math.min(box.width, box.height) + 8));
  const y = box.height > 40 ? top : (top + box.bottom) / 2;   // of a bar: its upper end
  ring.style.cssText = `left:${x - around.left + plot.scrollLeft}px;top:${y - around.top}px;width:${size}px;height:${size}px`;
  const { offsetWidth: width, offsetHeight: height } = tip;
  tip.style.left = `${Math.max(8, Math.min(x - width / 2, document.documentElement.clientWidth - width - 8))}px`;
  const above = y - size / 2 - height - 8;
  tip.style.top = `${above >= 8 ? above : Math.min(y + size / 2 + 8, innerHeight - height - 8)}px`;
}
