// What is done to a restored tile where its network changed the whole picture's light; why, and with
// which numbers, is told in urushi/inference/changed_light.py.

import { withoutGrid } from "./grid.js";
import { boxed } from "./light.js";

const BRIGHT = 0.5;
const [CEILING, SHOULDER] = [0.85, 0.65];
const [EVEN, FLAT, STEEPEST] = [(2 / 255) ** 2, 2e-5, 4];
const [BLACK, COLOURED, LAMP] = [1 / 255, 1.6 / 255, 3 / 255];

/* A restored tile as it is taken: three planes of `height` rows and `width` columns. `network` says
 * whether it changes the `light`, `brightens` or `leavesDetail`, and its `multiple`. */
export function finished(tile, restored, height, width, { light, brightens, leavesDetail, multiple }) {
  if (!light) return restored;
  const clean = withoutGrid(tile, restored, height, width, multiple);
  const even = leavesDetail ? withEvenGround(tile, clean, height, width) : clean;
  return brightens ? withNeutralBlack(tile, withHighlights(tile, even, height, width), height, width) : even;
}

/* A restored tile that is as smooth as it was where it was even, as urushi/inference/even_ground.py. */
export function withEvenGround(tile, restored, height, width) {
  const area = height * width;
  const means = (values) => boxed(values, width, height);
  const channels = [0, 1, 2].map((channel) => {
    const part = (values) => Float64Array.from(values.subarray(channel * area, (channel + 1) * area));
    const [before, after] = [part(tile), part(restored)];
    const [mean, squares] = [means(before), means(before.map((value) => value * value))];
    return { before, after, mean, variance: squares.map((value, at) => Math.max(value - mean[at] ** 2, 0)) };
  });
  const share = means(Float64Array.from({ length: area }, (_, at) => {
    const most = Math.max(...channels.map(({ variance }) => variance[at]));
    return Math.min(Math.max(2 - most / EVEN, 0), 1);
  }));
  const result = new Float32Array(restored.length);
  channels.forEach(({ before, after, mean, variance }, channel) => {
    const aim = means(after);
    const products = means(after.map((value, at) => value * before[at]));
    const gain = products.map((value, at) => {
      const steep = (value - mean[at] * aim[at] + FLAT) / (variance[at] + FLAT);
      return Math.min(Math.max(steep, 0), STEEPEST);
    });
    const [factor, offset] = [means(gain), means(aim.map((value, at) => value - gain[at] * mean[at]))];
    after.forEach((value, at) => {
      result[channel * area + at] = value + share[at] * (factor[at] * before[at] + offset[at] - value);
    });
  });
  return result;
}

/* A tile with `margin` pixels mirrored around it, as `Finish.around`. */
export function withMargin(tile, height, width, margin) {
  if (!margin) return tile;
  const place = (at, length) => {
    const inside = (((at - margin) % (2 * length)) + 2 * length) % (2 * length);
    return Math.min(inside, 2 * length - 1 - inside);
  };
  const [rows, columns] = [height + 2 * margin, width + 2 * margin];
  const from = Int32Array.from({ length: columns }, (_, x) => place(x, width));
  const result = new Float32Array(3 * rows * columns);
  let at = 0;
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < rows; y++) {
      const line = (channel * height + place(y, height)) * width;
      for (const x of from) result[at++] = tile[line + x];
    }
  }
  return result;
}

/* What was restored, without its margin; `height` and `width` are those within. */
export function withoutMargin(restored, height, width, margin) {
  if (!margin) return restored;
  const [rows, columns] = [height + 2 * margin, width + 2 * margin];
  const result = new Float32Array(3 * height * width);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < height; y++) {
      const from = (channel * rows + y + margin) * columns + margin;
      result.set(restored.subarray(from, from + width), (channel * height + y) * width);
    }
  }
  return result;
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
    const made = tile[at] + share * (value - tile[at]);
    const dark = Math.max(1 - tile[at], 1e-6);
    const above = made - (1 - (1 - SHOULDER) * dark);
    const room = (CEILING - SHOULDER) * dark;
    return above > 0 ? made - above - room * Math.expm1(-above / room) : made;
  });
}

/* A brightened tile whose black has no colour. */
export function withNeutralBlack(tile, restored, height, width) {
  const area = height * width;
  const dim = Float64Array.from({ length: area }, (_, at) => Math.min(Math.max(tile[at], tile[at + area], tile[at + 2 * area]), LAMP));
  const light = boxed(dim, width, height);
  return Float32Array.from(restored, (value, at) => {
    const place = at % area;
    const share = Math.min(Math.max((light[place] - BLACK) / (COLOURED - BLACK), 0), 1);
    const grey = (restored[place] + restored[place + area] + restored[place + 2 * area]) / 3;
    return grey + share * (value - grey);
  });
}
