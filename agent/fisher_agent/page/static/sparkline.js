// The trend of a score, as high as a line of text, with its limit.
import { svg } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 30;

export function sparkline(points) {
  const picture = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "spark", preserveAspectRatio: "none", role: "img",
    "aria-label": "score over the last hour, with its limit",
  });
  const top = Math.max(1.5, ...points.map(([, score]) => score));
  const y = (score) => HEIGHT - 1 - (Math.max(0, score) / top) * (HEIGHT - 2);
  picture.append(svg("line", { x1: 0, x2: WIDTH, y1: y(1), y2: y(1), class: "limit" }));
  if (points.length > 1) {
    const first = points[0][0];
    const last = Math.max(points[points.length - 1][0], first + 1);
    const line = points.map(([t, score]) => `${(((t - first) / (last - first)) * WIDTH).toFixed(1)},${y(score).toFixed(1)}`);
    picture.append(svg("polyline", { points: line.join(" ") }));
  }
  return picture;
}
