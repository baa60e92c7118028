// The fragment of the URL: the view, and what it shows, such as `#chat/SESSION`.

import { randomID } from "../sluice.js";
import { useEffect, useState } from "./react.js";
import { storeToken, stored } from "./storage.js";

/** The conversations that began in this tab: there is nothing to restore. */
export const begun = new Set();

/**
 * Takes the token out of a fragment `#token=…`, which is not sent to servers, and keeps it for this tab. Returns whether
 * there was one.
 */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (!given.has("token")) return false;
  const token = given.get("token"), current = stored("token");
  // Otherwise any link could make a person use another one's token unawares.
  const isWanted = !current || current === token || confirm("Use the token of this link instead of the current one?");
  if (isWanted) storeToken(token);
  replace(`chat/${encodeURIComponent(given.get("session") ?? "")}`);
  return true;
}

/**
 * Shows something in a view.
 *
 * @param {string} view
 * @param {string} [id]
 */
export function open(view, id) {
  location.hash = address(view, id);
}

export const address = (view, id) => `#${view}${id === undefined ? "" : `/${encodeURIComponent(id)}`}`;

/**
 * Returns the view and what it shows.
 *
 * @param {string[]} names the names of the views, the first of which is the chat
 */
export function useFragment(names) {
  const [fragment, setFragment] = useState(() => read(names));
  useEffect(() => {
    const update = () => (takeToken() ? location.reload() : setFragment(read(names)));
    addEventListener("hashchange", update);
    // It can have changed before.
    update();
    return () => removeEventListener("hashchange", update);
  }, [names]);
  return fragment;
}

/** Returns the fragment, after a new conversation has got an id, which is no step back in the history. */
function read(names) {
  const [name, encoded] = location.hash.slice(1).split("/");
  if (!names.includes(name) || (name === names[0] && !/^[\w-]{1,64}$/.test(encoded ?? ""))) {
    const id = randomID();
    begun.add(id);
    replace(`${names[0]}/${id}`);
    return { name: names[0], id };
  }
  return { name, id: encoded ? decoded(encoded) : undefined };
}

/** Returns the text that is percent-encoded; the same one if it is not. */
function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

const replace = (fragment) => history.replaceState(null, "", `${location.pathname}${location.search}#${fragment}`);
