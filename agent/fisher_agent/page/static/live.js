// The agent's state as it was last sent, and whether it still is: the feed brings an event a second.
import { get } from "./api.js";

const STALE_MS = 5000;
const BROKEN_MS = 2000; // a connection that broke may be open again so soon
const AGAIN_MS = 3000;

export const state = { agent: {}, health: {}, machines: {}, alarms: {}, enrolling: {} };
export const link = { stale: true, since: Date.now(), stopped: false, ever: false };

const listeners = new Set();
let source = null;
let heardMs = performance.now();
let probing = false;

export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(changes) {
  for (const listener of [...listeners]) listener(changes);
}

function heard() {
  heardMs = performance.now();
  link.ever = true;
  if (link.stale) {
    link.stale = false;
    link.stopped = false;
    return true;
  }
  return false;
}

function all(event) {
  const sent = JSON.parse(event.data);
  for (const section of Object.keys(state)) state[section] = sent[section] || {};
  heard();
  tell(null);
}

function some(event) {
  const changes = JSON.parse(event.data);
  for (const [section, entries] of Object.entries(changes)) {
    for (const [key, value] of Object.entries(entries)) {
      if (value === null) delete state[section][key];
      else state[section][key] = value;
    }
  }
  if (heard()) tell(null);
  else if (Object.keys(changes).length) tell(changes);
}

function lost(stopped) {
  if (stopped) link.stopped = true;
  if (!link.stale) {
    link.stale = true;
    link.since = Date.now();
    tell(null);
  }
}

function open() {
  source = new EventSource("/api/live");
  source.addEventListener("all", all);
  source.addEventListener("some", some);
  source.addEventListener("bye", () => lost(true));
  source.addEventListener("error", () => {
    heardMs = Math.min(heardMs, performance.now() - STALE_MS + BROKEN_MS);
    // Browsers try again after a broken connection, but not after a refusal.
    if (source.readyState === EventSource.CLOSED) setTimeout(open, AGAIN_MS);
  });
}

async function watch() {
  if (performance.now() - heardMs <= STALE_MS) return;
  lost(false);
  if (probing) return;
  probing = true;
  try {
    await get("/api/overview"); // leads to the login where the session has ended
  } catch {
    // The banner says so already.
  }
  probing = false;
}

export function start() {
  open();
  setInterval(watch, 1000);
}
