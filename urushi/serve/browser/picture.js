// Pictures in a browser: opened upright as 8-bit sRGB, and written as PNG with the camera's data.

const asText = (bytes, start, length) => String.fromCharCode(...bytes.subarray(start, start + length));

// The pixels of a file, upright, RGBA; what cannot be read is told in a sentence.
export async function opened(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(
      `${file.name} cannot be read by this browser: give it a JPEG, PNG, WebP or AVIF, or use  urushi restore`,
    );
  }
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  try {
    context.drawImage(bitmap, 0, 0);
    return { width, height, pixels: context.getImageData(0, 0, width, height).data };
  } catch {
    throw new Error(
      `${file.name} has ${width} x ${height} pixels, more than this browser holds: use  urushi restore`,
    );
  } finally {
    bitmap.close();
  }
}

/* A PNG file; `exif` is from `exifOf`, or nothing.
 *
 * Not by a canvas: that rounds what is half-transparent, and gives opaque pictures a transparency. */
export async function asPng({ width, height, pixels, exif }) {
  const channels = isOpaque(pixels) ? 3 : 4;
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, channels === 3 ? 2 : 6], 8);
  const rows = new Blob(filtered(pixels, width, height, channels));
  const packed = new Response(rows.stream().pipeThrough(new CompressionStream("deflate")));
  const chunks = [chunk("IHDR", header), chunk("sRGB", new Uint8Array(1))];
  if (exif) chunks.push(chunk("eXIf", exif));
  chunks.push(chunk("IDAT", new Uint8Array(await packed.arrayBuffer())), chunk("IEND", new Uint8Array(0)));
  return new Blob([SIGNATURE, ...chunks], { type: "image/png" });
}

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const PAETH = 4;
const ROWS_AT_ONCE = 256;

// Rows as PNG packs them: of each sample what a guess from its neighbours leaves.
function filtered(pixels, width, height, channels) {
  const parts = [];
  const step = 1 + channels * width;
  for (let top = 0; top < height; top += ROWS_AT_ONCE) {
    const count = Math.min(ROWS_AT_ONCE, height - top);
    const part = new Uint8Array(count * step);
    for (let y = top, to = 0; y < top + count; y++) {
      part[to++] = PAETH;
      for (let x = 0, at = 4 * y * width; x < width; x++, at += 4) {
        for (let channel = at; channel < at + channels; channel++) {
          const left = x ? pixels[channel - 4] : 0;
          const above = y ? pixels[channel - 4 * width] : 0;
          const corner = x && y ? pixels[channel - 4 * width - 4] : 0;
          part[to++] = pixels[channel] - nearest(left, above, corner);
        }
      }
    }
    parts.push(part);
  }
  return parts;
}

// Of three neighbours the one nearest to left + above - corner.
function nearest(left, above, corner) {
  const [toLeft, toAbove] = [Math.abs(above - corner), Math.abs(left - corner)];
  const toCorner = Math.abs(left + above - 2 * corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}

function isOpaque(pixels) {
  for (let at = 3; at < pixels.length; at += 4) if (pixels[at] !== 255) return false;
  return true;
}

function chunk(name, content) {
  const made = new Uint8Array(12 + content.length);
  const view = new DataView(made.buffer);
  view.setUint32(0, content.length);
  made.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  made.set(content, 8);
  view.setUint32(8 + content.length, crc(made.subarray(4, 8 + content.length)));
  return made;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  return value;
});

// CRC-32, as PNG has it.
function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = (value >>> 8) ^ TABLE[(value ^ byte) & 255];
  return (value ^ 0xffffffff) >>> 0;
}

/* The camera's data of a file (JPEG, PNG or WebP) as it is true of the picture that is written:
 * upright, in sRGB, of this size, and without the small picture of what it was. */
export function exifOf(bytes, width, height) {
  try {
    const found = foundExif(bytes);
    return found && corrected(found.slice(), width, height);
  } catch (error) {
    if (error instanceof RangeError) return null; // damaged: it reaches beyond its end
    throw error;
  }
}

function foundExif(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint16(0) === 0xffd8) {
    for (let at = 2; at + 4 < bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda; ) {
      const length = view.getUint16(at + 2);
      if (bytes[at + 1] === 0xe1 && asText(bytes, at + 4, 6) === "Exif\0\0") return bytes.subarray(at + 10, at + 2 + length);
      at += 2 + length;
    }
  } else if (asText(bytes, 1, 3) === "PNG") {
    for (let at = 8; at + 8 < bytes.length; at += 12 + view.getUint32(at)) {
      if (asText(bytes, at + 4, 4) === "eXIf") return bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    }
  } else if (asText(bytes, 0, 4) === "RIFF" && asText(bytes, 8, 4) === "WEBP") {
    for (let at = 12; at + 8 < bytes.length; ) {
      const length = view.getUint32(at + 4, true);
      const start = at + 8 + (asText(bytes, at + 8, 6) === "Exif\0\0" ? 6 : 0);
      if (asText(bytes, at, 4) === "EXIF") return bytes.subarray(start, at + 8 + length);
      at += 8 + length + (length & 1);
    }
  }
  return null;
}

function corrected(exif, width, height) {
  const view = new DataView(exif.buffer);
  const order = asText(exif, 0, 2);
  if (order !== "II" && order !== "MM") return null;
  const little = order === "II";
  const set = (at, value) =>
    view.getUint16(at + 2, little) === 3 ? view.setUint16(at + 8, value, little) : view.setUint32(at + 8, value, little);
  const directory = (start, deeper) => {
    const count = view.getUint16(start, little);
    for (let at = start + 2; at < start + 2 + 12 * count; at += 12) {
      const tag = view.getUint16(at, little);
      if (tag === 0x0112 || tag === 0xa001) set(at, 1); // orientation, colour space
      else if (tag === 0xa002 || tag === 0x0100) set(at, width);
      else if (tag === 0xa003 || tag === 0x0101) set(at, height);
      else if (tag === 0x8769 && deeper) directory(view.getUint32(at + 8, little), false);
    }
    return start + 2 + 12 * count;
  };
  view.setUint32(directory(view.getUint32(4, little), true), 0, little); // what follows is the small picture
  return exif;
}
