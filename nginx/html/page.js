import { chat, stopStream } from "./sluice.js";

const $ = (id) => document.getElementById(id);
let sessionId, streamId, isStopping;
// The last message, and the key for retrying it.
let last;
// The maximum number of messages shown; the server stores all.
const maximumShown = 50;

// The token is in the fragment, which is not sent to servers, and is removed from the history.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  $("token").value = given;
  history.replaceState(null, "", location.pathname);
}

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
  last = { message: $("message").value, key: crypto.randomUUID?.() };
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

async function ask() {
  const { message, key } = last;
  const token = $("token").value.trim();
  const answer = add("assistant streaming", "");
  $("send").disabled = true;
  $("retry").hidden = true;
  $("status").textContent = "The assistant is typing…";
  isStopping = false;
  try {
    const end = await chat({
      token, message, sessionId, key,
      onOpen(id) {
        streamId = id;
        $("stop").disabled = false;
        if (isStopping) stopStream(id, token);
      },
      onToken(text) {
        answer.append(text);
        answer.scrollIntoView({ block: "end" });
      },
    });
    if (end.type === "done") {
      sessionId = end.sessionId;
      $("status").textContent = "Done.";
      $("message").value = "";
    } else {
      answer.classList.add("failed");
      $("status").textContent = "Stopped. Nothing was stored.";
      $("retry").hidden = false;
    }
  } catch (error) {
    answer.classList.add("failed");
    $("status").textContent = error.message;
    $("retry").hidden = !error.retriable;
  } finally {
    answer.classList.remove("streaming");
    $("send").disabled = false;
    $("stop").disabled = true;
    streamId = undefined;
    $("message").focus();
  }
}

$("stop").addEventListener("click", () => {
  isStopping = true;
  if (streamId) stopStream(streamId, $("token").value.trim());
});
