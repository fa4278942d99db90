// The page: a picture comes in, is mended beside it by a worker, and is compared and taken home.

import { $, filesOfDrop, h, percent, say, timeText } from "./words.js";

// On such a device a whole picture at once would take more memory than a page may have.
const LITTLE_MEMORY = 4; // GB
const SMALL_TILE = 288;
const SMALL_TILES =
  "For want of memory the tiles are smaller than those of the command: places may differ from its result a little.";

let networks = [];
let worker = null;
let picture = null; // {file, name, url, width, height, result: {blob, url}}
let turn = 0;

// --- mending ---

function workerOf() {
  if (!worker) {
    worker = new Worker("worker.js", { type: "module" });
    worker.onerror = (event) => {
      event.preventDefault?.();
      stop();
      failed(`the part of this page that mends has stopped (${event.message || "no reason was given"}): load it anew`);
    };
  }
  return worker;
}

// Ends what runs, and gives its memory back.
function stop() {
  worker?.terminate();
  worker = null;
  turn++;
}

const chosen = () => networks.find((network) => network.name === document.querySelector("[name=network]:checked")?.value) ?? networks[0];

const little = () => (navigator.deviceMemory ?? 8) <= LITTLE_MEMORY || navigator.userAgentData?.mobile === true;

function take(file, notes) {
  if (picture) forget();
  picture = { file, name: file.name || "picture", url: URL.createObjectURL(file) };
  document.body.classList.add("filled");
  $("bench").hidden = false;
  $("view-title").textContent = picture.name;
  $("view-facts").textContent = "";
  for (const id of ["before", "after"]) $(id).src = picture.url;
  say(`mending ${picture.name}`);
  mend({ notes });
}

function forget() {
  stop();
  for (const url of [picture.url, picture.result?.url]) if (url) URL.revokeObjectURL(url);
  picture = null;
}

function mend({ most = 0, notes = [], gpu = $("gpu").checked } = {}) {
  if (!picture) return;
  if (worker?.busy) stop();
  const mine = ++turn;
  const network = chosen();
  if (!most && little()) {
    most = SMALL_TILE;
    notes = [...notes, SMALL_TILES];
  }
  $("problem").hidden = true;
  $("notes").replaceChildren();
  $("after-tag").hidden = true;
  $("after").src = picture.url;
  $("download").disabled = $("again").disabled = true;
  busy("opening");
  const at = workerOf();
  at.busy = true;
  let began = 0;
  at.onmessage = ({ data }) => {
    if (mine !== turn) return;
    if (data.opened) {
      Object.assign(picture, data.opened);
      $("view-facts").textContent = `${picture.width} × ${picture.height}`;
      size();
      busy("loading the network");
    } else if (data.loading !== undefined) {
      busy(`loading the network, ${percent(data.loading)}`, data.loading);
    } else if (data.mended !== undefined) {
      began ||= performance.now();
      const left = (performance.now() - began) * (1 / data.mended - 1) / 1000;
      const text = data.mended ? `mending, ${percent(data.mended)}${left >= 1 ? `, ${timeText(left)} left` : ""}` : "mending";
      // Of a picture that is one tile nothing is known before its end.
      busy(text, data.tiles === 1 ? undefined : data.mended);
    } else if (data.done) {
      at.busy = false;
      done(data.done, network, notes, gpu);
    } else {
      at.busy = false;
      again(data, notes, gpu);
    }
  };
  at.postMessage({ file: picture.file, network, gpu, most });
}

// Where memory ran out, with smaller tiles; where the graphics processor fails, without it.
function again({ problem, smaller, running }, notes, gpu) {
  if (running) stop();
  if (gpu) {
    notes.push(`The graphics processor did not do it (${problem}), so the processor did.`);
    mend({ notes, gpu: false });
  } else if (running && smaller) {
    mend({ most: smaller, notes: [SMALL_TILES], gpu });
  } else {
    failed(problem);
  }
}

function failed(problem) {
  $("busy").hidden = true;
  $("problem").textContent = problem;
  $("problem").hidden = false;
  $("again").disabled = false;
}

