// Numbers, times and words for people.

const two = (n) => String(n).padStart(2, "0");

export function clock(ms) {
  const t = new Date(ms);
  return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
}

export function stamp(ms) {
  if (!ms) return "never";
  const t = new Date(ms);
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ${clock(ms)}`;
}

/** For the ends of a range and the ticks of a chart: the time of day, or the day where that is at midnight. */
export function short(ms) {
  const t = new Date(ms);
  const midnight = t.getHours() + t.getMinutes() + t.getSeconds() === 0;
  const seconds = t.getSeconds() ? `:${two(t.getSeconds())}` : "";
  return midnight ? `${two(t.getMonth() + 1)}-${two(t.getDate())}` : `${two(t.getHours())}:${two(t.getMinutes())}${seconds}`;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`;
}

export function hertz(value) {
  return value >= 1000 ? `${number(value / 1000)} kHz` : `${number(value)} Hz`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let size = value || 0;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${number(size)} ${units[unit]}`;
}

export function lasting(seconds) {
  const s = Math.round(seconds);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${number(s / 3600, 2)} h`;
  return `${number(s / 86400, 2)} days`;
}
