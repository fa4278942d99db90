// Small things for the page: elements, times, sizes, what is read aloud.

export const $ = (id) => document.getElementById(id);

export function h(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (value !== false && value != null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function timeText(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export const percent = (share) => `${Math.floor(100 * share + 1e-9)} %`;

export function say(text) {
  $("said").textContent = text;
}

export function later(seconds, act) {
  let waiting = 0;
  return (...given) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => act(...given), 1000 * seconds);
  };
}

// A slider from 0 to 1 with its label and value.
export function slide(label, value, onInput) {
  const shown = h("output", {}, percent(value));
  const id = `slide-${label.replace(/[^a-z0-9]/gi, "-")}-${Math.random().toString(36).slice(2, 8)}`;
  const input = h("input", { id, type: "range", min: 0, max: 1, step: 0.05, value });
  input.addEventListener("input", () => {
    shown.textContent = percent(Number(input.value));
    onInput(Number(input.value));
  });
  const row = h("div", { class: "slide" }, h("label", { for: id }, label), input, shown);
  row.set = (next) => {
    input.value = next;
    shown.textContent = percent(next);
  };
  return row;
}

export function pictureName(file) {
  return file.name || "picture";
}

// All files of a drop, folders walked.
export async function filesOfDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      found.push(await new Promise((done, failed) => entry.file(done, failed)));
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const part = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!part.length) break;
      for (const one of part) await walk(one);
    }
  };
  for (const entry of entries) await walk(entry);
  return found;
}

const PICTURES = /\.(jpe?g|jpe|jfif|png|tiff?|webp|avif|hei[cf]|hif|bmp|dib|p[nbgp]m)$/i;

// Of a folder, the pictures alone; what somebody names is always tried.
export const picturesOf = (files) => [...files].filter((file) => PICTURES.test(file.name) && !file.name.startsWith("."));
