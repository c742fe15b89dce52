// All machines at a glance, and above them the alarms that need somebody.
import { get } from "./api.js";
import { el, put } from "./dom.js";
import { number, percent, stamp } from "./format.js";
import { link, onChange, state } from "./live.js";
import { channelWord, level, needsOperator, state as alarmState } from "./marks.js";
import { sparkline } from "./sparkline.js";

const TRENDS_MS = 60000;
const TREND_POINTS = 120;

function words(machine) {
  if (!machine.enrolled) return "not enrolled";
  if (!machine.running) return machine.t ? "not running" : "not judged yet";
  return machine.mode && machine.mode !== "default" ? `running, mode ${machine.mode}` : "running";
}

function card(id, machine, points) {
  const top = machine.top_channel && machine.level > 0 ? `mostly ${machine.top_channel}, ${percent(machine.top_share)}` : "";
  return el(
    "a", { class: `card ${machine.level_name}${machine.stale ? " old" : ""}`, href: `#/m/${encodeURIComponent(id)}` },
    el("div", { class: "row" }, el("h2", {}, id), level(machine.level_name)),
    machine.stale ? el("p", { class: "old-note" }, `STALE, last judged ${stamp(machine.t)}`) : null,
    el("div", { class: "row" }, el("span", { class: "score" }, number(machine.score)), sparkline(points)),
    el("p", { class: "quiet" }, [words(machine), top].filter(Boolean).join("; ")),
    el("p", { class: "chips" }, Object.entries(machine.channels).map(([c, w]) => channelWord(c, w))),
  );
}

function waiting() {
  const found = [];
  for (const [machine, alarms] of Object.entries(state.alarms)) {
    for (const alarm of alarms) if (needsOperator(alarm)) found.push([machine, alarm]);
  }
  found.sort(([, a], [, b]) => a.priority - b.priority || b.ts_raised - a.ts_raised);
  if (!found.length) return [el("p", { class: "quiet" }, "No alarm needs anybody.")];
  return [
    el("h2", {}, found.length === 1 ? "1 alarm needs somebody" : `${found.length} alarms need somebody`),
    el("ul", { class: "plain" }, found.slice(0, 20).map(([machine, alarm]) =>
      el("li", {}, el("a", { href: `#/m/${encodeURIComponent(machine)}` }, alarmState(alarm), " ", alarm.text)))),
    found.length > 20 ? el("p", { class: "quiet" }, `and ${found.length - 20} more`) : null,
  ];
}

export function overviewView(main) {
  const alarms = el("section", { class: "waiting", id: "waiting" });
  const grid = el("section", { class: "grid", id: "machines" });
  const cards = new Map();
  const trends = {};
  put(main, alarms, grid);

  function follow(id) {
    const machine = state.machines[id];
    const points = (trends[id] ||= []);
    if (machine.score !== null && machine.t > (points.at(-1)?.[0] ?? 0)) points.push([machine.t, machine.score]);
    while (points.length > TREND_POINTS) points.shift();
    const now = card(id, machine, points);
    cards.get(id)?.replaceWith(now);
    cards.set(id, now);
  }

  function show(changes) {
    const ids = Object.keys(state.machines);
    const same = ids.length === cards.size && ids.every((id) => cards.has(id));
    if (changes === null || !same) {
      ids.forEach(follow);
      put(grid, ids.map((id) => cards.get(id)));
      for (const id of [...cards.keys()]) if (!state.machines[id]) cards.delete(id);
      if (!ids.length && link.ever) put(grid, el("p", {}, "No machine is configured: add [[machines]] to the configuration."));
    } else {
      Object.keys(changes.machines || {}).forEach(follow);
    }
    if (changes === null || changes.alarms) put(alarms, waiting());
  }

  async function load() {
    try {
      const found = await get("/api/trends");
      for (const [id, points] of Object.entries(found)) {
        const last = points.at(-1)?.[0] ?? 0;
        trends[id] = [...points, ...(trends[id] || []).filter(([t]) => t > last)].slice(-TREND_POINTS);
      }
      show(null);
    } catch {
      // The banner says that the agent is away.
    }
  }

  show(null);
  load();
  const timer = setInterval(load, TRENDS_MS);
  const forget = onChange(show);
  return () => {
    clearInterval(timer);
    forget();
  };
}
