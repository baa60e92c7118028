// What is kept for this tab. Where the browser allows no storage, it lasts until the page is left.

const memory = new Map();

export function stored(name) {
  try { return sessionStorage.getItem(name) ?? undefined; } catch { return memory.get(name); }
}

/** Keeps a text; removes it if it is undefined. */
export function store(name, text) {
  memory.set(name, text);
  try {
    if (text === undefined) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, text);
  } catch {
    // It is in memory.
  }
}

/** What was typed but not sent, by conversation: it survives a new token. */
export const drafts = new Map();

/** Keeps the token, and forgets what belongs to another user. */
export function storeToken(token) {
  if (token === stored("token")) return;
  store("token", token);
  store("onboarding", undefined);
}
