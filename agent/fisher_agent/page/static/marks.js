// Levels and states as a shape, a colour and a word: any one of them alone is enough.
import { el, svg } from "./dom.js";

export const LEVELS = { "-1": "unknown", 0: "normal", 1: "advisory", 2: "alarm", 3: "severe" };

const SHAPES = {
  unknown: () => [
    svg("circle", { cx: 12, cy: 12, r: 9, class: "open dashed" }),
    svg("text", { x: 12, y: 16.5, class: "ink" }, "?"),
  ],
  normal: () => [svg("circle", { cx: 12, cy: 12, r: 9, class: "open" }), svg("path", { d: "M7.5 12.5l3 3 6-7", class: "line" })],
  advisory: () => [svg("path", { d: "M12 2.5 22 21H2z" }), svg("text", { x: 12, y: 19, class: "knock" }, "i")],
  alarm: () => [svg("path", { d: "M12 1 23 12 12 23 1 12z" }), svg("text", { x: 12, y: 16.5, class: "knock" }, "!")],
  severe: () => [
    svg("path", { d: "M7.5 1h9L23 7.5v9L16.5 23h-9L1 16.5v-9z" }),
    svg("text", { x: 12, y: 16.5, class: "knock" }, "!!"),
  ],
};

export function symbol(name) {
  const shape = SHAPES[name] ? name : "unknown";
  return svg("svg", { viewBox: "0 0 24 24", class: `symbol ${shape}`, "aria-hidden": "true" }, SHAPES[shape]());
}

export function level(name) {
  return el("span", { class: `level ${name}` }, symbol(name), el("span", {}, name));
}

const STATES = {
  NORM: ["normal", "normal"],
  UNACK: ["alarm", "active, not acknowledged"],
  ACKED: ["advisory", "active, acknowledged"],
  RTNUN: ["advisory", "over, not acknowledged"],
  LATCHED: ["alarm", "latched, not acknowledged"],
  SHELVED: ["unknown", "shelved"],
  SUPPRESSED: ["unknown", "suppressed"],
  OOS: ["unknown", "out of service"],
  UNKNOWN: ["unknown", "unknown, cannot be judged"],
};

export function state(alarm) {
  const [shape, words] = STATES[alarm.state] || ["unknown", alarm.state];
  return el("span", { class: `level ${shape}`, title: alarm.state }, symbol(shape), el("span", {}, words));
}

/** States 1 to 3 of the contract need an operator. */
export function needsOperator(alarm) {
  return alarm.state_code >= 1 && alarm.state_code <= 3;
}

export function channelWord(channel, word) {
  const good = word === "ok";
  return el("span", { class: good ? "chip quiet" : "chip bad" }, good ? `${channel} ok` : `⚠ ${channel} ${word}`);
}
