// Learning normal running, or a fault: start it, see how far it is, read its report.
import { post } from "./api.js";
import { el, put } from "./dom.js";
import { lasting } from "./format.js";
import { state } from "./live.js";

const DURATIONS = [[60, "1 minute (a first try)"], [600, "10 minutes"], [3600, "1 hour"], [28800, "8 hours"], [86400, "1 day"]];
const WORDS = {
  listening: "Listening",
  learning: "Learning",
  done: "Learnt; it is judged by this from the next window on",
  failed: "Failed",
  stopped: "Stopped",
};

function form(machine, said) {
  const duration = el("select", { name: "duration" }, DURATIONS.map(([s, words]) => el("option", { value: s, selected: s === 600 }, words)));
  const mode = el("input", { name: "mode", placeholder: "default", maxlength: 48, pattern: "[A-Za-z0-9_\\-]*" });
  const fault = el("input", { name: "fault", placeholder: "none: normal running", maxlength: 48, pattern: "[A-Za-z0-9_\\-]*" });
  return el("form", {
    class: "enroll",
    onsubmit: async (event) => {
      event.preventDefault();
      try {
        await post(`/api/machines/${encodeURIComponent(machine)}/enroll`, {
          duration_s: Number(duration.value), mode: mode.value.trim(), fault: fault.value.trim(),
        });
        said("");
      } catch (error) {
        said(error.message);
      }
    },
  }, el("label", {}, "Listen for ", duration), el("label", {}, "Mode ", mode), el("label", {}, "Fault class ", fault),
  el("button", { type: "submit" }, "Enrol"));
}

function progress(machine, now, said) {
  const busy = now.phase === "listening" || now.phase === "learning";
  const how = now.phase === "listening" ? `${lasting(now.done)} of ${lasting(now.total)} heard` : now.total ? `${now.done} of ${now.total} windows` : "";
  return [
    el("p", {}, el("strong", {}, WORDS[now.phase] || now.phase), busy && how ? `: ${how}` : "",
      now.fault ? ` (fault ${now.fault})` : now.mode ? ` (mode ${now.mode})` : ""),
    busy ? el("progress", { max: now.total || 1, ...(now.total ? { value: now.done } : {}) }) : null,
    now.text ? el("pre", {}, now.text) : null,
    now.phase === "listening" ? el("button", {
      onclick: () => post(`/api/machines/${encodeURIComponent(machine)}/enroll-stop`, {}).catch((error) => said(error.message)),
    }, "Stop") : null,
  ];
}

export function enrolment(node, machine) {
  const error = el("p", { role: "alert", class: "error" });
  const said = (text) => {
    error.textContent = text;
  };
  const shape = form(machine, said);
  const far = el("div", { class: "progress", "aria-live": "polite" });
  put(node, el("h2", {}, "Enrolment"), far, shape, error);
  return function show() {
    const now = state.enrolling[machine];
    put(far, now ? progress(machine, now, said)
      : el("p", { class: "quiet" }, state.machines[machine]?.enrolled ? "This machine is enrolled." : "This machine is not enrolled: nothing is judged."));
    shape.hidden = Boolean(now) && (now.phase === "listening" || now.phase === "learning");
  };
}
