// The one stream of events behind a page: what it tells, and whether it is alive.
//
// It is read by `fetch`, as a browser's EventSource cannot say whose session it is for: another customer who signs in
// within the same browser would be shown between the first one's jobs.

import { isSignedOut, readText, request } from "/web/session.js";

const SILENT_MS = 35_000; // the service says every 15 s that it is alive
const STALE_MS = 30_000;
const AGAIN_MS_MIN = 1_000;
const AGAIN_MS_MAX = 30_000;
const LOST = "Connection lost. Trying again…";

/**
 * Follow the jobs as long as the page is seen. `onBegin()` is called when anything may have changed, `onJob(progress)` when
 * a job has, and `onState(text, isBad)` says how the connection is; `onEnd(error)` that the session has ended.
 */
export function followJobs({ onBegin, onJob, onState, onEnd }) {
  let reading = null; // what stops the stream
  let lastId = null;
  let silence = null;
  let again = null;
  let waitMs = AGAIN_MS_MIN;

  async function open() {
    close();
    if (document.hidden) return; // a browser has few connections to one host
    const mine = reading = new AbortController();
    heard();
    try {
      const headers = lastId && { "Last-Event-ID": lastId };
      const answer = await request("GET", "/v1/jobs/events", { headers, signal: mine.signal, cache: "no-store" });
      for await (const event of eventsOf(answer)) {
        if (mine !== reading) return;
        take(event);
      }
      throw new Error(LOST); // the service ends each stream after a while
    } catch (error) {
      if (mine !== reading) return;
      if (isSignedOut(error)) end(error);
      else lose();
    }
  }

  function take({ id, event, data }) {
    heard();
    lastId = id;
    const told = JSON.parse(data);
    if (event === "begin") {
      waitMs = AGAIN_MS_MIN;
      onState("Live");
      if (!told.resumed) onBegin();
    } else if (event === "job") {
      onJob(told);
    } else if (event === "alive") {
      const isStale = !(Date.now() - Date.parse(told.looked_at) <= STALE_MS); // null: never yet
      onState(isStale ? "The database does not answer; these figures are old." : "Live", isStale);
    }
  }

  function heard() {
    clearTimeout(silence);
    silence = setTimeout(lose, SILENT_MS);
  }

  function lose() {
    close();
    onState(LOST, true);
    again = setTimeout(open, waitMs);
    waitMs = Math.min(waitMs * 2, AGAIN_MS_MAX);
  }

  function end(error) {
    close();
    onEnd(error);
  }

  function close() {
    clearTimeout(silence);
    clearTimeout(again);
    reading?.abort();
    reading = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  void open();
}

/** Yield the events of a stream, each `{id, event, data}`; the service writes each member in one line. */
async function* eventsOf(answer) {
  let text = "";
  for await (const part of readText(answer)) {
    const events = (text + part).split("\n\n");
    text = events.pop();
    for (const each of events) {
      const members = Object.fromEntries(each.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (members.event) yield members;
    }
  }
}
