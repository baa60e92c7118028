import { chat, stopStream } from "./sluice.js";

const $ = (id) => document.getElementById(id);
let sessionId, streamId, isStopping;
// The message that was asked last, and the key under which it may be asked again.
let last;
// What is shown at most; the server keeps all.
const maximumShown = 50;

// The token comes in the fragment, which no server sees, and stays out of the history.
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

// The failed answer goes, and the same question is asked again.
$("retry").addEventListener("click", () => {
  $("messages").querySelector(".assistant.failed:last-child")?.remove();
  ask();
});

// A message is sent by Enter; a new line is Shift and Enter.
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
