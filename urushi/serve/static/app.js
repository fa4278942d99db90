// The page: pictures come in, are looked at and mended, and are shown, changed and taken home.

import { asJson, ask, follow, save, send, told } from "./api.js";
import { Mixer } from "./mixer.js";
import { startTeaching } from "./teach.js";
import { MOST_TRIED, Viewer } from "./viewer.js";
import { $, filesOfDrop, h, later, percent, pictureName, picturesOf, say, slide, timeText } from "./words.js";

const AT_ONCE = 3;
const pictures = [];
let current = null;
let viewer = null;

const settingsOf = () => ({ strength: 1, luma: 1, chroma: 1, adapters: "", format: "", strip: false });

// --- the list ---

function row(picture) {
  const image = h("span", { class: "blank" });
  const name = h("span", { class: "name" }, picture.name);
  const state = h("span", { class: "state" });
  const bar = h("progress", { max: 1, value: 0, "aria-hidden": "true" });
  const button = h("button", { type: "button", onclick: () => choose(picture) }, image, name, state, bar);
  const item = h("li", {}, button);
  picture.row = { item, button, image, state, bar };
  $("list").append(item);
}

function stateText(picture) {
  const { state, job } = picture;
  if (state === "sending") return `sending ${percent(picture.sent)}`;
  if (state === "looking") return "looking";
  if (state === "waiting") return "waits for its turn";
  if (state === "running") {
    const left = job?.seconds_left;
    return `mending ${percent(job?.progress ?? 0)}${left ? `, ${timeText(left)} left` : ""}`;
  }
  if (state === "done") return job.facts.router?.reason ?? mixer.told(job.made);
  if (state === "cancelled") return "cancelled";
  return picture.problem;
}

const BUSY = ["sending", "looking", "waiting", "running"];

function refresh(picture) {
  const { item, state, bar, button } = picture.row;
  const busy = BUSY.includes(picture.state);
  state.textContent = stateText(picture);
  state.title = state.textContent;
  item.className = picture.state;
  bar.hidden = !busy;
  if (picture.state === "waiting" || picture.state === "looking") bar.removeAttribute("value");
  else bar.value = picture.state === "sending" ? picture.sent : picture.job?.progress ?? 0;
  button.setAttribute("aria-current", String(picture === current));
  $("all").disabled = !pictures.some((one) => one.state === "done");
  if (picture === current) showState();
}

function setState(picture, state, more = {}) {
  const before = picture.state;
  Object.assign(picture, { state }, more);
  refresh(picture);
  if (before !== state && ["done", "failed"].includes(state)) say(`${picture.name}: ${stateText(picture)}`);
}

// --- what happens to a picture ---

const waiting = [];
let active = 0;

function add(files) {
  if (!files.length) {
    say("there is no picture among these files");
    return;
  }
  document.body.classList.add("filled");
  $("bench").hidden = false;
  viewer ??= new Viewer(() => tryMix());
  for (const file of files) {
    const picture = { name: pictureName(file), file, state: "sending", sent: 0, settings: settingsOf() };
    pictures.push(picture);
    row(picture);
    waiting.push(picture);
    refresh(picture);
  }
  if (!current) choose(pictures[pictures.length - files.length]);
  say(`${files.length} ${files.length === 1 ? "picture" : "pictures"} added`);
  work();
}

async function work() {
  while (active < AT_ONCE && waiting.length) {
    const picture = waiting.shift();
    if (picture.gone) continue;
    active++;
    begin(picture).finally(() => {
      active--;
      work();
    });
  }
}

async function begin(picture) {
  try {
    const form = new FormData();
    form.append("file", picture.file, picture.file.name);
    picture.kept = await send("/v1/pictures", form, (share) => {
      picture.sent = share;
      refresh(picture);
    });
    picture.file = null;
    if (picture.gone) return void forget(picture);
    setState(picture, "looking");
    if (picture === current) show(picture);
    const seeing = told(`/v1/pictures/${picture.kept.id}/look`).then((look) => {
      picture.look = look;
      if (picture === current) showSeen();
    });
    thumbnail(picture).catch(() => {});
    await seeing;
    await mend(picture);
  } catch (problem) {
    setState(picture, "failed", { problem: problem.message });
  }
}

