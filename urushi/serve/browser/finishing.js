// What is done to a restored tile where its network changed the whole picture's light; why, and with
// which numbers, is told in urushi/inference/changed_light.py.

import { withoutGrid } from "./grid.js";
import { boxed } from "./light.js";

const BRIGHT = 0.5;
const [CEILING, SHOULDER] = [0.85, 0.65];
const [EVEN, FLAT, STEEPEST] = [(2 / 255) ** 2, 2e-5, 4];
const [MIDDLE, BLACKEST, DARKER, BRIGHTEST, MOST, COMPRESSED] = [0.45, 0.04, 0.09, 0.85, 2, 0.8];
const [DEEP, WITHIN, REACH, OWN, FLOOR] = [5, 5, 12, 3 / 255, 1 / 255];
const [BLACK, COLOURED, LAMP] = [1 / 255, 1.6 / 255, 3 / 255];

/* A restored tile as it is taken: three planes of `height` rows and `width` columns. `network` says
 * whether it changes the `light`, `brightens`, `leavesDetail` or `clearsHaze`, and its `multiple`. */
export function finished(tile, restored, height, width, { light, brightens, leavesDetail, clearsHaze, multiple }) {
  if (!light) return restored;
  const clean = withoutGrid(tile, restored, height, width, multiple);
  const smooth = leavesDetail ? withEvenGround(tile, clean, height, width) : clean;
  const even = clearsHaze ? withKeptLight(tile, smooth) : smooth;
  if (!brightens) return even;
  const lined = withoutBorderLine(tile, even, height, width);
  return withNeutralBlack(tile, withHighlights(tile, lined, height, width), height, width);
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

/* A whole picture with a rest of its haze, or exposed anew, where it is too dark, as
 * urushi/inference/haze_light.py. */
export function withKeptLight(tile, restored) {
  const area = tile.length / 3;
  const light = (values) => Float32Array.from({ length: area }, (_, at) => Math.max(values[at], values[at + area], values[at + 2 * area]));
  const sorted = (values) => light(values).sort();
  const place = (share) => Math.floor(share * (area - 1));
  const before = sorted(tile);
  const [middle, left] = [before[place(0.5)], sorted(restored)[place(0.5)]];
  let made = restored;
  if (left < MIDDLE * middle) {
    const seen = Math.min(Math.max((left - BLACKEST) / (DARKER - BLACKEST), 0), 1);
    const share = (seen * (MIDDLE * middle - left)) / (middle - left);
    made = restored.map((value, at) => value + share * (tile[at] - value));
  }
  const brightest = sorted(made)[place(0.99)];
  const gain = Math.min((BRIGHTEST * before[place(0.99)]) / Math.max(brightest, 1e-6), MOST);
  if (gain <= 1) return made;
  const room = 1 - COMPRESSED;
  const after = light(made);
  return made.map((value, at) => {
    const own = Math.max(after[at % area], 1e-6);
    const wanted = gain * own;
    const held = Math.min(wanted, COMPRESSED) + room * Math.tanh(Math.max(wanted - COMPRESSED, 0) / room);
    return (value * Math.max(held, own)) / own;
  });
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

/* A brightened tile without the line along its border, as urushi/inference/border_line.py. */
export function withoutBorderLine(tile, restored, height, width) {
  const depth = DEEP + WITHIN;
  if (Math.min(height, width) < 2 * depth) return restored;
  const result = Float32Array.from(restored);
  const area = height * width;
  for (const [across, length, sides] of [[width, width, height], [1, height, width]]) {
    // `step` leads along the border, `across` away from it.
    const step = across === 1 ? width : 1;
    for (const backwards of [false, true]) {
      const at = (channel, row, place) => channel * area + (backwards ? sides - 1 - row : row) * across + place * step;
      const rows = (values) => along(values, at, depth, length);
      const [dark, light] = [rows(tile), rows(result)];
      for (let place = 0; place < length; place++) {
        const inner = (of, channel) => {
          let sum = 0;
          for (let row = DEEP; row < depth; row++) sum += of[channel][row][place];
          return sum / WITHIN;
        };
        const facts = [0, 1, 2].map((channel) => {
          const [ground, aim] = [inner(dark, channel), inner(light, channel)];
          return { ground, aim, times: Math.max(Math.max(aim, FLOOR) / Math.max(ground, FLOOR), 1) };
        });
        for (let row = 0; row < DEEP; row++) {
          const own = Math.max(...facts.map(({ ground, times }, channel) => Math.abs(dark[channel][row][place] - ground) * times));
          const even = Math.min(Math.max(2 - own / OWN, 0), 1);
          facts.forEach(({ aim }, channel) => { result[at(channel, row, place)] += even * (aim - light[channel][row][place]); });
        }
      }
    }
  }
  return result;
}

// Means of neighbours within each of the outer rows.
function along(values, at, depth, length) {
  return [0, 1, 2].map((channel) => Array.from({ length: depth }, (_, row) => {
    const sums = new Float64Array(length + 1);
    for (let place = 0; place < length; place++) sums[place + 1] = sums[place] + values[at(channel, row, place)];
    return Float64Array.from({ length }, (__, place) => {
      const [low, high] = [Math.max(place - REACH, 0), Math.min(place + REACH + 1, length)];
      return (sums[high] - sums[low]) / (high - low);
    });
  }));
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
