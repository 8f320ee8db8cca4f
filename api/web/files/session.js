// Who is signed in, and requests in their name. The cookie that says so is out of reach of scripts.

let session = null;

/** An error that the API answered: `message` is its sentence, `code` its name for programs, `details` what is wrong by field. */
export class Refused extends Error {
  constructor(status, body, retryAfterS) {
    super(body.error);
    this.status = status;
    this.code = body.code;
    this.details = body.details ?? [];
    this.retryAfterS = retryAfterS;
  }
}

/** Return whether the service has refused a request because of who sent it. */
export function isSignedOut(error) {
  return error.status === 401 || error.status === 403;
}

/** Makes the keys by which a request that is sent again, as its answer was lost, does nothing twice. */
export class IdempotencyKeys {
  #last = null; // the text of the body that was sent last, and its key

  /** Return the key of a body: the same as long as the body is. */
  of(body) {
    const text = JSON.stringify(body);
    if (this.#last?.text !== text) {
      const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      this.#last = { text, key };
    }
    return this.#last.key;
  }

  /** Take the same body for another request the next time: this one was answered. */
  forget() {
    this.#last = null;
  }
}

/** Send a request to the API, and return what it answers; throw `Refused`, or a TypeError if nobody answers. */
export async function ask(method, path, body, headers) {
  const answer = await request(method, path, { body, headers });
  return read(await answer.text());
}

/** Send a request, and return its answer as soon as it begins: its body is still to be read. Throw as `ask` does. */
export async function request(method, path, options) {
  try {
    return await send(method, path, options);
  } catch (error) {
    if (error.code !== "csrf_token") throw error;
    await goOnWithNewSession();
    return send(method, path, options);
  }
}

/** Yield the text of an answer as it comes; whoever stops reading stops the answer. */
export async function* readText(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Send a request while the page goes away; nobody sees whether it arrives. */
export function sendLast(path, body) {
  send("POST", path, { body, keepalive: true }).catch(() => {});
}

// A request names its session, so that nobody reads or writes in the name of another one who has signed in since. Only
// the question who is signed in is anybody's.
async function send(method, path, { body, headers, ...more } = {}) {
  const isAnybodys = method === "GET" && path === "/v1/session";
  const answer = await fetch(path, {
    ...more,
    method,
    headers: {
      ...headers,
      ...(session?.csrf_token && !isAnybodys && { "X-CSRF-Token": session.csrf_token }),
      ...(body !== undefined && { "Content-Type": "application/json" }),
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.ok) return answer;
  const content = read(await answer.text()) ?? unreadable(answer);
  throw new Refused(answer.status, content, Number(answer.headers.get("Retry-After")));
}

// A proxy's errors are no JSON.
function read(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

function unreadable(answer) {
  return { error: `The service cannot be reached just now (${answer.status}). Try again in a moment.`, code: "unavailable" };
}

// In another tab the same person may have signed in again, and then this page goes on with the new session. If
// somebody else did, nothing is sent or read in their name.
async function goOnWithNewSession() {
  const before = session;
  if ((await current())?.owner_id === before?.owner_id) return;
  session = before;
  const error = "Somebody else has signed in in this browser. Load the page again to go on in their name.";
  throw new Refused(403, { error, code: "other_session" });
}

/** Return who is signed in; null if nobody is. */
export async function current() {
  try {
    return (session = read(await (await send("GET", "/v1/session")).text()));
  } catch (error) {
    if (error.status === 401) return (session = null);
    throw error;
  }
}

/** Sign in with `{key}` or `{link}`. */
export async function signIn(credential) {
  const begun = await ask("POST", "/v1/session", credential);
  if (!isSecureContext && (await current()) === null) {
    throw new Error("Your browser did not keep the session. Open this service at its https address.");
  }
  return (session = begun);
}

/** Sign out; it is no error if the session is over already. */
export async function signOut() {
  try {
    await ask("DELETE", "/v1/session");
  } catch (error) {
    if (error.status !== 401) throw error;
  }
  session = null;
}

// A browser shows a page that one goes back to as it was. If somebody else, or nobody, is signed in by then, it is
// loaded anew.
addEventListener("pageshow", async (event) => {
  const before = session;
  if (event.persisted && before && (await current())?.owner_id !== before.owner_id) location.reload();
});