async function mend(picture) {
  const adapters = picture.settings.adapters;
  const wish = adapters ? { adapters } : {};
  picture.job = await told(`/v1/pictures/${picture.kept.id}/restore`, asJson(wish));
  picture.job.made = adapters;
  setState(picture, "waiting");
  const end = await follow(picture.job, (job) => {
    picture.job = { ...job, made: adapters };
    if (BUSY.includes(job.state)) setState(picture, job.state);
  });
  if (picture.gone) return;
  if (end.state === "done") {
    setState(picture, "done");
    if (picture === current) {
      showSeen();
      draw();
    }
  } else {
    setState(picture, end.state, { problem: end.problem?.detail });
  }
}

async function thumbnail(picture) {
  let level = 0;
  for (let side = Math.max(picture.kept.width, picture.kept.height); side > 256; side = (side + 1) >> 1) level++;
  const blob = await (await ask(`/v1/pictures/${picture.kept.id}/tiles/${level}/0/0`)).blob();
  const image = h("img", { src: URL.createObjectURL(blob), alt: "" });
  picture.row.image.replaceWith(image);
}

async function forget(picture) {
  if (!picture.kept) return;
  for (let tries = 0; tries < 20; tries++) {
    try {
      await ask(`/v1/pictures/${picture.kept.id}`, { method: "DELETE" });
      return;
    } catch (problem) {
      if (problem.status !== 409) return;
      await new Promise((done) => setTimeout(done, 500));
    }
  }
}

// --- what is shown ---

function choose(picture) {
  const before = current;
  current = picture;
  if (before && before !== picture) refresh(before);
  $("view-title").textContent = picture.name;
  strengths.forEach(([key, row]) => row.set(picture.settings[key]));
  $("format").value = picture.settings.format;
  $("strip").checked = picture.settings.strip;
  mixer.set(picture.settings.adapters);
  $("save-said").textContent = "";
  refresh(picture);
  showSeen();
  if (picture.kept) show(picture);
  else {
    $("view-facts").textContent = "";
    viewer.before.close();
    viewer.after.close();
  }
}

function show(picture) {
  const { width, height, format, bits, profile, pages } = picture.kept;
  const facts = [`${width} × ${height}`, format.toUpperCase(), `${bits} bits`];
  if (profile) facts.push("its own colour profile, kept");
  if (pages > 1) facts.push(`${pages} pages`);
  $("view-facts").textContent = facts.join(" · ");
  viewer.show(picture.kept, picture.state === "done" ? picture.job : null, blend(picture));
}

const blend = ({ settings: { strength, luma, chroma } }) => `?strength=${strength}&luma=${luma}&chroma=${chroma}`;

function showState() {
  const { state } = current;
  const busy = BUSY.includes(state);
  $("busy").hidden = !busy;
  if (busy) {
    $("busy-text").textContent = stateText(current);
    if (["running", "sending"].includes(state)) $("busy-bar").value = current.row.bar.value;
    else $("busy-bar").removeAttribute("value");
    $("cancel").hidden = state === "sending";
  }
  $("problem").hidden = state !== "failed";
  $("problem").textContent = state === "failed" ? current.problem : "";
  $("download").disabled = state !== "done";
  const notes = [...new Set([...(current.look?.notes ?? []), ...(state === "done" ? current.job.notes : [])])];
  $("notes").replaceChildren(...notes.map((note) => h("li", {}, note)));
}

function showSeen() {
  const look = current.look;
  $("reason").textContent = current.job?.state === "done" && current.job.made
    ? mixer.told(current.job.made)
    : look?.reason ?? "";
  const chances = Object.entries(look?.probabilities ?? {}).sort((one, other) => other[1] - one[1]);
  $("bars").replaceChildren(...chances.map(([name, chance]) => {
    const fill = h("i");
    fill.style.width = `${100 * chance}%`;
    const taken = name in (look.route ?? {});
    return h("li", { class: taken ? "taken" : "" },
      h("span", {}, name), h("span", { class: "bar", "aria-hidden": "true" }, fill), h("output", {}, percent(chance)));
  }));
}

