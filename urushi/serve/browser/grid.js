// The grid that a network's upsampling leaves where a picture is brightened, taken out.
// The method, its numbers and why they are so are those of urushi/inference/grid_pattern.py.

const REACH = 4;
const MOST = 6 / 255;
const SURE = 4;
const FAINT = (0.25 / 255) ** 2;

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
    const { mean: pattern, chance } = repeated(after.map((value, at) => value - before[at]), size);
    const { mean: own } = repeated(before, size);
    const across = columns * cell;
    const each = (row, column, visit) => {
      for (let y = 0; y < cell; y++) {
        const from = (row * cell + y) * across + column * cell;
        for (let at = from; at < from + cell; at++) visit(at, start + (row * cell + y) * width + column * cell + at - from);
      }
    };
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        let [both, alone, power] = [0, 0, 0];
        each(row, column, (at) => {
          both += pattern[at] * own[at];
          alone += own[at] ** 2;
        });
        const share = both / (alone + FAINT * cell ** 2);
        each(row, column, (at) => {
          pattern[at] -= share * own[at];
          power += pattern[at] ** 2 / cell ** 2;
        });
        const part = Math.max(power - SURE * chance[row * columns + column], 0) / Math.max(power, 1e-12);
        if (part) each(row, column, (at, to) => (result[to] -= part * pattern[at]));
      }
    }
  }
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

// What every cell repeats of those around, and how much of its power is chance.
function repeated(values, { rows, columns, cell }) {
  const [height, width] = [rows * cell, columns * cell];
  const down = means(values, height, width, width, 1, cell);
  const smooth = means(down, width, height, 1, width, cell);
  const fine = values.map((value, at) => Math.min(Math.max(value - smooth[at], -MOST), MOST));
  const mean = new Float64Array(fine.length);
  const chance = new Float64Array(rows * columns);
  const squares = new Float64Array(rows * columns);
  fine.forEach((value, at) => {
    squares[Math.floor(at / width / cell) * columns + Math.floor((at % width) / cell)] += value ** 2 / cell ** 2;
  });
  const powers = around(squares, rows, columns, 1);
  const sums = around(fine, rows, columns, cell);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const count = reached(row, rows) * reached(column, columns);
      let [total, power] = [0, 0];
      const each = (visit) => {
        for (let y = row * cell; y < (row + 1) * cell; y++)
          for (let x = column * cell; x < (column + 1) * cell; x++) visit(y * width + x);
      };
      each((at) => {
        mean[at] = sums[at] / count;
        total += mean[at] / cell ** 2;
        power += mean[at] ** 2 / cell ** 2;
      });
      each((at) => (mean[at] -= total));
      chance[row * columns + column] = Math.max(powers[row * columns + column] / count - power, 0) / count;
    }
  }
  return { mean, chance };
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

const reached = (at, length) => Math.min(at + REACH + 1, length) - Math.max(at - REACH, 0);

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
