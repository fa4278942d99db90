// A picture in balanced overlapping tiles, blended without a seam: the plan, the weights and the
// filling up are those of urushi/inference/tiling.py, which says why they are as they are.

const JPEG_GRID = 16;

const upTo = (length, multiple) => Math.ceil(length / multiple) * multiple;

// The tiles along one side of a picture, as `_plan_side` there.
export function planSide(length, tile, overlap, multiple) {
  const limit = Math.floor(tile / multiple) * multiple;
  if (length <= limit) return { length, size: upTo(length, multiple), starts: [0], guard: 0 };
  const count = Math.ceil((length - overlap) / (limit - overlap));
  const size = upTo(Math.ceil((length + (count - 1) * overlap) / count), multiple);
  const room = length - size;
  const starts = Array.from({ length: count }, (_, index) => Math.floor((index * room) / (count - 1)));
  for (let index = 1; index < count - 1; index++) {
    const aligned = Math.floor(starts[index] / JPEG_GRID) * JPEG_GRID;
    if (starts[index + 1] - aligned <= size - overlap) starts[index] = aligned;
  }
  return { length, size, starts, guard: Math.floor(overlap / 8) };
}

// How a picture is cut, as `Restorer.plan`: whole up to `whole` pixels, else in tiles of `tile`.
export function planTiles(height, width, { tile, overlap, multiple, whole }) {
  const sides = [upTo(height, multiple), upTo(width, multiple)];
  const longest = sides[0] * sides[1] <= whole ? Math.max(tile, ...sides) : tile;
  const shared = Math.min(overlap, Math.floor(longest / 2));
  const [rows, columns] = [height, width].map((length) => planSide(length, longest, shared, multiple));
  return { rows, columns, count: rows.starts.length * columns.starts.length };
}

function rise(shared, guard) {
  const width = Math.max(shared - 2 * guard, 1);
  return Float64Array.from({ length: shared }, (_, index) => {
    const position = Math.min(Math.max((index - guard + 0.5) / width, 0), 1);
    return Math.sin(0.5 * Math.PI * position) ** 2;
  });
}

// What each tile counts at each of its pixels, as `Side.weights`.
export function weightsOf({ size, starts, guard }) {
  const raw = starts.map(() => new Float64Array(size).fill(1));
  for (let index = 0; index + 1 < starts.length; index++) {
    const shared = starts[index] + size - starts[index + 1];
    const rising = rise(shared, guard);
    for (let place = 0; place < shared; place++) {
      raw[index][size - shared + place] *= 1 - rising[place];
      raw[index + 1][place] *= rising[place];
    }
  }
  const total = new Float64Array(starts.at(-1) + size);
  raw.forEach((weight, index) => weight.forEach((value, place) => (total[starts[index] + place] += value)));
  return raw.map((weight, index) => Float32Array.from(weight, (value, place) => value / total[starts[index] + place]));
}

// Where a tile reads a side: beyond the picture's end mirrored without the last pixel.
function places(start, size, length) {
  const period = Math.max(2 * (length - 1), 1);
  return Int32Array.from({ length: size }, (_, index) => {
    const inside = (start + index) % period;
    return start + index < length ? start + index : Math.min(inside, period - inside);
  });
}

function isFlat(values, area) {
  for (let channel = 0; channel < 3; channel++) {
    const first = values[channel * area];
    for (let at = 1; at < area; at++) if (values[channel * area + at] !== first) return false;
  }
  return true;
}

// What is wrong with a result, as `problem_of` says it; empty if nothing is.
function problemOf(tile, restored, area) {
  for (let at = 0; at < restored.length; at++) if (!Number.isFinite(restored[at])) return "NaN or infinite values";
  return isFlat(restored, area) && !isFlat(tile, area) ? "a single flat colour" : "";
}

/* Puts a picture through a network tile by tile.
 *
 * cut: (lines, columns) of the picture -> 3 planes of them, float32, 0 to 1; plan: from planTiles;
 * run: (planes, rows, columns) -> a promise of the same, restored; onTile: told the number of
 * finished tiles; onRows: given finished rows, (first, count, planes, width of a plane, its size). */
export async function streamTiles(cut, plan, run, onTile, onRows) {
  const { rows, columns } = plan;
  const across = weightsOf(columns);
  const down = weightsOf(rows);
  const area = rows.size * columns.size;
  const covered = Math.max(columns.length, columns.size);
  const plane = rows.size * covered;
  const blended = new Float32Array(3 * plane);
  let finished = 0;
  for (const [index, top] of rows.starts.entries()) {
    const lines = places(top, rows.size, rows.length);
    for (const [place, left] of columns.starts.entries()) {
      const tile = cut(lines, places(left, columns.size, columns.length));
      const restored = await run(tile, rows.size, columns.size);
      const problem = problemOf(tile, restored, area);
      // Not for want of memory: smaller tiles do not help.
      if (problem) throw Object.assign(new Error(`the network gave ${problem}`), { unusable: true });
      const weight = across[place];
      for (let channel = 0; channel < 3; channel++) {
        for (let y = 0; y < rows.size; y++) {
          const to = channel * plane + y * covered + left;
          const from = channel * area + y * columns.size;
          const heavy = down[index][y];
          for (let x = 0; x < columns.size; x++) blended[to + x] += restored[from + x] * heavy * weight[x];
        }
      }
      onTile(++finished);
    }
    const last = index + 1 === rows.starts.length;
    const ready = (last ? rows.length : rows.starts[index + 1]) - top;
    onRows(top, ready, blended, covered, plane);
    for (let start = 0; start < blended.length; start += plane) {
      blended.copyWithin(start, start + ready * covered, start + plane);
      blended.fill(0, start + (rows.size - ready) * covered, start + plane);
    }
  }
}

const VALUES = Float32Array.from({ length: 256 }, (_, value) => value / 255);

// What cuts tiles out of RGBA, 8 bits.
export const cutterOf = (pixels, width) => (lines, columns) => {
  const area = lines.length * columns.length;
  const tile = new Float32Array(3 * area);
  let at = 0;
  for (const line of lines) {
    for (const column of columns) {
      const from = 4 * (line * width + column);
      tile[at] = VALUES[pixels[from]];
      tile[at + area] = VALUES[pixels[from + 1]];
      tile[at + 2 * area] = VALUES[pixels[from + 2]];
      at++;
    }
  }
  return tile;
};

// Restored RGBA, 8 bits, with the alpha that the picture has.
export async function mendTiles(pixels, width, plan, run, onTile) {
  const result = new Uint8ClampedArray(pixels.length);
  await streamTiles(cutterOf(pixels, width), plan, run, onTile, (first, count, planes, covered, plane) => {
    for (let y = 0; y < count; y++) {
      for (let x = 0, to = 4 * (first + y) * width; x < width; x++, to += 4) {
        // These arrays round to the nearest value, ties to even, and clip.
        for (let channel = 0; channel < 3; channel++) result[to + channel] = 255 * planes[channel * plane + y * covered + x];
        result[to + 3] = pixels[to + 3];
      }
    }
  });
  return result;
}
