// Shares over time as strips: a row per channel or band, time to the right, brighter is more. The number is the latest.
import { el, put } from "./dom.js";
import { MAP, colour } from "./colours.js";
import { hertz, percent, stamp } from "./format.js";

const COLUMNS = 240;

function strip(times, values, since, until) {
  const canvas = el("canvas", { width: COLUMNS, height: 1, class: "strip", role: "img" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(COLUMNS, 1);
  const width = Math.max(1, Math.round(COLUMNS / Math.max(1, times.length)));
  let shown = null;
  times.forEach((t, n) => {
    if (values[n] === null) return;
    shown = values[n];
    const [r, g, b] = MAP[Math.round(Math.min(1, Math.max(0, values[n])) * 255)];
    const first = Math.floor(((t - since) / (until - since)) * COLUMNS);
    // A row covers ten seconds or one part of the range, whichever is longer.
    const last = first + Math.max(width, Math.ceil((10000 / (until - since)) * COLUMNS));
    for (let x = Math.max(0, first); x < Math.min(COLUMNS, last); x += 1) image.data.set([r, g, b, 255], 4 * x);
  });
  context.putImageData(image, 0, 0);
  return [canvas, shown];
}

function bandName(band) {
  const [low, high] = band.split("-").map(Number);
  return Number.isFinite(high) ? `${number(low)}–${hertz(high)}` : band;
}

function number(value) {
  return value >= 1000 ? String(value / 1000) : String(value);
}

export function scale() {
  const steps = Array.from({ length: 11 }, (_, n) => n / 10);
  const canvas = el("canvas", { width: 11, height: 1, class: "scale", role: "img", "aria-label": "colour scale" });
  const context = canvas.getContext("2d");
  steps.forEach((share, n) => {
    context.fillStyle = colour(share);
    context.fillRect(n, 0, 1, 1);
  });
  return el("p", { class: "legend quiet" }, "0 %", canvas, "100 % (brighter is more)");
}

export function strips(node, rows, charts) {
  if (!rows.length) {
    put(node, el("p", { class: "quiet" }, "Nothing in this range."));
    return;
  }
  const ends = el("div", { class: "strip-row" }, el("div", { class: "seconds quiet" }, el("span", {}, stamp(charts.since)), el("span", {}, stamp(charts.until))));
  put(node, rows.map(({ name, values }) => {
    const [canvas, latest] = strip(charts.shares.t, values, charts.since, charts.until);
    canvas.setAttribute("aria-label", `${name}, latest ${percent(latest)}`);
    return el("div", { class: "strip-row" }, el("span", { class: "name" }, name), canvas, el("span", { class: "value" }, percent(latest)));
  }), ends);
}

export function channelRows(shares) {
  return Object.entries(shares.channels).map(([name, values]) => ({ name, values }));
}

export function bandRows(shares) {
  return shares.bands.map(({ channel, band, values }) => ({ name: `${channel} ${bandName(band)}`, values }));
}