function done({ blob, seconds, tiles, kept }, network, notes, gpu) {
  if (picture.result) URL.revokeObjectURL(picture.result.url);
  picture.result = { blob, url: URL.createObjectURL(blob) };
  $("after").src = picture.result.url;
  $("after-tag").hidden = false;
  $("busy").hidden = true;
  $("download").disabled = $("again").disabled = false;
  const facts = `Mended with ${network.title} in ${timeText(seconds)}, ${tiles === 1 ? "as a whole" : `in ${tiles} tiles`}, ${gpu ? "on the graphics processor" : "on the processor"}.`;
  const all = [facts, ...notes, ...(kept ? ["The camera's data (EXIF) are in the download, too."] : [])];
  $("notes").replaceChildren(...all.map((note) => h("li", {}, note)));
  say(`${picture.name}: ${facts}`);
}

function busy(text, share) {
  $("busy").hidden = false;
  if ($("busy-text").textContent !== text) $("busy-text").textContent = text;
  if (share === undefined) $("busy-bar").removeAttribute("value");
  else $("busy-bar").value = share;
}

// --- the view ---

// At 1:1 a pixel of the picture is one of the screen.
function size() {
  const ratio = window.devicePixelRatio || 1;
  $("stage").style.setProperty("--wide", `${picture.width / ratio}px`);
  $("stage").style.setProperty("--tall", `${picture.height / ratio}px`);
}

function look(one) {
  $("stage").classList.toggle("one", one);
  $("one").setAttribute("aria-pressed", String(one));
  $("whole").setAttribute("aria-pressed", String(!one));
  const pane = $("pane");
  pane.tabIndex = one ? 0 : -1; // arrow keys move it
  pane.scrollTo((pane.scrollWidth - pane.clientWidth) / 2, (pane.scrollHeight - pane.clientHeight) / 2);
}

const slider = $("compare");
function tell() {
  slider.setAttribute("aria-valuenow", Math.round(slider.value));
  slider.setAttribute("aria-valuetext", `${Math.round(slider.value)} % before`);
}
slider.addEventListener("slide", tell);

// --- what people do ---

function give(files) {
  const file = files.find((one) => one.size) ?? files[0];
  if (!file) return void say("there is no picture among these files");
  take(file, files.length > 1 ? [`This page takes one picture at a time: of ${files.length} it took the first.`] : []);
  $("view-title").focus();
}

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => {
  give([...event.target.files]);
  event.target.value = "";
});
for (const kind of ["dragover", "dragenter"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("over"));
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  give(await filesOfDrop(event.dataTransfer));
});
document.addEventListener("paste", (event) => event.clipboardData.files.length && give([...event.clipboardData.files]));
$("cancel").addEventListener("click", () => {
  stop();
  $("busy").hidden = true;
  $("again").disabled = false;
  say("cancelled");
  $("again").focus();
});
$("again").addEventListener("click", () => mend());
$("gpu").addEventListener("change", () => {
  stop();
  mend();
});
$("one").addEventListener("click", () => look(true));
$("whole").addEventListener("click", () => look(false));
$("download").addEventListener("click", () => {
  const name = `${picture.name.replace(/\.[^.]*$/, "")}_restored.png`;
  h("a", { href: picture.result.url, download: name }).click();
});

// --- the start ---

async function start() {
  $("unserved").hidden = true;
  $("work").hidden = false;
  tell();
  const answer = await fetch("networks.json");
  if (!answer.ok) throw new Error(`networks.json cannot be fetched (${answer.status})`);
  ({ networks } = await answer.json());
  $("networks").append(
    ...networks.map((network, index) =>
      h("label", { class: "check" },
        h("input", { type: "radio", name: "network", value: network.name, checked: index === 0, onchange: () => mend() }),
        h("span", {}, network.title, h("small", {}, network.description)),
      ),
    ),
  );
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  $("speed").hidden = !adapter;
  const threads = self.crossOriginIsolated ? navigator.hardwareConcurrency || 1 : 1;
  $("how").textContent = threads > 1 ? `ready, ${Math.min(threads, 8)} threads` : "ready";
}

start().catch((error) => {
  $("how").textContent = "not ready";
  $("unserved").textContent = `${error.message}: is the folder complete?`;
  $("unserved").hidden = false;
});
