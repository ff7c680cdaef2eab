// Start: the last of the script.

liveTheme();
all("div.table").forEach(liveTable);
all(".plot[data-marks]").forEach(livePlot);
follow(location.hash);
addEventListener("beforeprint", () => all(".view").forEach(drawFigures));
addEventListener("hashchange", () => follow(location.hash));
addEventListener("scroll", place, { passive: true, capture: true });
addEventListener("resize", place);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") { hush(); one(".more")?.removeAttribute("open"); } });
document.addEventListener("pointermove", ({ screenX: x, screenY: y }) => {
  Object.assign(pointer, { x, y, moved: x !== pointer.x || y !== pointer.y });
}, { capture: true });
document.addEventListener("pointerdown", (event) => { if (points.plot && !points.plot.contains(event.target)) hush(); });
document.addEventListener("click", (event) => {
  const menu = one(".more");
  if (menu && (!menu.contains(event.target) || event.target.closest("a"))) menu.open = false;
  const link = event.target.closest("a[href^='#']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (/^#(cell|trial)-/.test(link.hash)) {
    event.preventDefault();
    openTrials(decodeURIComponent(link.hash.slice(1)));
  } else if (link.hash === location.hash) follow(link.hash);   // the same address again changes no hash
});
