// Pictures with haze or in low light: a small version of the whole says how bright parts are.
// The method, its numbers and why they are so are those of urushi/inference/overview.py.

import { cutterOf, planTiles, streamTiles } from "./tiles.js";

export const PIXELS = 1 << 18;
const REACH = 8;
const FLAT = 1e-4;
const FLAT_OF_TILES = 1e-3;
const STEEPEST = 4;

// By which whole factor both sides are reduced; `fits` pixels are restored as one tile at most.
export function reduction(width, height, fits = Infinity) {
  const nearest = Math.floor(Math.sqrt((width * height) / PIXELS) + 0.5);
  return Math.max(1, nearest, Math.ceil(Math.sqrt((width * height) / fits)));
}

/* Puts a picture ({pixels, width, height}, RGBA of 8 bits) through a network, in the light of its
 * restored small version: by tiles, or where the network says so (`leavesDetail`) with the detail
 * that the picture has. See `streamTiles` for the others. Gives RGBA, 8 bits. */
export async function mendInLight({ pixels, width, height }, network, plan, run, onTile) {
  const factor = reduction(width, height, network.fits);
  const cut = cutterOf(pixels, width);
  const every = Int32Array.from({ length: width }, (_, x) => x);
  const source = (y) => cut([y], every);
  const small = reduced(source, width, height, factor);
  const wanted = await restoredSmall(small, network, run);
  if (network.leavesDetail) onTile(plan.count);
  const detail = network.leavesDetail ? source : await tiled(cut, width, height, plan, run, onTile);
  const from = network.leavesDetail ? small : reduced(detail, width, height, factor);
  const result = new Uint8ClampedArray(pixels.length);
  const across = between(width, factor, from.width);
  const down = between(height, factor, from.height);
  const fits = [0, 1, 2].map((channel) => workedOut(from, wanted, channel, !network.leavesDetail));
  for (let y = 0; y < height; y++) {
    const line = detail(y);
    fits.forEach(({ gain, offset }, channel) => {
      for (let x = 0; x < width; x++) {
        const at = [from.width, down, y, across, x];
        result[4 * (y * width + x) + channel] = 255 * (interpolated(gain, ...at) * line[channel * width + x] + interpolated(offset, ...at));
      }
    });
  }
  for (let at = 3; at < pixels.length; at += 4) result[at] = pixels[at];
  return result;
}

// What the tiles give: a function of a row, as three planes.
async function tiled(cut, width, height, plan, run, onTile) {
  const tiles = new Float32Array(3 * width * height);
  await streamTiles(cut, plan, run, onTile, (first, count, planes, covered, plane) => {
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < count; y++) {
        const from = channel * plane + y * covered;
        tiles.set(planes.subarray(from, from + width), (channel * height + first + y) * width);
      }
    }
  });
  return (y) => {
    const row = new Float32Array(3 * width);
    for (let channel = 0; channel < 3; channel++) {
      const from = (channel * height + y) * width;
      row.set(tiles.subarray(from, from + width), channel * width);
    }
    return row;
  };
}

// Means over squares of `factor` pixels, fewer at the ends; `line` gives a row as three planes.
function reduced(line, width, height, factor) {
  const [columns, rows] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const sums = new Float64Array(3 * columns * rows);
  for (let y = 0; y < height; y++) {
    const values = line(y);
    for (let channel = 0; channel < 3; channel++) {
      const to = (channel * rows + Math.floor(y / factor)) * columns;
      for (let x = 0; x < width; x++) sums[to + Math.floor(x / factor)] += values[channel * width + x];
    }
  }
  const planes = Float32Array.from(sums, (sum, at) => {
    const [x, y] = [at % columns, Math.floor(at / columns) % rows];
    return sum / (Math.min(factor, width - x * factor) * Math.min(factor, height - y * factor));
  });
  return { width: columns, height: rows, planes };
}

// The small version restored, as one tile.
async function restoredSmall({ width, height, planes }, network, run) {
  const cut = (lines, columns) => {
    const tile = new Float32Array(3 * lines.length * columns.length);
    let at = 0;
    for (let channel = 0; channel < 3; channel++) {
      for (const y of lines) for (const x of columns) tile[at++] = planes[(channel * height + y) * width + x];
    }
    return tile;
  };
  const result = new Float32Array(planes.length);
  const whole = planTiles(height, width, { ...network, whole: Infinity });
  await streamTiles(cut, whole, run, () => {}, (first, count, made, covered, plane) => {
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < count; y++) {
        const from = channel * plane + y * covered;
        result.set(made.subarray(from, from + width), (channel * height + first + y) * width);
      }
    }
  });
  return result;
}

// Gain and offset by place that lead from what gives detail to what is wanted, of one channel.
function workedOut({ width, height, planes }, wanted, channel, exactly) {
  const part = (values) => Float64Array.from(values.subarray(channel * width * height, (channel + 1) * width * height));
  const [detail, aims] = [part(planes), part(wanted)];
  const means = (values) => boxed(values, width, height);
  const [mean, aim] = [means(detail), means(aims)];
  const squares = means(detail.map((value) => value * value));
  const products = means(detail.map((value, at) => value * aims[at]));
  const flat = exactly ? FLAT_OF_TILES : FLAT;
  const gain = mean.map((value, at) => {
    const variance = Math.max(squares[at] - value * value, 0);
    const steep = (products[at] - value * aim[at] + flat) / (variance + flat);
    return Math.min(Math.max(steep, 0), STEEPEST);
  });
  const smooth = means(gain);
  const offset = exactly ? aims.map((value, at) => value - smooth[at] * detail[at]) : means(aim.map((value, at) => value - gain[at] * mean[at]));
  return { gain: smooth, offset };
}

// Means over neighbourhoods, which end where the picture does.
export function boxed(values, width, height) {
  const once = (source, count, length, step, apart) => {
    const result = new Float64Array(source.length);
    const sums = new Float64Array(length + 1);
    for (let row = 0; row < count; row++) {
      for (let at = 0; at < length; at++) sums[at + 1] = sums[at] + source[row * apart + at * step];
      for (let at = 0; at < length; at++) {
        const [low, high] = [Math.max(at - REACH, 0), Math.min(at + REACH + 1, length)];
        result[row * apart + at * step] = (sums[high] - sums[low]) / (high - low);
      }
    }
    return result;
  };
  return once(once(values, width, height, width, 1), height, width, 1, width);
}

// Between which two reduced pixels each pixel lies, and how far from the first, 0 to 1.
function between(length, factor, count) {
  const first = new Int32Array(length);
  const share = new Float32Array(length);
  for (let index = 0; index < length; index++) {
    const at = Math.min(Math.max((index + 0.5) / factor - 0.5, 0), count - 1);
    first[index] = Math.min(Math.floor(at), Math.max(count - 2, 0));
    share[index] = at - first[index];
  }
  return { first, share, last: count - 1 };
}

function interpolated(values, width, down, y, across, x) {
  const top = down.first[y] * width;
  const bottom = Math.min(down.first[y] + 1, down.last) * width;
  const left = across.first[x];
  const right = Math.min(left + 1, across.last);
  const [v, u] = [down.share[y], across.share[x]];
  const near = values[top + left] * (1 - v) + values[bottom + left] * v;
  const far = values[top + right] * (1 - v) + values[bottom + right] * v;
  return near * (1 - u) + far * u;
}
