// The one stream of events behind a page: what it tells, and whether it is alive.

import { current } from "/web/session.js";

const SILENT_MS = 35_000; // the service says every 15 s that it is alive
const STALE_MS = 30_000;
const AGAIN_MS_MIN = 1_000;
const AGAIN_MS_MAX = 30_000;

/**
 * Follow the jobs as long as the page is seen. `onBegin()` is called when anything may have changed, `onJob(progress)` when
 * a job has, and `onState(text, isBad)` says how the connection is.
 */
export function followJobs({ onBegin, onJob, onState }) {
  let source = null;
  let silence = null;
  let again = null;
  let waitMs = AGAIN_MS_MIN;

  function open() {
    close();
    if (document.hidden) return; // a browser has few connections to one host
    source = new EventSource("/v1/jobs/events");
    source.addEventListener("begin", (event) => {
      waitMs = AGAIN_MS_MIN;
      heard();
      onState("Live");
      if (!JSON.parse(event.data).resumed) onBegin();
    });
    source.addEventListener("job", (event) => {
      heard();
      onJob(JSON.parse(event.data));
    });
    source.addEventListener("alive", (event) => {
      heard();
      const { looked_at } = JSON.parse(event.data); // null: never yet
      const isStale = !(Date.now() - Date.parse(looked_at) <= STALE_MS);
      onState(isStale ? "The database does not answer; these figures are old." : "Live", isStale);
    });
    source.addEventListener("error", () => (source?.readyState === EventSource.CLOSED ? refused() : onState("Connection lost. Trying again…", true)));
    heard();
  }

  function heard() {
    clearTimeout(silence);
    silence = setTimeout(() => {
      onState("Connection lost. Trying again…", true);
      open();
    }, SILENT_MS);
  }

  /** The service has answered, but with no stream: the session is over, or it has too much to do. */
  async function refused() {
    close();
    const session = await current().catch(() => undefined);
    if (session === null) {
      onState("signed out", true);
      return;
    }
    onState("Connection lost. Trying again…", true);
    again = setTimeout(open, waitMs);
    waitMs = Math.min(waitMs * 2, AGAIN_MS_MAX);
  }

  function close() {
    clearTimeout(silence);
    clearTimeout(again);
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  open();
}
