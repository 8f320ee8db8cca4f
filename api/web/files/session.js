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

/** Send a request to the API, and return what it answers; throw `Refused`, or a TypeError if nobody answers. */
export async function ask(method, path, body, headers = {}) {
  try {
    return await send(method, path, body, headers);
  } catch (error) {
    if (error.code !== "csrf_token") throw error;
    await goOnWithNewSession();
    return send(method, path, body, headers);
  }
}

// A request names its session, so that nobody reads or writes in the name of another one who has signed in since. Only
// the question who is signed in is anybody's.
async function send(method, path, body, more = {}) {
  const isAnybodys = method === "GET" && path === "/v1/session";
  const headers = session?.csrf_token && !isAnybodys ? { ...more, "X-CSRF-Token": session.csrf_token } : { ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const content = read(await answer.text());
  if (!answer.ok) throw new Refused(answer.status, content ?? unreadable(answer), Number(answer.headers.get("Retry-After")));
  return content;
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
    return (session = await send("GET", "/v1/session"));
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
