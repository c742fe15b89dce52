// Score over time: the mean as a line, from smallest to largest as a band, so that no peak is lost by thinning.
import { el } from "./dom.js";
import { number, short, stamp } from "./format.js";
import { themed } from "./colours.js";

const HEIGHT = 230;

function columns(scores) {
  const t = scores.t.map((ms) => ms / 1000);
  return [t, scores.low, scores.high, scores.mean];
}

/** The limit over the whole range, whether there are scores or not. */
function limit(u) {
  const y = u.valToPos(1, "y", true);
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = themed("--limit");
  ctx.lineWidth = 2 * devicePixelRatio;
  ctx.setLineDash([8 * devicePixelRatio, 5 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

function plot(node, data, ends, read) {
  const ink = themed("--ink");
  const axis = { stroke: ink, grid: { stroke: themed("--rule"), width: 1 }, ticks: { stroke: themed("--rule"), width: 1 } };
  return new globalThis.uPlot({
    width: Math.max(200, node.clientWidth),
    height: HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: false } },
    scales: { x: { time: true, range: () => ends }, y: { range: (_, __, high) => [0, Math.max(1.5, (high || 0) * 1.05)] } },
    axes: [{ ...axis, values: (_, splits) => splits.map((s) => short(s * 1000)) }, { ...axis, size: 44 }],
    series: [
      {},
      { stroke: "transparent", width: 0, points: { show: false } },
      { stroke: "transparent", width: 0, points: { show: false } },
      { stroke: themed("--line"), width: 2, points: { size: 4 } },
    ],
    bands: [{ series: [2, 1], fill: themed("--band") }],
    hooks: { draw: [limit], setCursor: [(u) => read(u.cursor.idx)] },
  }, data, node);
}

export function scoreChart(node) {
  const box = el("div", { class: "plot" });
  const said = el("p", { class: "quiet readout" });
  node.replaceChildren(box, said);
  let chart = null;
  let latest = null;
  const ends = [0, 1];

  function read(index) {
    if (!latest || index === null || index === undefined || latest[3][index] === null) return;
    const [t, low, high, mean] = latest.slice(0, 4).map((column) => column[index]);
    const spread = high > low ? ` (${number(low)} to ${number(high)})` : "";
    said.textContent = `${stamp(t * 1000)}: score ${number(mean)}${spread}; limit 1.0, dashed`;
  }

  const watcher = new ResizeObserver(() => chart?.setSize({ width: Math.max(200, box.clientWidth), height: HEIGHT }));
  watcher.observe(box);

  return {
    show(charts) {
      latest = columns(charts.scores);
      ends[0] = charts.since / 1000;
      ends[1] = charts.until / 1000;
      if (chart && latest[0].length) {
        chart.setData(latest);
        if (chart.cursor.idx === null || chart.cursor.idx === undefined) read(latest[0].length - 1);
        return;
      }
      chart?.destroy();
      chart = null;
      if (!latest[0].length) {
        box.textContent = "No score in this range.";
        said.textContent = "";
        return;
      }
      box.textContent = "";
      chart = plot(box, latest, ends, read);
      read(latest[0].length - 1);
    },
    close() {
      watcher.disconnect();
      chart?.destroy();
    },
  };
}
