// The grid that a network's upsampling leaves where a picture is brightened, taken out.
// The method, its numbers and why they are so are those of urushi/inference/grid_pattern.py.

const REACH = 4;
const MOST = 12 / 255;
const EVEN = (1 / 255) ** 2;
const SURE = 4;
const FAINT = (0.25 / 255) ** 2;
const [DIM, BRIGHT] = [0.5, 0.8];

/* A restored tile without the pattern that its upsampling left: three planes of `height` rows and
 * `width` columns, like the tile; `cell` is the side of what is repeated, in pixels. */
export function withoutGrid(tile, restored, height, width, cell) {
  const [rows, columns] = [Math.floor(height / cell), Math.floor(width / cell)];
  if (cell < 4 || cell > 32 || Math.min(rows, columns) < 3) return restored;
  const result = Float32Array.from(restored);
  const size = { rows, columns, cell };
  for (let start = 0; start < result.length; start += height * width) {
    const before = cut(tile, start, width, size);
    const after = cut(restored, start, width, size);
    const pattern = patternOf(before, after, size);
    for (let y = 0; y < rows * cell; y++) {
      for (let x = 0; x < columns * cell; x++) result[start + y * width + x] -= pattern[y * columns * cell + x];
    }
  }
  return result;
}

// What is to be taken out of one channel: of dark ground, and of bright ground on its own.
function patternOf(before, after, size) {
  const change = fineOf(after.map((value, at) => value - before[at]), size);
  const meanOf = (values, index) => {
    let sum = 0;
    eachOf(index, size, (at) => (sum += values[at]));
    return sum / size.cell ** 2;
  };
  const ofCells = (made) => Float64Array.from({ length: size.rows * size.columns }, (_, index) => made(index));
  const squares = change.map((value) => value ** 2);
  const weights = ofCells((index) => EVEN / (meanOf(squares, index) + EVEN));
  const bright = ofCells((index) => Math.min(Math.max((meanOf(after, index) - DIM) / (BRIGHT - DIM), 0), 1));
  const waves = [wavesOf(change, size, false), wavesOf(fineOf(before, size), size, false)];
  const pattern = new Float64Array(change.length);
  for (const shares of [bright.map((share) => 1 - share), bright]) {
    if (!shares.some((share) => share > 0)) continue;
    const found = repeated(...waves, weights.map((weight, index) => weight * shares[index]), size);
    shares.forEach((share, index) => eachOf(index, size, (at) => (pattern[at] += share * found[at])));
  }
  return wavesOf(pattern, size, true);
}

// The waves that the cells around share, less what is chance and what the picture repeats.
function repeated(changed, before, weights, size) {
  const { rows, columns, cell } = size;
  const totals = around(weights, rows, columns, 1).map((total) => Math.max(total, 1e-9));
  const squares = around(weights.map((value) => value ** 2), rows, columns, 1);
  const weighted = (values) => {
    const result = new Float64Array(values.length);
    weights.forEach((weight, index) => eachOf(index, size, (at) => (result[at] = weight * values[at])));
    return around(result, rows, columns, cell);
  };
  const pattern = weighted(changed);
  const powers = weighted(changed.map((value) => value ** 2));
  const own = weighted(before);
  totals.forEach((total, index) => {
    let [both, whole, first] = [0, 0, true];
    const alone = squares[index] / total ** 2;
    eachOf(index, size, (at) => {
      const power = powers[at] / total;
      powers[at] = SURE * alone * Math.max(power - (pattern[at] / total) ** 2, alone * power);
      // The mean of a cell is none of it.
      pattern[at] = first ? 0 : pattern[at] / total;
      own[at] = first ? 0 : own[at] / total;
      first = false;
      both += pattern[at] * own[at];
      whole += own[at] ** 2;
    });
    const share = both / (whole + FAINT * cell ** 2);
    eachOf(index, size, (at) => {
      const rest = pattern[at] - share * own[at];
      pattern[at] = (rest * Math.max(rest ** 2 - powers[at], 0)) / Math.max(rest ** 2, 1e-12);
    });
  });
  return pattern;
}

