"use strict";
// A click on a bar of the ledger's grid leads to the window under the pointer, or to the hour where bars are hours; arrow keys walk through hours and windows.
(() => {
  const WINDOW_US = 300_000_000, DAY_US = 86_400_000_000;
  const open = new Set();
  document.addEventListener("click", event => {
    const bar = event.target.closest(".lb[data-from]");
    if (!bar) return;
    event.preventDefault();
    const box = bar.getBoundingClientRect(), part = Math.min(0.9999, Math.max(0, (event.clientX - box.left) / box.width));
    const at = Number(bar.dataset.from) + Math.floor(part * DAY_US / WINDOW_US) * WINDOW_US;
    const skip = new URLSearchParams(location.search).get("skip") || "0";
    const what = bar.querySelector(".by60").getBoundingClientRect().width ? "hour" : "window";
    location.assign(`/ledger?${what}=${at}&skip=${encodeURIComponent(skip)}#chosen`);
  });
  document.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], list = event.target.closest && event.target.closest("ol.lb, .lsteps ol");
    if (!step || !list) return;
    const links = [...list.querySelectorAll("a")], next = links[links.indexOf(event.target) + step];
    if (next) { event.preventDefault(); next.focus(); }
  });
  document.addEventListener("toggle", event => {
    if (event.target.id.startsWith("area-")) open[event.target.open ? "add" : "delete"](event.target.id);
  }, true);
  document.addEventListener("htmx:after:swap", () => {
    for (const id of open) { const area = document.getElementById(id); if (area) area.open = true; }
  });
})();
