// How the agent itself is.
import { el, put } from "./dom.js";
import { bytes, lasting, number } from "./format.js";
import { onChange, state } from "./live.js";

const ROWS = [
  ["uptime_s", "Up for", lasting],
  ["backend", "Model runs on", String],
  ["precision", "Precision", String],
  ["weights", "Weights", String],
  ["model", "Model", (digest) => digest.slice(0, 13)],
  ["windows", "Windows judged", String],
  ["windows_per_s", "Windows per second", number],
  ["p95_ms", "Latency, 95 % under", (ms) => `${number(ms)} ms`],
  ["queue", "Windows waiting", String],
  ["dropped", "Windows dropped", String],
  ["late", "Windows late", String],
  ["rejected", "Messages rejected", String],
  ["outbox_bytes", "Waiting to be sent", bytes],
  ["rss_bytes", "Memory", bytes],
];

export function agentView(main) {
  const problems = el("section", { id: "problems" });
  const facts = el("dl", { class: "facts" });
  put(main, el("h1", {}, "Agent"), problems, facts);

  function show(changes) {
    if (changes && !changes.agent && !changes.health) return;
    const found = Object.entries(state.agent.degraded || {});
    put(problems, found.length
      ? [el("h2", {}, "▲ Degraded"), el("dl", { class: "facts" }, found.map(([what, why]) => [el("dt", {}, what), el("dd", {}, why)]))]
      : el("p", {}, "Nothing is degraded."));
    put(facts, ROWS.filter(([key]) => key in state.health).map(([key, name, say]) =>
      [el("dt", {}, name), el("dd", {}, say(state.health[key]))]));
  }

  show(null);
  return onChange(show);
}
