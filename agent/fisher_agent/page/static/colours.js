// Cividis (Nunez, Anderton and Renslow 2018): perceptually uniform, and the same to every kind of colour vision.

const ANCHORS = [
  0x00224e, 0x002e6a, 0x1a386f, 0x32436d, 0x434e6c, 0x535a6d, 0x61656f, 0x6f7073, 0x7d7c78, 0x8c8878, 0x9b9476, 0xaba072, 0xbcae6c, 0xcdbb63, 0xdec958, 0xf0d846, 0xfee838,
];

function mix(position) {
  const at = Math.min(ANCHORS.length - 1, Math.max(0, position * (ANCHORS.length - 1)));
  const low = Math.floor(at);
  const high = Math.min(low + 1, ANCHORS.length - 1);
  return [0, 1, 2].map((n) => {
    const a = (ANCHORS[low] >> (16 - 8 * n)) & 255;
    const b = (ANCHORS[high] >> (16 - 8 * n)) & 255;
    return Math.round(a + (b - a) * (at - low));
  });
}

/** 256 colours as [r, g, b]. */
export const MAP = Array.from({ length: 256 }, (_, n) => mix(n / 255));

export function colour(share) {
  const [r, g, b] = MAP[Math.min(255, Math.max(0, Math.round(share * 255)))];
  return `rgb(${r} ${g} ${b})`;
}

export function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
