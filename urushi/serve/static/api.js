// Talks to the service: with the token, where it asks for one, and with its own sentences for errors.

const KEY = "urushi-token";

export class Problem extends Error {
  constructor(status, sentence, retry = 0) {
    super(sentence);
    this.status = status;
    this.retry = retry;
  }
}

export function bearer() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

let asking = null;

function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("ask-token");
    const field = document.getElementById("token");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, field.value.trim());
      field.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

function problemOf(status, text, retry) {
  try {
    return new Problem(status, JSON.parse(text).detail, retry);
  } catch {
    return new Problem(status, `the service answered with status ${status}`, retry);
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// Asks for a path; where too much waits there, once more and again when it says so.
export async function ask(path, options = {}) {
  for (let tries = 0; ; tries++) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: { ...bearer(), ...options.headers } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, "the service does not answer: is it still running?");
    }
    if (answer.ok) return answer;
    const retry = Number(answer.headers.get("Retry-After")) || 0;
    const problem = problemOf(answer.status, await answer.text(), retry);
    if (problem.status === 401) {
      await askForToken();
    } else if (problem.status === 429 && tries < 100) {
      await pause(Math.max(retry, 1));
    } else {
      throw problem;
    }
  }
}

export const told = async (path, options) => (await ask(path, options)).json();

export const asJson = (content) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(content),
});

// Sends a form; fetch does not tell how much of it has gone.
export async function send(path, form, onProgress = () => {}) {
  for (let tries = 0; ; tries++) {
    try {
      return await sendOnce(path, form, onProgress);
    } catch (problem) {
      if (problem.status === 401) await askForToken();
      else if (problem.status === 429 && tries < 100) await pause(Math.max(problem.retry, 1));
      else throw problem;
    }
  }
}

function sendOnce(path, form, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(bearer())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new Problem(0, "the service does not answer: is it still running?"));
    request.onload = () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(problemOf(request.status, request.responseText, Number(request.getResponseHeader("Retry-After"))));
    };
    request.send(form);
  });
}

// Follows a job to its end, telling of it on the way.
export async function follow(job, onNews) {
  let wait = 0;
  for (;;) {
    const news = await told(`${job.links.self}?wait=${wait}`);
    onNews(news);
    if (!["waiting", "running"].includes(news.state)) return news;
    wait = 1;
  }
}

export async function save(path, name) {
  const blob = await (await ask(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
