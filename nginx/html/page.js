import { chat, randomID, running } from "./sluice.js";

const $ = (id) => document.getElementById(id);
// The maximum number of messages shown; the server stores all.
const maximumShown = 50;
const transport = new URLSearchParams(location.search).get("transport") ?? undefined;
// The running stream.
let run;
// The last message, and the key for retrying it.
let last;

// The token and the session are kept for this tab. They can be in the fragment, which is not sent to servers, and is
// removed from the history.
const given = new URLSearchParams(location.hash.slice(1));
for (const name of ["token", "session"]) if (given.has(name)) sessionStorage.setItem(name, given.get(name));
if (given.size) history.replaceState(null, "", location.pathname + location.search);
$("token").value = sessionStorage.getItem("token") ?? "";
$("token").addEventListener("change", () => sessionStorage.setItem("token", token()));
const token = () => $("token").value.trim();
const session = () => sessionStorage.getItem("session") ?? undefined;

function add(role, text) {
  const item = document.createElement("li");
  item.className = role;
  item.textContent = text;
  $("messages").append(item);
  while ($("messages").children.length > maximumShown) $("messages").firstElementChild.remove();
  item.scrollIntoView({ block: "end" });
  return item;
}

// Whether the reader has not scrolled up.
const isAtEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 100;

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("send").disabled) return;
  last = { message: $("message").value, idempotencyKey: randomID() };
  // The session is known before the answer, so that a reload finds it.
  if (!session()) sessionStorage.setItem("session", randomID());
  add("user", last.message);
  // What is typed while the answer arrives is the next message.
  $("message").value = "";
  ask();
});

// Replaces the failed response: sends the same message again.
$("retry").addEventListener("click", () => {
  $("messages").querySelector(".assistant.failed:last-child")?.remove();
  ask();
});

// Enter sends the message; Shift+Enter inserts a line break.
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});

function ask() {
  const { message, idempotencyKey } = last;
  show(chat(message, { token: token(), sessionId: session(), idempotencyKey, transport }));
}

// Shows the answer of a run as it arrives.
async function show(started) {
  run = started;
  const answer = add("assistant streaming", "");
  $("send").disabled = true;
  $("stop").disabled = false;
  $("retry").hidden = true;
  $("status").textContent = "The assistant is typing…";
  run.onToken = (text) => {
    const follows = isAtEnd();
    answer.append(text);
    if (follows) answer.scrollIntoView({ block: "end" });
  };
  try {
    const end = await run.done;
    if (end.type === "done") {
      if (end.sessionId) sessionStorage.setItem("session", end.sessionId);
      const note = answer.textContent === "" ? "The answer is empty." : incomplete[end.finishReason];
      if (note) answer.dataset.note = note;
      $("status").textContent = note ?? "Done.";
    } else {
      fail("Stopped. Nothing was stored.");
      $("retry").hidden = !last;
    }
  } catch (error) {
    fail(explanation(error));
    $("retry").hidden = !error.retriable || !last;
  } finally {
    answer.classList.remove("streaming");
    $("send").disabled = false;
    $("stop").disabled = true;
    // The button that had the focus is disabled; anything else keeps it.
    if (document.activeElement === document.body) $("message").focus();
  }

  function fail(reason) {
    answer.classList.add("failed");
    answer.dataset.note = reason;
    $("status").textContent = reason;
  }
}

// Answers that are complete for the server, but not for a person.
const incomplete = {
  length: "The answer has reached its maximum length.",
  content_filter: "A filter of the model has cut the answer.",
};

// Says what a person can do about an error.
function explanation({ code, message, retryAfter }) {
  if (code === "unauthorized") return "The token is missing or not valid. Enter one below.";
  return retryAfter ? `${message} Try again in ${retryAfter} seconds.` : message;
}

$("stop").addEventListener("click", () => run?.stop());

// After a reload, or in a second tab: the conversation so far, and the answer that is still being streamed.
async function restore() {
  // Asked for first: an answer that is completed meanwhile is then among the turns. This dialect contains the user's
  // message, which is not stored before the answer is complete.
  const current = running(session(), { token: token(), dialect: "deltas" });
  const message = await new Promise((resolve) => {
    current.onPrompt = resolve;
    current.done.then(() => resolve(), () => resolve());
  });
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const response = await fetch(`/api/sessions/${encodeURIComponent(session())}?limit=${maximumShown / 2}`, { headers })
    .catch(() => undefined);
  const turns = response?.ok ? (await response.json()).turns : [];
  for (const { user, assistant } of turns) {
    add("user", user.content);
    add("assistant", assistant.content);
  }
  // It can have been stored meanwhile.
  if (message === undefined || turns.some(({ id }) => id === current.id) || $("send").disabled) return;
  last = { message };
  add("user", message);
  show(current);
}
if (session()) restore();
