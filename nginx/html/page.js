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

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("send").disabled) return;
  last = { message: $("message").value, idempotencyKey: randomID() };
  // The session is known before the answer, so that a reload finds it.
  if (!session()) sessionStorage.setItem("session", randomID());
  add("user", last.message);
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
    answer.append(text);
    answer.scrollIntoView({ block: "end" });
  };
  try {
    const end = await run.done;
    if (end.type === "done") {
      if (end.sessionId) sessionStorage.setItem("session", end.sessionId);
      $("status").textContent = "Done.";
      $("message").value = "";
    } else {
      answer.classList.add("failed");
      $("status").textContent = "Stopped. Nothing was stored.";
      $("retry").hidden = !last;
    }
  } catch (error) {
    answer.classList.add("failed");
    $("status").textContent = error.message;
    $("retry").hidden = !error.retriable || !last;
  } finally {
    answer.classList.remove("streaming");
    $("send").disabled = false;
    $("stop").disabled = true;
    $("message").focus();
  }
}

$("stop").addEventListener("click", () => run?.stop());

// After a reload, or in a second tab: the conversation so far, and the answer that is still being streamed.
async function restore() {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  // Asked for first: an answer that is completed meanwhile is then among the turns.
  // This dialect contains the user's message, which is not stored before the answer is complete.
  const current = running(session(), { token: token(), dialect: "deltas" });
  const message = await new Promise((resolve) => {
    current.onPrompt = resolve;
    current.done.then(() => resolve(), () => resolve());
  });
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
