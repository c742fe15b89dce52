// Which view is shown (the address behind #), and the frame around it: status, staleness.
import { clock } from "./format.js";
import { el, put } from "./dom.js";
import { link, onChange, start, state } from "./live.js";
import { agentView } from "./agent.js";
import { machineView } from "./machine.js";
import { overviewView } from "./overview.js";

const main = document.getElementById("main");
let leave = () => {};

function route() {
  leave();
  const [, first, id] = location.hash.split("/").map(decodeURIComponent);
  if (first === "m" && id) leave = machineView(main, id);
  else if (first === "agent") leave = agentView(main);
  else leave = overviewView(main);
  for (const anchor of document.querySelectorAll("nav a")) {
    const here = anchor.hash === (first === "agent" ? "#/agent" : "#/");
    if (here) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  scrollTo(0, 0);
}

function frame() {
  const { agent } = state;
  document.getElementById("where").textContent = agent.site ? `${agent.site} / ${agent.edge}` : "fisher-agent";
  const word = link.stale ? "stale" : agent.status || "connecting";
  const chip = document.getElementById("agent-status");
  chip.textContent = { online: "● online", degraded: "▲ degraded", stale: "✕ no connection" }[word] || word;
  chip.className = `chip ${word}`;
  const banner = document.getElementById("stale");
  const shown = link.stale && link.ever;
  banner.hidden = !shown;
  document.body.classList.toggle("stale", shown);
  if (shown) {
    const why = link.stopped ? "The agent was stopped" : "The agent does not answer";
    put(banner, el("strong", {}, "STALE"), ` ${why}. What is shown is from before ${clock(link.since)}.`);
  }
}

addEventListener("hashchange", route);
onChange(frame);
start();
frame();
route();
