"use strict";
// One stream of live values for this page. The page is judged by the heartbeat, never by the state of the socket:
// a frozen server keeps its sockets open.
(() => {
  const LOST_S = 5, RENEW_S = 10, PAUSE_S_MAX = 5;
  const url = document.body.dataset.live;
  if (!url) return;
  const root = document.documentElement;
  let heardAt = performance.now(), heardTime = new Date(), pauseS = 1, source = null, opening = 0, freshAt = heardAt;
  let nodes = null, pending = {}, isQueued = false;

  const find = () => {
    nodes = new Map();
    for (const node of document.querySelectorAll("[data-v]")) {
      const same = nodes.get(node.dataset.v);
      if (same) same.push(node); else nodes.set(node.dataset.v, [node]);
    }
  };
  const flush = () => {
    isQueued = false;
    if (!nodes) find();
    for (const key in pending) for (const node of nodes.get(key) || []) {
      if (node.firstChild && node.firstChild.nodeType === 3) node.firstChild.data = pending[key]; else node.textContent = pending[key];
    }
    pending = {};
  };
  const fresh = () => {
    freshAt = performance.now();
    document.getElementById("main").dispatchEvent(new CustomEvent("fresh"));
  };
  const heard = () => {
    const wasLost = root.classList.contains("lost");
    heardAt = performance.now(); heardTime = new Date(); pauseS = 1;
    if (wasLost) { show(); fresh(); }
  };
  const show = () => {
    const silentS = (performance.now() - heardAt) / 1000, isLost = silentS > LOST_S;
    root.classList.toggle("lost", isLost);
    const bar = document.getElementById("lost"), live = document.getElementById("live").lastElementChild;
    const text = isLost ? `No data for ${Math.round(silentS)} s` : "Live";
    if (live.textContent !== text) live.textContent = text;
    bar.hidden = !isLost;
    if (isLost) bar.lastElementChild.textContent =
      `No data for ${Math.round(silentS)} s. What you see is from ${heardTime.toLocaleTimeString("en-GB", { timeZone: root.dataset.zone })}. Trying again.`;
  };
  const connect = () => {
    clearTimeout(opening);
    if (source) source.close();
    source = new EventSource(url);
    source.addEventListener("v", event => {
      heard();
      Object.assign(pending, JSON.parse(event.data));
      if (!isQueued) { isQueued = true; requestAnimationFrame(flush); }
    });
    source.addEventListener("beat", heard);
    source.addEventListener("state", () => { heard(); if (performance.now() - freshAt > 1500) fresh(); else freshAt = -Infinity; });
    source.onerror = () => {
      source.close();
      clearTimeout(opening);
      opening = setTimeout(connect, 1000 * pauseS * (0.7 + 0.6 * Math.random()));
      pauseS = Math.min(pauseS * 2, PAUSE_S_MAX);
    };
  };
  setInterval(() => {
    show();
    const main = document.getElementById("main"), now = performance.now(), everyS = Number(main.dataset.refresh);
    const isLost = root.classList.contains("lost");
    if (!isLost && everyS && !document.hidden && now - freshAt > 1000 * everyS) fresh();
    if (isLost && source.readyState === 1 && now - heardAt > 1000 * RENEW_S) { pauseS = 1; heardAt -= 1; connect(); }
  }, 1000);
  document.addEventListener("htmx:after:swap", () => { nodes = null; filter(); });
  addEventListener("pagehide", () => { clearTimeout(opening); if (source) source.close(); });
  addEventListener("pageshow", event => { if (event.persisted) connect(); });

  const input = document.getElementById("find");
  const filter = () => {
    const wanted = input.value.trim().toLowerCase(), none = document.getElementById("nofind");
    let shown = 0;
    for (const node of document.querySelectorAll("[data-find]")) {
      node.hidden = wanted !== "" && !node.dataset.find.toLowerCase().includes(wanted);
      shown += !node.hidden;
    }
    for (const area of document.querySelectorAll(".area")) area.hidden = wanted !== "" && !area.querySelector(".tile:not([hidden])");
    if (none) none.hidden = wanted === "" || shown > 0;
  };
  input.addEventListener("input", filter);
  input.form.addEventListener("submit", event => {
    const first = document.querySelector("[data-find]:not([hidden])");
    if (first) { event.preventDefault(); location.assign(first.href); }
  });
  document.addEventListener("keydown", event => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) { event.preventDefault(); input.focus(); }
  });
  const asked = new URLSearchParams(location.search).get("find");
  if (asked) { input.value = asked; filter(); }
  connect();
})();
