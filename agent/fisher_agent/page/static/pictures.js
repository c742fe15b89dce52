// Spectrograms and waveforms of a capture.
import { el } from "./dom.js";
import { MAP, colour, themed } from "./colours.js";
import { hertz, number } from "./format.js";

function cells(panel) {
  const raw = atob(panel.cells);
  const canvas = el("canvas", { width: panel.columns, height: panel.rows, class: "spectrogram", role: "img" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(panel.columns, panel.rows);
  for (let row = 0; row < panel.rows; row += 1) {
    for (let column = 0; column < panel.columns; column += 1) {
      const [r, g, b] = MAP[raw.charCodeAt(row * panel.columns + column)];
      image.data.set([r, g, b, 255], 4 * ((panel.rows - 1 - row) * panel.columns + column)); // low frequencies below
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export function spectrogram(title, panel, missing) {
  if (!panel) return el("figure", {}, el("figcaption", {}, title), el("p", { class: "quiet missing" }, missing || "not there"));
  const canvas = cells(panel);
  canvas.setAttribute("aria-label", title);
  return el(
    "figure", {},
    el("figcaption", {}, title),
    el("div", { class: "axes" },
      el("div", { class: "hertz quiet" }, el("span", {}, hertz(panel.top_hz)), el("span", {}, hertz(panel.top_hz / 2)), el("span", {}, "0 Hz")),
      canvas),
    el("div", { class: "seconds quiet" }, el("span", {}, "0 s"), el("span", {}, `${number(panel.seconds)} s`)),
    missing ? el("p", { class: "quiet missing" }, missing) : null,
  );
}

export function decibels(pictures) {
  const canvas = el("canvas", { width: 64, height: 1, class: "scale", role: "img", "aria-label": "colour scale" });
  const context = canvas.getContext("2d");
  for (let n = 0; n < 64; n += 1) {
    context.fillStyle = colour(n / 63);
    context.fillRect(n, 0, 1, 1);
  }
  return el("p", { class: "legend quiet" }, `${number(pictures.low_db)}`, canvas, `${number(pictures.high_db)} ${pictures.unit}; both pictures share this scale`);
}

const WIDTH = 1200;
const HEIGHT = 180;

/** `marks`: [[ms, word]] that lie in the waveform. */
export function waveform(wave, marks) {
  const canvas = el("canvas", { width: WIDTH, height: HEIGHT, class: "waveform", role: "img", "aria-label": "waveform" });
  const context = canvas.getContext("2d");
  const reach = Math.max(1e-12, ...wave.low.map(Math.abs), ...wave.high.map(Math.abs));
  const y = (value) => HEIGHT / 2 - (value / reach) * (HEIGHT / 2 - 4);
  context.fillStyle = themed("--line");
  wave.low.forEach((low, n) => {
    const x = (n / wave.low.length) * WIDTH;
    const top = y(wave.high[n]);
    context.fillRect(x, top, Math.max(1, WIDTH / wave.low.length), Math.max(1, y(low) - top));
  });
  const inside = marks.filter(([t]) => t && wave.t && t >= wave.t && t <= wave.t + wave.seconds * 1000);
  context.strokeStyle = themed("--limit");
  context.lineWidth = 3;
  for (const [t] of inside) {
    const x = ((t - wave.t) / (wave.seconds * 1000)) * WIDTH;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, HEIGHT);
    context.stroke();
  }
  const said = inside.map(([t, word]) => `${word} at ${number((t - wave.t) / 1000)} s`).join(", ");
  return el("figure", {}, el("figcaption", {}, `Waveform, ${number(wave.seconds)} s, ±${number(reach)} ${wave.unit}`), canvas,
    el("div", { class: "seconds quiet" }, el("span", {}, "0 s"), el("span", {}, said), el("span", {}, `${number(wave.seconds)} s`)));
}
