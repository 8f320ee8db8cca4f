// Whose session it is, from the page's first moment on; and what to do when it has ended.

import { ask, current } from "/web/session.js";

const ROLES = ["annotator", "reviewer"];
const AGAIN_MS = 10_000;

/**
 * Return `{owner_id, lost, countLeft}` once the service has said who is signed in; those who may not label go to the front
 * door. `lost()` shows the banner until the same annotator is signed in again, then `onReturn()` is called. `countLeft()` says there anew how many answers are left.
 */
export async function watchSession({ banner, left, onReturn }) {
  const session = await first(banner);
  if (!ROLES.includes(session?.role)) {
    location.replace(session ? "/" : "/?to=/annotate");
    return new Promise(() => {}); // this page ends here
  }
  let timer = null;
  let other = null; // the name of who is signed in instead

  function showLost() {
    if (timer === null) return;
    const count = left();
    const kept = count ? `${count === 1 ? "One answer is" : `${count} answers are`} kept on this device and sent when you are back. ` : "";
    show(banner, other === null
      ? `You are signed out. ${kept}`
      : `${other} is signed in in this browser now. Load this page again to go on as ${other}.`);
  }

  async function lookAgain() {
    if (timer === null) return;
    // Not `current`, after which requests would go out in the name of whoever is signed in.
    const found = await ask("GET", "/v1/session").catch(() => null);
    if (timer !== null && found?.owner_id === session.owner_id) {
      clearInterval(timer);
      timer = null;
      await current();
      banner.hidden = true;
      onReturn();
    } else if (found) {
      other = found.name;
      showLost();
    }
  }

  addEventListener("focus", lookAgain);
  return {
    owner_id: session.owner_id,
    countLeft: showLost,
    lost() {
      if (timer !== null) return;
      timer = setInterval(lookAgain, AGAIN_MS);
      other = null;
      showLost();
      void lookAgain(); // another tab may have signed in anew
    },
  };
}

/** Ask until the service answers. */
async function first(banner) {
  for (;;) {
    try {
      const session = await current();
      banner.hidden = true;
      return session;
    } catch (error) {
      show(banner, error.status ? error.message : "The service cannot be reached. This page tries again by itself.");
      await new Promise((resolve) => { setTimeout(resolve, AGAIN_MS); });
    }
  }
}

function show(banner, text) {
  banner.querySelector("p").textContent = text;
  banner.hidden = false;
}
