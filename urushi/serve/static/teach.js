// Learning from pairs: bad pictures and good ones in, an adapter out.

import { ask, follow, save, send } from "./api.js";
import { $, filesOfDrop, h, percent, picturesOf, timeText } from "./words.js";

const stem = (file) => file.name.replace(/\.[^.]*$/, "").toLowerCase();
const natural = new Intl.Collator(undefined, { numeric: true }).compare;

// Pairs by equal names; where none are equal, by order, as long as there are as many of both.
function pairsOf(inputs, targets) {
  const byName = new Map(targets.map((file) => [stem(file), file]));
  const named = inputs.filter((file) => byName.has(stem(file))).map((file) => [file, byName.get(stem(file))]);
  if (named.length) return named;
  if (inputs.length !== targets.length) return [];
  const sorted = (files) => [...files].sort((one, other) => natural(one.name, other.name));
  const right = sorted(targets);
  return sorted(inputs).map((file, index) => [file, right[index]]);
}

const decibels = (value) => (value == null ? "–" : `${value.toFixed(2)} dB`);

export function startTeaching(onLearnt) {
  const chosen = { inputs: [], targets: [] };
  let pairs = [];
  let job = null;

  function refresh() {
    pairs = pairsOf(chosen.inputs, chosen.targets);
    for (const side of document.querySelectorAll(".side")) {
      const count = chosen[side.dataset.side].length;
      side.querySelector(".hint").textContent = count ? `${count} ${count === 1 ? "picture" : "pictures"}` : "none yet";
    }
    const both = chosen.inputs.length && chosen.targets.length;
    $("pairs").textContent = !both ? "" : pairs.length
      ? `${pairs.length} ${pairs.length === 1 ? "pair" : "pairs"}, such as ${pairs[0][0].name} and ${pairs[0][1].name}`
      : "these do not belong together: give them equal names, or as many of both in the same order";
    $("learn").disabled = pairs.length < 2 || Boolean(job);
  }

  for (const side of document.querySelectorAll(".side")) {
    const field = side.querySelector("input");
    const take = (files) => {
      chosen[side.dataset.side].push(...files);
      refresh();
    };
    side.querySelector("button").addEventListener("click", () => field.click());
    field.addEventListener("change", () => {
      take(picturesOf(field.files));
      field.value = "";
    });
    for (const kind of ["dragover", "dragenter"]) side.addEventListener(kind, () => side.classList.add("over"));
    for (const kind of ["dragleave", "drop"]) side.addEventListener(kind, () => side.classList.remove("over"));
    side.addEventListener("drop", async (event) => take(picturesOf(await filesOfDrop(event.dataTransfer))));
  }

  function tell(news) {
    const { phase = "waits", psnr_base: base, psnr } = news.facts;
    const scores = [base != null && `base ${decibels(base)}`, psnr != null && `now ${decibels(psnr)}`].filter(Boolean);
    const left = news.seconds_left ? `, ${timeText(news.seconds_left)} left` : "";
    $("learn-text").textContent = `${news.state === "waiting" ? "waits" : phase}${left}${scores.length ? ` · ${scores.join(", ")}` : ""}`;
    if (phase === "learning") $("learn-bar").value = news.progress;
    else $("learn-bar").removeAttribute("value");
  }

  async function showLearnt(end) {
    const { psnr_input: input, psnr_base: base, psnr, gain } = end.facts;
    const told = [decibels(input), decibels(base), decibels(psnr), gain == null ? "–" : `${gain >= 0 ? "+" : ""}${gain.toFixed(2)} dB`];
    $("scores").replaceChildren(...told.map((text) => h("td", {}, text)));
    $("learnt").hidden = false;
    $("sheet").src = URL.createObjectURL(await (await ask(end.links.sheet)).blob());
    $("sheet").hidden = false;
    onLearnt({ id: end.facts.adapter, name: end.name.replace(/\.safetensors$/, "") });
  }

  $("learn").addEventListener("click", async () => {
    const form = new FormData();
    for (const [input, target] of pairs) {
      form.append("inputs", input, input.name);
      form.append("targets", target, target.name);
    }
    form.append("name", $("teach-name").value || "mine");
    form.append("minutes", $("minutes").value || "5");
    $("learn-problem").hidden = true;
    $("learnt").hidden = true;
    $("learning").hidden = false;
    $("learn").disabled = true;
    try {
      job = await send("/v1/adapt", form, (share) => {
        $("learn-text").textContent = `sending ${percent(share)}`;
      });
      $("stop-learning").hidden = false;
      const end = await follow(job, (news) => {
        job = news;
        tell(news);
      });
      job = end;
      if (end.state === "done") await showLearnt(end);
      else if (end.state === "failed") throw new Error(end.problem.detail);
    } catch (problem) {
      $("learn-problem").textContent = problem.message;
      $("learn-problem").hidden = false;
    }
    const learnt = job;
    $("take-adapter").onclick = () => save(learnt.links.result, learnt.name);
    job = null;
    $("learning").hidden = true;
    $("stop-learning").hidden = true;
    refresh();
  });
  $("stop-learning").addEventListener("click", () => job && ask(job.links.self, { method: "DELETE" }).catch(() => {}));
}
