// The console: who is signed in, which page of it is asked for, and the stream of events behind all of them.

import { el, sentence } from "/web/console-dom.js";
import { followJobs } from "/web/console-stream.js";
import { current } from "/web/session.js";

const AGAIN_MS = 5_000;
const PAGES = {
  jobs: "/web/console-jobs.js",
  job: "/web/console-job.js",
  new: "/web/console-form.js",
  webhooks: "/web/console-webhooks.js",
  keys: "/web/console-keys.js",
  operations: "/web/console-operations.js",
};

const view = document.getElementById("view");
const query = new URLSearchParams(location.search);

function showConnection(text, isBad = false) {
  const shown = document.getElementById("connection");
  if (shown.textContent !== text) shown.textContent = text;
  shown.classList.toggle("bad", isBad);
}

/** Say that nothing more is shown in the name of who was signed in. */
function showEnd(error) {
  const [why, path, way] = error.status === 401
    ? ["You are signed out. ", signInPath(), "Sign in"]
    : ["Somebody else has signed in. ", herePath(), "Load the page again"];
  showConnection("", true);
  document.getElementById("connection").append(why, el("a", { href: path }, way));
}

function herePath() {
  return location.pathname + location.search;
}

function signInPath() {
  return `/?to=${encodeURIComponent(herePath())}`;
}

async function find() {
  for (;;) {
    try {
      return await current();
    } catch (error) {
      document.getElementById("loading").textContent = `${sentence(error)} This page tries again by itself.`;
      await new Promise((resolve) => { setTimeout(resolve, AGAIN_MS); });
    }
  }
}

async function begin() {
  const session = await find();
  if (!["customer", "admin"].includes(session?.role)) {
    location.replace(session ? "/" : signInPath());
    return;
  }
  for (const link of document.querySelectorAll("header nav [data-role]")) link.hidden = link.dataset.role !== session.role;
  const name = query.get("job") ? "job" : (query.get("page") ?? "jobs");
  const here = `/console${name === "jobs" || name === "job" ? "" : `?page=${name}`}`;
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.getAttribute("href") === here) link.setAttribute("aria-current", name === "job" ? "true" : "page");
  }
  const { show } = await import(Object.hasOwn(PAGES, name) ? PAGES[name] : PAGES.jobs);
  const page = await show({ view, query, session });
  followJobs({ onBegin: page.onBegin ?? (() => {}), onJob: page.onJob ?? (() => {}), onState: showConnection, onEnd: showEnd });
}

await begin();
