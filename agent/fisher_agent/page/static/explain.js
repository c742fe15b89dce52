// Why an alarm was raised: its evidence, part by part, and a word where a part is not there.
import { get } from "./api.js";
import { el, put } from "./dom.js";
import { hertz, number, percent, stamp } from "./format.js";
import { decibels, spectrogram, waveform } from "./pictures.js";

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const objects = (value) => (Array.isArray(value) ? value.filter(isObject) : []);

function indicators(found) {
  const rows = [];
  for (const [channel, names] of Object.entries(isObject(found) ? found : {})) {
    for (const [name, value] of Object.entries(isObject(names) ? names : {})) {
      if (isObject(value)) rows.push([channel, name, value]);
    }
  }
  if (!rows.length) return el("p", { class: "quiet" }, "No indicators were kept.");
  return el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, ["channel", "indicator", "now", "enrolled (5 to 95 %)"].map((h) => el("th", {}, h)))),
    el("tbody", {}, rows.map(([channel, name, v]) => {
      const outside = v.now > v.enrolled_high ? "▲ " : v.now < v.enrolled_low ? "▼ " : "";
      const range = Number.isFinite(v.enrolled_low) ? ` (${number(v.enrolled_low)} to ${number(v.enrolled_high)})` : "";
      return el("tr", { class: outside ? "outside" : "" }, el("td", {}, channel), el("td", {}, name),
        el("td", {}, `${outside}${number(v.now)} ${v.unit || ""}`), el("td", {}, `${number(v.enrolled)}${range}`));
    }))));
}

function peaks(found) {
  const rows = objects(found);
  if (!rows.length) return null;
  return [el("h3", {}, "Spectrum lines"), el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, ["channel", "line", "at", "now", "enrolled"].map((h) => el("th", {}, h)))),
    el("tbody", {}, rows.map((p) => el("tr", { class: p.now_db > p.enrolled_db + 6 ? "outside" : "" },
      el("td", {}, String(p.channel)), el("td", {}, String(p.name)), el("td", {}, hertz(p.hz)),
      el("td", {}, `${number(p.now_db)} dB`), el("td", {}, `${number(p.enrolled_db)} dB`))))))];
}

function sentence(explanation, document) {
  const parts = [];
  const verdict = isObject(document.verdict) ? document.verdict : {};
  if (Number.isFinite(verdict.score)) parts.push(`score ${number(verdict.score)} (limit 1.0)`);
  if (Number.isFinite(verdict.p_value)) parts.push(`p = ${number(verdict.p_value)}`);
  const band = explanation.top_band_hz;
  if (explanation.top_channel) {
    const at = Array.isArray(band) && band[1] > 0 ? ` at ${hertz(band[0])} to ${hertz(band[1])}` : "";
    const change = Number.isFinite(explanation.top_change_db) ? `, ${explanation.top_change_db > 0 ? "+" : ""}${number(explanation.top_change_db)} dB` : "";
    parts.push(`mostly ${explanation.top_channel}${at}${change}`);
  }
  if (explanation.fault) parts.push(`likely ${explanation.fault}, ${percent(explanation.fault_confidence)}`);
  return parts.join("; ");
}

function nearest(found) {
  const rows = objects(found);
  if (!rows.length) return el("p", { class: "quiet" }, "No enrolled window is named.");
  return el("ul", { class: "plain" }, rows.map((n) =>
    el("li", {}, `${n.channel}: enrolled ${stamp(n.t_ns / 1e6)}, distance ${number(n.distance)}`)));
}

function pictures(machine, occurrence, document) {
  const channels = objects(document.channels).map((c) => String(c.id));
  if (!channels.length) return el("p", { class: "quiet" }, "No waveform was kept.");
  const top = isObject(document.explanation) ? document.explanation.top_channel : "";
  const shown = el("div", {});
  const base = `/api/machines/${encodeURIComponent(machine)}/captures/${occurrence}`;
  const marks = [[document.onset_ns / 1e6, "onset"], [document.raised_ns / 1e6, "alarm"]];
  let wanted = 0;

  async function show(channel) {
    wanted += 1;
    const mine = wanted;
    put(shown, el("p", { class: "quiet" }, "reading …"));
    const [spectra, wave] = await Promise.allSettled([
      get(`${base}/spectrograms/${encodeURIComponent(channel)}`), get(`${base}/waveform/${encodeURIComponent(channel)}`),
    ]);
    if (mine !== wanted) return;
    put(shown,
      spectra.status === "fulfilled"
        ? [el("div", { class: "pair" },
            spectrogram(`${channel}: the alarmed window`, spectra.value.panels.alarmed, spectra.value.missing.alarmed),
            spectrogram(`${channel}: the nearest normal one`, spectra.value.panels.nearest, spectra.value.missing.nearest)),
          decibels(spectra.value)]
        : el("p", { class: "quiet" }, `No spectrogram: ${spectra.reason.message}`),
      wave.status === "fulfilled" ? waveform(wave.value, marks) : el("p", { class: "quiet" }, `No waveform: ${wave.reason.message}`));
    shown.dataset.channel = channel;
  }

  const first = channels.includes(top) ? top : channels[0];
  const choice = el("select", { "aria-label": "channel", onchange: (event) => show(event.target.value) },
    channels.map((c) => el("option", { value: c, selected: c === first }, c)));
  show(first);
  return [el("p", {}, el("label", {}, "Channel ", choice)), shown];
}

/** Returns false where nothing was kept. */
export async function explain(node, machine, occurrence, alarm) {
  // An alarm that called again is another occurrence with the evidence of the first.
  const kept = alarm && alarm.capture ? alarm.capture.split("/")[1] : occurrence;
  const title = el("h2", {}, `Why: ${alarm ? alarm.alarm : "alarm"}, occurrence ${occurrence}`);
  put(node, title, el("p", { class: "quiet" }, "reading …"));
  let document;
  try {
    document = await get(`/api/machines/${encodeURIComponent(machine)}/captures/${kept}`);
  } catch (error) {
    put(node, title, alarm ? el("p", {}, alarm.text) : null, el("p", { class: "quiet missing" }, `No evidence: ${error.message}.`));
    return false;
  }
  const explanation = isObject(document.explanation) ? document.explanation : {};
  put(node, title,
    el("p", {}, String(document.text || (alarm && alarm.text) || "")),
    el("p", {}, sentence(explanation, document)),
    el("p", { class: "quiet" }, `onset ${stamp(document.onset_ns / 1e6)}, raised ${stamp(document.raised_ns / 1e6)}`),
    pictures(machine, kept, document),
    el("h3", {}, "Indicators beside the enrolled levels"), indicators(explanation.indicators),
    peaks(explanation.peaks),
    el("h3", {}, "Nearest enrolled windows"), nearest(explanation.nearest));
  return true;
}
