// Locks that tabs of one browser hold until they are closed. Browsers have them on https and on one's own machine;
// elsewhere every lock is had, and none is seen.

const locks = navigator.locks;

/** Hold a lock as long as the page lives; return a function that lets go of it, or null if another tab has it. */
export function holdLock(name) {
  if (!locks) return Promise.resolve(() => {});
  return new Promise((resolve) => {
    locks.request(name, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(null);
      return new Promise((release) => resolve(release));
    }).catch(() => resolve(() => {}));
  });
}

/** Return the names of all locks that tabs hold. */
export async function heldLocks() {
  if (!locks) return new Set();
  const { held } = await locks.query();
  return new Set(held.map((lock) => lock.name));
}