function draw() {
  if (current?.state === "done" && viewer.picture === current.kept) return viewer.redraw(current.job, blend(current));
  return undefined;
}

const drawSoon = later(0.12, draw);

// --- settings ---

const strengths = [["strength", "Overall"], ["luma", "Lightness"], ["chroma", "Colour"]].map(([key, label]) => {
  const made = slide(label, 1, (value) => {
    if (!current) return;
    current.settings[key] = value;
    drawSoon();
  });
  $("strengths").append(made);
  return [key, made];
});

const mixer = new Mixer($("mix"), (adapters) => {
  if (!current) return;
  current.settings.adapters = adapters;
  $("apply").disabled = !current.kept || adapters === (current.job?.made ?? "");
  tryMix();
});

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const said = (box, finer) => finer
  ? "A first, small version of what you see; a finer one follows."
  : `What you see is ${box.level ? "a small version, mended so: zoom in to see it as it will be" : "mended so"}.`;
// Pixels that are mended within a second here, by how long the last ones took.
let promptPixels = 100000;
let tries = 0;

// The visible part alone, by another mix than the result was made by.
const tryMix = later(0.2, async () => {
  const picture = current;
  const adapters = picture?.settings.adapters ?? "";
  if (!picture?.kept || adapters === (picture.job?.made ?? "") || !viewer.before.world.getItemCount()) return;
  if (!adapters) return void draw();
  const number = ++tries;
  const overtaken = () => number !== tries || picture !== current || picture.settings.adapters !== adapters;
  $("mix-said").textContent = "trying it on what you see …";
  const parts = viewer.visibleParts(promptPixels);
  try {
    for (const box of parts) {
      // Whoever still moves the slider waits for no finer version.
      if (box !== parts[0]) await pause(0.6);
      if (overtaken()) return;
      const begin = performance.now();
      const query = new URLSearchParams({ ...box, adapters });
      const blob = await (await ask(`/v1/pictures/${picture.kept.id}/try?${query}`)).blob();
      const seconds = (performance.now() - begin) / 1000;
      promptPixels = Math.min(MOST_TRIED, Math.max(15000, (0.5 * box.width * box.height) / seconds));
      if (overtaken()) return;
      viewer.lay(blob, box);
      $("mix-said").textContent = said(box, box !== parts.at(-1));
    }
  } catch (problem) {
    $("mix-said").textContent = problem.message;
  }
});

$("apply").addEventListener("click", async () => {
  const picture = current;
  tries++;
  $("mix-said").textContent = "";
  $("apply").disabled = true;
  if (BUSY.includes(picture.state)) await ask(picture.job.links.self, { method: "DELETE" }).catch(() => {});
  mend(picture).catch((problem) => setState(picture, "failed", { problem: problem.message }));
});
$("auto").addEventListener("click", () => {
  mixer.set("");
  mixer.tell();
  if (current?.job?.made) $("apply").click();
});
$("load-adapter").addEventListener("click", () => $("adapter-file").click());
$("adapter-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  const form = new FormData();
  form.append("file", file, file.name);
  try {
    const adapter = await send("/v1/adapters", form);
    mixer.add(adapter, 1);
    $("mix-said").textContent = `${adapter.name} is loaded`;
  } catch (problem) {
    $("mix-said").textContent = problem.message;
  }
});
$("format").addEventListener("change", (event) => current && (current.settings.format = event.target.value));
$("strip").addEventListener("change", (event) => current && (current.settings.strip = event.target.checked));
$("same").addEventListener("click", () => {
  const others = pictures.filter((one) => one !== current);
  for (const one of others) {
    const anew = one.settings.adapters !== current.settings.adapters;
    one.settings = { ...current.settings };
    if (anew && one.kept && one.state === "done") mend(one).catch((problem) => setState(one, "failed", { problem: problem.message }));
  }
  $("save-said").textContent = `${others.length} other ${others.length === 1 ? "picture has" : "pictures have"} these settings now`;
});

