import { chat, stopStream } from "./sluice.js";

const $ = (id) => document.getElementById(id);
let sessionId, streamId, isStopping;

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
  item.scrollIntoView({ block: "end" });
  return item;
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = $("message").value;
  const token = $("token").value.trim();
  add("user", message);
  const answer = add("assistant streaming", "");
  $("send").disabled = true;
  $("status").textContent = "The assistant is typing…";
  isStopping = false;
  try {
    const end = await chat({
      token, message, sessionId,
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
    }
  } catch (error) {
    answer.classList.add("failed");
    $("status").textContent = `${error.message}${error.retriable ? " Try again." : ""}`;
  } finally {
    answer.classList.remove("streaming");
    $("send").disabled = false;
    $("stop").disabled = true;
    streamId = undefined;
    $("message").focus();
  }
});

$("stop").addEventListener("click", () => {
  isStopping = true;
  if (streamId) stopStream(streamId, $("token").value.trim());
});
