// What mends, beside the page, so that the page stays alive: one picture after the other.
//
// It is told {file, network, gpu, most}, and tells {loading}, {opened}, {mended: share}, {done}, or
// {problem, smaller}: `smaller` is a side that tiles may have where memory ran out.

import { finished, withMargin, withoutMargin } from "./finishing.js";
import { asPng, exifOf, opened } from "./picture.js";
import { mendInLight, reduction } from "./light.js";
import { mendTiles, planTiles } from "./tiles.js";

const RUNTIMES = {
  wasm: { module: "ort.wasm.min.mjs", binary: "ort-wasm-simd-threaded" },
  webgpu: { module: "ort.webgpu.min.mjs", binary: "ort-wasm-simd-threaded.asyncify" },
};
const MOST_THREADS = 8;
const SMALLEST = 64;
const here = (name) => new URL(name, import.meta.url).href;

let ready = null; // {key, session, ort}

onmessage = async ({ data }) => {
  let plan = null;
  try {
    const picture = await opened(data.file);
    postMessage({ opened: { width: picture.width, height: picture.height } });
    const { session, ort } = await prepared(data.network, data.gpu);
    const { width, height } = picture;
    const network = limits(data.network, data.most, width, height);
    plan = planTiles(height, width, network);
    const began = performance.now();
    const tiles = network.factor > 1 && network.leavesDetail ? 1 : plan.count;
    postMessage({ mended: 0, tiles });
    const onTile = (finished) => postMessage({ mended: finished / plan.count });
    const run = runner(session, ort, data.network);
    const pixels = network.factor > 1
      ? await mendInLight(picture, network, plan, run, onTile)
      : await mendTiles(picture.pixels, width, plan, run, onTile);
    const exif = exifOf(new Uint8Array(await data.file.arrayBuffer()), width, height);
    const blob = await asPng({ width, height, pixels, exif });
    postMessage({ done: { blob, seconds: (performance.now() - began) / 1000, tiles, kept: !!exif } });
  } catch (error) {
    postMessage({ problem: sentence(error), smaller: error?.unusable ? 0 : smaller(plan, data.network), running: plan !== null });
  }
};

// The tiles of the network, or smaller ones; and by how much the small version is smaller where
// light hangs on the whole, as `Restorer._reduction`.
function limits(network, most, width, height) {
  const fits = most ? most ** 2 : Infinity;
  const factor = network.wide ? reduction(width, height, fits) : 1;
  const whole = network.wide && factor === 1 ? Infinity : most ? 0 : network.whole;
  return { ...network, fits, factor, whole, tile: most ? Math.min(network.tile, most) : network.tile };
}

function smaller(plan, { tile, multiple }) {
  if (plan === null) return 0;
  const longest = Math.max(plan.rows.size, plan.columns.size);
  const next = longest > tile ? tile : Math.floor(longest / 2 / multiple) * multiple;
  return next >= SMALLEST ? next : 0;
}

async function prepared(network, gpu) {
  const key = `${network.file} ${gpu}`;
  if (ready?.key === key) return ready;
  const runtime = RUNTIMES[gpu ? "webgpu" : "wasm"];
  const ort = await import(`./onnxruntime/${runtime.module}`);
  const started = ort.env.wasm.wasmBinary !== undefined;
  const names = [network.file, ...(started ? [] : [`onnxruntime/${runtime.binary}.wasm.gz`])];
  const [graph, binary] = await fetched(names);
  if (!started) {
    Object.assign(ort.env.wasm, {
      wasmBinary: await unpacked(binary),
      wasmPaths: { mjs: here(`onnxruntime/${runtime.binary}.mjs`) },
      numThreads: self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1,
    });
    ort.env.logLevel = "error";
  }
  await ready?.session.release();
  ready = null;
  const session = await ort.InferenceSession.create(await unpacked(graph), { executionProviders: [gpu ? "webgpu" : "wasm"] });
  return (ready = { key, session, ort });
}

function runner(session, ort, network) {
  return async (tile, rows, columns) => {
    const { margin } = network;
    const given = withMargin(tile, rows, columns, margin);
    const { restored } = await session.run({ image: new ort.Tensor("float32", given, [1, 3, rows + 2 * margin, columns + 2 * margin]) });
    const values = withoutMargin(await restored.getData(), rows, columns, margin);
    restored.dispose();
    return finished(tile, values, rows, columns, network);
  };
}

// Files of this folder, with their progress told together.
async function fetched(names) {
  const answers = await Promise.all(names.map((name) => fetch(here(name))));
  for (const [index, answer] of answers.entries()) {
    if (!answer.ok) throw new Error(`${names[index]} cannot be fetched (${answer.status}): is the folder complete?`);
  }
  const total = answers.reduce((sum, answer) => sum + Number(answer.headers.get("content-length")), 0);
  let come = 0;
  const tell = (length) => {
    come += length;
    postMessage({ loading: total ? Math.min(come / total, 1) : 0 });
  };
  return Promise.all(answers.map((answer) => read(answer, tell)));
}

async function read(answer, tell) {
  const reader = answer.body.getReader();
  const parts = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    tell(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// Some servers unpack such files themselves.
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const sentence = (error) => (error?.message ?? String(error)).split("\n")[0].slice(0, 300);
