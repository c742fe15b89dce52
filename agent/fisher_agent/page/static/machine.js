// One machine: how it is now, its history, its alarms and why, its enrolment.
import { get } from "./api.js";
import { alarmList, journalRows, nameField } from "./alarms.js";
import { el, put } from "./dom.js";
import { enrolment } from "./enroll.js";
import { explain } from "./explain.js";
import { number, percent, stamp } from "./format.js";
import { link, onChange, state } from "./live.js";
import { channelWord, level } from "./marks.js";
import { scoreChart } from "./scorechart.js";
import { bandRows, channelRows, scale, strips } from "./strips.js";

const SPANS = [[900, "15 min"], [3600, "1 h"], [21600, "6 h"], [86400, "1 day"], [604800, "7 days"], [2592000, "30 days"]];
const RELOAD_MS = 5000; // of short ranges; long ones change slowly
const SLOW_MS = 60000;

function now(id, machine) {
  const facts = [
    ["Score", `${number(machine.score)} (limit 1.0)`],
    ["Running", machine.running ? "yes" : "no"],
    ["Mode", machine.mode || "–"],
    ["Enrolled", machine.enrolled ? "yes" : "no"],
    ["Fault", machine.fault ? `${machine.fault}${machine.fault_confidence > 0 ? `, ${percent(machine.fault_confidence)}` : ""}` : "none named"],
    ["Mostly", machine.top_channel ? `${machine.top_channel}, ${percent(machine.top_share)} of the excess` : "–"],
    ["Judged", stamp(machine.t)],
    ["Quality", machine.quality || "–"],
  ];
  return [
    el("div", { class: "row" }, el("h1", {}, id), level(machine.level_name)),
    machine.stale ? el("p", { class: "old-note" }, `STALE: nothing new since ${stamp(machine.t)}`) : null,
    machine.note ? el("p", { class: "quiet" }, machine.note) : null,
    el("dl", { class: "facts short" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("p", { class: "chips" }, Object.entries(machine.channels).map(([c, w]) => channelWord(c, w))),
  ];
}

export function machineView(main, id) {
  const head = el("section", { class: "now" });
  const alarms = el("ul", { class: "plain alarms", id: "alarms" });
  const error = el("p", { role: "alert", class: "error" });
  const why = el("section", { id: "why" });
  const chartNode = el("div", { id: "score" });
  const channels = el("div", { class: "strips", id: "channels" });
  const bands = el("div", { class: "strips", id: "bands" });
  const journal = el("div", { id: "journal" });
  const enrolling = el("section", { id: "enrolment" });
  const spans = el("p", { class: "spans", role: "group", "aria-label": "range" });
  put(main, head,
    el("section", {}, el("h2", {}, "Alarms"), alarms, error, nameField()),
    why,
    el("section", {}, el("h2", {}, "Score over time"), spans, chartNode,
      el("h3", {}, "Share of each channel in the excess"), channels,
      el("h3", {}, "Share of each band in its channel's distance"), bands, scale()),
    enrolling,
    el("section", {}, el("h2", {}, "What happened"), journal));

  const chart = scoreChart(chartNode);
  const showEnrolment = enrolment(enrolling, id);
  const showAlarms = alarmList(alarms, id, {
    said: (text) => {
      error.textContent = text;
    },
    explain: async (occurrence) => {
      const alarm = (state.alarms[id] || []).find((a) => a.occurrence === occurrence);
      await explain(why, id, occurrence, alarm);
      why.scrollIntoView({ block: "start" });
    },
  });
  let span = 3600;
  let lastMs = -Infinity;
  let gone = false;
  let loading = false;

  function buttons() {
    put(spans, SPANS.map(([s, words]) => el("button", {
      "aria-pressed": s === span ? "true" : "false",
      onclick: () => {
        span = s;
        lastMs = -Infinity;
        buttons();
        load();
      },
    }, words)));
  }

  async function load() {
    const due = span > 21600 ? SLOW_MS : RELOAD_MS;
    if (loading || document.hidden || performance.now() - lastMs < due) return;
    loading = true;
    lastMs = performance.now();
    const wanted = span;
    const base = `/api/machines/${encodeURIComponent(id)}`;
    try {
      const [charts, rows] = await Promise.all([get(`${base}/charts?span_s=${wanted}&points=600`), get(`${base}/journal?limit=30`)]);
      if (!gone && wanted === span) {
        chart.show(charts);
        strips(channels, channelRows(charts.shares), charts);
        strips(bands, bandRows(charts.shares), charts);
        put(journal, journalRows(rows));
      }
    } catch (failure) {
      if (!gone && !link.stale) error.textContent = failure.message;
    }
    loading = false;
    if (!gone && wanted !== span) load();
  }

  function show(changes) {
    const machine = state.machines[id];
    if (!machine) {
      put(head, el("h1", {}, id), el("p", {}, link.ever ? "This agent has no such machine (any more)." : "connecting …"));
      return;
    }
    if (changes === null || changes.machines?.[id]) put(head, now(id, machine));
    if (changes === null || changes.alarms?.[id] || changes.agent) showAlarms();
    if (changes === null || changes.enrolling || changes.machines?.[id]) showEnrolment();
  }

  buttons();
  show(null);
  load();
  const timer = setInterval(load, 1000);
  const forget = onChange(show);
  return () => {
    gone = true;
    clearInterval(timer);
    forget();
    chart.close();
  };
}
