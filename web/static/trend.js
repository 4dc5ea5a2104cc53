"use strict";
// The curves of an equipment's page: fetched as minima and maxima for each pixel, drawn in the plant's zone.
(() => {
  const EVERY_MS = 5000, HEIGHT_FIRST = 190, HEIGHT = 132;
  const root = document.documentElement, zone = root.dataset.zone, plots = new Map();
  const css = name => getComputedStyle(root).getPropertyValue(name).trim();
  const format = options => { const its = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: "h23", ...options }); return s => its.format(s * 1000); };
  const seconds = format({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const minutes = format({ hour: "2-digit", minute: "2-digit" });
  const days = format({ day: "numeric", month: "short" });
  const full = format({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

  const drawGaps = (u, gaps) => {
    const { ctx, bbox: box } = u, px = devicePixelRatio;
    for (const [begin, end] of gaps) {
      const left = Math.max(u.valToPos(begin, "x", true), box.left), right = Math.min(u.valToPos(end, "x", true), box.left + box.width);
      if (right - left < 1) continue;
      ctx.save(); ctx.beginPath(); ctx.rect(left, box.top, right - left, box.height); ctx.fillStyle = css("--gap"); ctx.fill(); ctx.clip();
      ctx.strokeStyle = css("--line2"); ctx.lineWidth = px; ctx.beginPath();
      for (let x = left - box.height; x < right; x += 6 * px) { ctx.moveTo(x, box.top + box.height); ctx.lineTo(x + box.height, box.top); }
      ctx.stroke(); ctx.restore();
    }
  };
  const drawLimit = (u, limit, isHigh) => {
    const { ctx, bbox: box } = u, px = devicePixelRatio, y = u.valToPos(limit, "y", true), color = css("--p1");
    ctx.save(); ctx.strokeStyle = ctx.fillStyle = color; ctx.lineWidth = 1.25 * px; ctx.setLineDash([5 * px, 4 * px]);
    ctx.beginPath(); ctx.moveTo(box.left, y); ctx.lineTo(box.left + box.width, y); ctx.stroke();
    ctx.font = `${11 * px}px ${css("--font")}`; ctx.textAlign = "left"; ctx.textBaseline = isHigh ? "bottom" : "top";
    ctx.fillText(`limit ${limit}`, box.left + 4 * px, y + (isHigh ? -2 : 3) * px); ctx.restore();
  };
  // The line is red only beyond a limit: a gradient with a hard edge where the limit lies.
  const stroke = plot => u => {
    const base = css("--trace"), alarm = css("--p1"), { top, height } = u.bbox;
    if ((plot.high === null && plot.low === null) || !(height > 0) || !Number.isFinite(u.scales.y.min)) return base;
    const part = value => Math.min(1, Math.max(0, (u.valToPos(value, "y", true) - top) / height));
    const gradient = u.ctx.createLinearGradient(0, top, 0, top + height);
    const high = plot.high === null ? 0 : part(plot.high), low = plot.low === null ? 1 : part(plot.low);
    if (!Number.isFinite(high) || !Number.isFinite(low)) return base;
    if (plot.high !== null) { gradient.addColorStop(0, alarm); gradient.addColorStop(high, alarm); }
    gradient.addColorStop(high, base); gradient.addColorStop(Math.max(high, low), base);
    if (plot.low !== null) { gradient.addColorStop(Math.max(high, low), alarm); gradient.addColorStop(1, alarm); }
    return gradient;
  };
  const range = plot => (u, min, max) => {
    if (plot.isPercent) return [0, 100];
    if (!Number.isFinite(min)) { min = 0; max = 1; }
    for (const limit of [plot.high, plot.low]) if (limit !== null) { min = Math.min(min, limit); max = Math.max(max, limit); }
    const pad = (max - min) * 0.12 || Math.abs(max) * 0.1 || 1;
    return [min >= 0 && min - pad < 0 ? 0 : min - pad, max + pad];
  };
  const ticks = (u, values) => {
    const span = u.scales.x.max - u.scales.x.min, text = span > 200000 ? days : span > 900 ? minutes : seconds;
    return values.map(text);
  };
  const make = (element, isFirst) => {
    const number = name => element.dataset[name] === undefined ? null : Number(element.dataset[name]);
    const plot = { element, high: number("high"), low: number("low"), isPercent: element.dataset.percent !== undefined, gaps: [], isSparse: false,
      height: isFirst ? HEIGHT_FIRST : HEIGHT, readout: element.parentElement.querySelector("output") };
    const ink = css("--ink2"), grid = css("--grid"), font = `11px ${css("--font")}`;
    const axis = { stroke: ink, font, grid: { stroke: grid, width: 1 }, ticks: { show: false }, gap: 6 };
    plot.u = new uPlot({
      width: element.clientWidth, height: plot.height, legend: { show: false }, padding: [8, 14, 0, 0], tzDate: at => uPlot.tzDate(new Date(at * 1000), zone),
      cursor: { sync: { key: "trends" }, y: false, points: { size: 6 }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: range(plot) } },
      series: [{}, { stroke: stroke(plot), width: 1.4, points: { show: () => plot.isSparse, size: 5 }, spanGaps: false }],
      axes: [{ ...axis, size: 24, space: 76, values: ticks }, { ...axis, size: 46, space: 24 }],
      hooks: {
        drawClear: [u => drawGaps(u, plot.gaps)],
        draw: [u => { if (plot.high !== null) drawLimit(u, plot.high, true); if (plot.low !== null) drawLimit(u, plot.low, false); }],
        setCursor: [u => {
          const at = u.cursor.idx, value = at == null ? null : u.data[1][at];
          plot.readout.textContent = value == null ? "" : `${full(u.data[0][at])} · ${Number(value.toPrecision(4))}`;
        }],
      },
    }, [[], []], element);
    return plot;
  };
  const load = async () => {
    const elements = [...document.querySelectorAll(".uh")];
    elements.forEach((element, at) => { if (!plots.has(element)) { plots.set(element, make(element, at === 0)); resized.observe(element); } });
    const answers = await Promise.all(elements.map(async element => {
      const query = new URLSearchParams({ topic: element.dataset.topic, range: element.dataset.range, w: Math.max(100, element.clientWidth) });
      const answer = await fetch(`/api/trend?${query}`);
      return answer.ok ? answer.json() : null;
    }));
    const known = answers.filter(answer => answer && answer.t.length);
    if (!known.length) return;
    // A plant that has just begun fills the width with what there is.
    const first = Math.min(...known.map(answer => answer.t[0])), end = Math.max(...known.map(answer => answer.to));
    const begin = Math.max(Math.min(...known.map(answer => answer.from)), Math.min(first, end - 120));
    answers.forEach((answer, at) => {
      const plot = plots.get(elements[at]);
      if (!answer) return;
      plot.gaps = answer.gaps; plot.isSparse = answer.t.length < 40;
      plot.u.batch(() => { plot.u.setData([answer.t, answer.v], false); plot.u.setScale("x", { min: begin, max: end }); });
    });
    const samples = known.reduce((sum, answer) => sum + answer.samples, 0), points = known.reduce((sum, answer) => sum + answer.t.length, 0);
    document.getElementById("samples").textContent = `${samples.toLocaleString("en-GB").replaceAll(",", "\u202f")} samples shown as ${points.toLocaleString("en-GB").replaceAll(",", "\u202f")} points, minima and maxima kept`;
    root.dataset.ready = "1";
  };
  let isLoading = false;
  const again = async () => {
    if (isLoading || document.hidden || root.classList.contains("lost")) return;
    isLoading = true;
    try { await load(); } catch (error) { if (!(error instanceof TypeError)) throw error; } finally { isLoading = false; }
  };
  const resized = new ResizeObserver(entries => {
    for (const { target } of entries) { const plot = plots.get(target); plot.u.setSize({ width: target.clientWidth, height: plot.height }); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
  setInterval(again, EVERY_MS);
  again();
})();
