// The alarms of a machine: what they say, and what an operator may do about them.
import { post } from "./api.js";
import { el, put } from "./dom.js";
import { stamp } from "./format.js";
import { state } from "./live.js";
import { needsOperator, state as stateMark } from "./marks.js";

const SHELVES = [[900, "15 min"], [3600, "1 hour"], [28800, "8 hours"], [86400, "1 day"]];
const NAME = "fisher-operator";

function operator() {
  try {
    return localStorage.getItem(NAME) || "";
  } catch {
    return "";
  }
}

export function nameField() {
  return el("label", { class: "operator" }, "Your name, for the record ", el("input", {
    maxlength: 48, value: operator(), autocomplete: "name",
    onchange: (event) => {
      try {
        localStorage.setItem(NAME, event.target.value.trim());
      } catch {
        // Then it is asked for again next time.
      }
    },
  }));
}

function facts(alarm) {
  const found = [`raised ${stamp(alarm.ts_raised)}`];
  if (alarm.ts_cleared) found.push(`over ${stamp(alarm.ts_cleared)}`);
  if (alarm.ts_acked) found.push(`acknowledged ${stamp(alarm.ts_acked)}${alarm.by ? ` by ${alarm.by}` : ""}`);
  if (alarm.shelved) found.push(`shelved until ${stamp(alarm.shelved_until)}`);
  if (alarm.comment) found.push(`“${alarm.comment}”`);
  return `occurrence ${alarm.occurrence}; ${found.join("; ")}`;
}

function item(machine, alarm, { explain, said }) {
  const verbs = state.agent.verbs || [];
  const path = `/api/machines/${encodeURIComponent(machine)}/commands/`;
  const buttons = [];

  async function act(verb, more) {
    for (const button of buttons) button.disabled = true;
    try {
      await post(path + verb, { alarm: alarm.alarm, occurrence: alarm.occurrence, by: operator(), ...more });
      said("");
    } catch (error) {
      said(`${verb} ${alarm.alarm}: ${error.message}`);
    }
    for (const button of buttons) button.disabled = false;
  }

  const controls = [];
  if (verbs.includes("ack") && needsOperator(alarm)) {
    const comment = el("input", { placeholder: "comment (optional)", maxlength: 200, "aria-label": "comment" });
    buttons.push(el("button", { class: "ack", onclick: () => act("ack", { comment: comment.value.trim() }) }, "Acknowledge"));
    controls.push(comment, buttons.at(-1));
  }
  if (verbs.includes("shelve") && !alarm.shelved) {
    const time = el("select", { "aria-label": "for how long" }, SHELVES.map(([s, words]) => el("option", { value: s }, words)));
    buttons.push(el("button", { onclick: () => act("shelve", { for_s: Number(time.value) }) }, "Shelve for"));
    controls.push(buttons.at(-1), time);
  }
  if (verbs.includes("unshelve") && alarm.shelved) {
    buttons.push(el("button", { onclick: () => act("unshelve", {}) }, "Unshelve"));
    controls.push(buttons.at(-1));
  }
  controls.push(el("button", { class: "why", onclick: () => explain(alarm.occurrence) }, "Why?"));
  return el(
    "li", { class: needsOperator(alarm) ? "alarm needs" : "alarm", "data-alarm": alarm.alarm },
    el("p", {}, el("strong", {}, alarm.alarm), " ", stateMark(alarm)),
    el("p", {}, alarm.text),
    el("p", { class: "quiet" }, facts(alarm)),
    el("p", { class: "controls" }, controls),
  );
}

export function alarmList(node, machine, options) {
  const shown = new Map();

  function order(a, b) {
    return Number(needsOperator(b)) - Number(needsOperator(a)) || b.ts_raised - a.ts_raised;
  }

  return function show() {
    const alarms = [...(state.alarms[machine] || [])].sort(order);
    const items = alarms.map((alarm) => {
      // The score of an alarm moves with each window; what an operator is typing must not go away for that.
      const key = `${alarm.alarm} ${alarm.seq} ${alarm.shelved} ${(state.agent.verbs || []).join()}`;
      const known = shown.get(alarm.alarm);
      if (known && known.key === key) {
        known.node.querySelectorAll("p")[1].textContent = alarm.text;
        return known.node;
      }
      const made = item(machine, alarm, options);
      shown.set(alarm.alarm, { key, node: made });
      return made;
    });
    const same = items.length === node.children.length && items.every((one, n) => node.children[n] === one);
    if (!items.length) put(node, el("li", { class: "quiet" }, "No alarm was ever raised."));
    else if (!same) put(node, items);
  };
}

export function journalRows(rows) {
  if (!rows.length) return el("p", { class: "quiet" }, "Nothing happened yet.");
  return el("ul", { class: "plain journal" }, rows.map((alarm) => el(
    "li", {}, el("span", { class: "quiet" }, stamp(alarm.ts)), " ", stateMark(alarm), ` ${alarm.alarm}, occurrence ${alarm.occurrence}`,
    alarm.by ? `, by ${alarm.by}` : "", alarm.comment ? `: “${alarm.comment}”` : "")));
}
