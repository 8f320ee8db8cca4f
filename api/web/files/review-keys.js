// The keys of what a reviewer can do beside choosing an option. Those of options come first.

const PREFERRED = { back: "b", later: "s", no_consensus: "x", unclear: "u", broken: "k", none_of_these: "n" };
const OTHERS = "qwertyuiopasdfghjklzxcvbnm1234567890";

/** Return the key of each action, given those that options have; null where none is left. */
export function actionKeys(ofOptions) {
  const taken = new Set(ofOptions);
  const keys = {};
  for (const [action, preferred] of Object.entries(PREFERRED)) {
    const key = [preferred, ...OTHERS].find((each) => !taken.has(each)) ?? null;
    keys[action] = key;
    taken.add(key);
  }
  return keys;
}
