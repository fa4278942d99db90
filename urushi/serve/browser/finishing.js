// What is done to a restored tile where its network changed the whole picture's light; why, and with
// which numbers, is told in urushi/inference/changed_light.py.

import { withoutGrid } from "./grid.js";

const BRIGHT = 0.5;

/* A restored tile as it is taken: three planes of `height` rows and `width` columns. `network` says
 * whether it changes the `light` or `brightens`, and its `multiple`. */
export function finished(tile, restored, height, width, { light, brightens, multiple }) {
  if (!light) return restored;
  const clean = withoutGrid(tile, restored, height, width, multiple);
  return brightens ? withHighlights(tile, clean, height, width) : clean;
}

/* A brightened tile whose bright parts are not burnt out. */
export function withHighlights(tile, restored, height, width) {
  const area = height * width;
  const light = new Float32Array(area);
  for (let at = 0; at < area; at++) light[at] = Math.max(tile[at], tile[at + area], tile[at + 2 * area]);
  const inside = (at, length) => Math.min(Math.max(at, 0), length - 1);
  return Float32Array.from(restored, (value, at) => {
    const place = at % area;
    const [x, y] = [place % width, Math.floor(place / width)];
    let sum = 0;
    for (let v = y - 1; v <= y + 1; v++) for (let u = x - 1; u <= x + 1; u++) sum += light[inside(v, height) * width + inside(u, width)];
    const share = Math.min(Math.max((1 - sum / 9) / (1 - BRIGHT), 0), 1);
    return tile[at] + share * (value - tile[at]);
  });
}