// Visits the places of a cell, row by row.
function eachOf(index, { columns, cell }, visit) {
  const from = Math.floor(index / columns) * cell * cell * columns + (index % columns) * cell;
  for (let y = 0; y < cell; y++) for (let x = 0; x < cell; x++) visit(from + y * columns * cell + x);
}

// What is finer than a cell.
function fineOf(values, { rows, columns, cell }) {
  const [height, width] = [rows * cell, columns * cell];
  const down = means(values, height, width, width, 1, cell);
  const smooth = means(down, width, height, 1, width, cell);
  return values.map((value, at) => Math.min(Math.max(value - smooth[at], -MOST), MOST));
}

// Pixels of all cells as the waves that a cell repeats, the even one first, or `back` again.
function wavesOf(values, size, back) {
  const { rows, columns, cell } = size;
  const waves = Array.from({ length: cell }, (_, n) => {
    const row = Array.from({ length: cell }, (_, x) => Math.cos((Math.ceil(n / 2) * 2 * Math.PI * x) / cell - (n && n % 2 === 0 ? Math.PI / 2 : 0)));
    const length = Math.hypot(...row);
    return row.map((value) => value / length);
  });
  const matrix = (n, x) => (back ? waves[x][n] : waves[n][x]);
  const flat = Float64Array.from({ length: cell ** 2 }, (_, at) => matrix(Math.floor(at / cell), at % cell));
  const line = new Float64Array(cell);
  const result = Float64Array.from(values);
  const along = (from, step) => {
    for (let n = 0; n < cell; n++) {
      line[n] = 0;
      for (let x = 0; x < cell; x++) line[n] += flat[n * cell + x] * result[from + x * step];
    }
    for (let n = 0; n < cell; n++) result[from + n * step] = line[n];
  };
  const width = columns * cell;
  for (let y = 0; y < rows * cell; y++) for (let column = 0; column < columns; column++) along(y * width + column * cell, 1);
  for (let row = 0; row < rows; row++) for (let x = 0; x < width; x++) along(row * cell * width + x, width);
  return result;
}

// The whole cells of a plane.
function cut(planes, start, width, { rows, columns, cell }) {
  const across = columns * cell;
  const result = new Float64Array(rows * cell * across);
  for (let y = 0; y < rows * cell; y++) {
    const from = start + y * width;
    result.set(planes.subarray(from, from + across), y * across);
  }
  return result;
}

/* Means over `count` neighbours along lines of `length` values that lie `step` apart, mirrored at
 * their ends; there are `lines` lines, which begin `apart` from one another. */
function means(values, length, lines, step, apart, count) {
  const result = new Float64Array(values.length);
  const sums = new Float64Array(length + count);
  const first = Math.floor(count / 2);
  for (let line = 0; line < lines; line++) {
    for (let at = 0; at < length + count - 1; at++) {
      const inside = at - first < 0 ? first - at - 1 : at - first < length ? at - first : 2 * length - 1 - (at - first);
      sums[at + 1] = sums[at] + values[line * apart + inside * step];
    }
    for (let at = 0; at < length; at++) result[line * apart + at * step] = (sums[at + count] - sums[at]) / count;
  }
  return result;
}

// Sums over the cells around, as far as there are any; a cell has `cell` x `cell` values.
function around(values, rows, columns, cell) {
  const width = columns * cell;
  const down = new Float64Array(values.length);
  const result = new Float64Array(values.length);
  const step = cell * width;
  for (let at = 0; at < step; at++) {
    for (let row = 0; row < rows; row++) {
      let sum = 0;
      for (let near = Math.max(row - REACH, 0); near < Math.min(row + REACH + 1, rows); near++) sum += values[near * step + at];
      down[row * step + at] = sum;
    }
  }
  for (let y = 0; y < rows * cell; y++) {
    for (let x = 0; x < cell; x++) {
      const from = y * width + x;
      for (let column = 0; column < columns; column++) {
        let sum = 0;
        for (let near = Math.max(column - REACH, 0); near < Math.min(column + REACH + 1, columns); near++) sum += down[from + near * cell];
        result[from + column * cell] = sum;
      }
    }
  }
  return result;
}