// --- taking home ---

// The job whose result is what the settings say; the one that is shown where they say no more.
async function finalJob(picture, onNews) {
  const { strength, luma, chroma, adapters, format, strip } = picture.settings;
  const plain = strength === 1 && luma === 1 && chroma === 1 && !format && !strip;
  if (plain && adapters === (picture.job.made ?? "")) return picture.job;
  const wish = { strength, luma, chroma, strip_metadata: strip };
  if (adapters) wish.adapters = adapters;
  if (format) wish.format = format;
  const key = JSON.stringify(wish);
  if (picture.final?.key !== key) {
    const job = await told(`/v1/pictures/${picture.kept.id}/restore`, asJson(wish));
    const end = await follow(job, onNews);
    if (end.state !== "done") throw new Error(end.problem?.detail ?? "it was cancelled");
    picture.final = { key, job: end };
  }
  return picture.final.job;
}

const madeText = (name) => (news) => {
  $("save-said").textContent = `making ${name}: ${news.state === "waiting" ? "waits" : percent(news.progress)}`;
};

$("download").addEventListener("click", async () => {
  const picture = current;
  try {
    const job = await finalJob(picture, madeText(picture.name));
    await save(job.links.result, job.name);
    $("save-said").textContent = `${job.name} is saved`;
  } catch (problem) {
    $("save-said").textContent = problem.message;
  }
});

$("all").addEventListener("click", async () => {
  const done = pictures.filter((one) => one.state === "done");
  try {
    const jobs = [];
    for (const picture of done) jobs.push(await finalJob(picture, madeText(picture.name)));
    const query = new URLSearchParams(jobs.map((job) => ["job", job.id]));
    await save(`/v1/archive?${query}`, "urushi.zip");
    const saved = done.length === 1 ? "1 picture is saved" : `${done.length} pictures are saved`;
    say(saved);
    $("save-said").textContent = `${saved} in urushi.zip`;
  } catch (problem) {
    $("save-said").textContent = problem.message;
  }
});

$("cancel").addEventListener("click", () => {
  if (current?.job) ask(current.job.links.self, { method: "DELETE" }).catch(() => {});
});

$("clear").addEventListener("click", () => {
  for (const picture of pictures.splice(0)) {
    picture.gone = true;
    forget(picture);
  }
  waiting.length = 0;
  current = null;
  $("list").replaceChildren();
  $("bench").hidden = true;
  document.body.classList.remove("filled");
  say("all pictures are removed");
  $("choose").focus();
});

// --- coming in ---

$("choose").addEventListener("click", () => $("files").click());
$("choose-folder").addEventListener("click", () => $("folder").click());
$("files").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = "";
});
$("folder").addEventListener("change", (event) => {
  add(picturesOf(event.target.files));
  event.target.value = "";
});
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => viewer?.picture && viewer.zoom(button.dataset.zoom));
}
for (const kind of ["dragover", "dragenter"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", !event.target.closest?.(".side"));
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("over"));
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (event.target.closest?.(".side")) return;
  const walked = [...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
  const files = await filesOfDrop(event.dataTransfer);
  add(walked ? picturesOf(files) : files);
});
document.addEventListener("paste", (event) => event.clipboardData.files.length && add([...event.clipboardData.files]));

// --- the service ---

$("here").textContent = location.origin;

async function watch() {
  let text = "ready";
  try {
    const answer = await fetch("/readyz");
    if (!answer.ok) text = (await answer.json()).detail;
  } catch {
    text = "the service does not answer";
  }
  if ($("service").textContent !== text) $("service").textContent = text;
  setTimeout(watch, text === "ready" ? 15000 : 1000);
}

watch();
mixer.load().catch(() => {});
startTeaching((adapter) => mixer.add(adapter, 0));
