// A conversation: its messages, how each of them ended, and the form.

import { explain, duration, incomplete } from "./errors.js";
import { Field, Stop } from "./form.js";
import { Markdown, copy } from "./markdown.js";
import { Boundary, Page, h, isRunning, memo, useContext, useEffect, useLayoutEffect, useRef, useState } from "./react.js";
import { drafts } from "./storage.js";

/**
 * @param {object} properties
 * @param {ReturnType<useChat>} properties.chat
 * @param {string} properties.id
 * @param {string} properties.label
 * @param {string} properties.invitation shown while there is no message
 */
export function Conversation({ chat, id, label, invitation, children }) {
  const { messages, isStreaming, isRestoring, error, sendMessage, stop, retryLastMessage } = chat;
  const last = messages.at(-1);
  const field = useRef();
  useErrorReport(error);
  // The question that a missing token has cost; it can be sent with another one.
  useEffect(() => {
    if (error?.code === "unauthorized" && last?.status === "failed" && !drafts.get(id)) drafts.set(id, last.content);
  }, [error]);
  const { place, isAtEnd, follow, onScroll } = useFollowing(messages);
  const retry = () => {
    // The button goes away.
    field.current.focus();
    retryLastMessage();
  };
  return h("div", { className: "conversation" },
    h("div", { className: "scroll", ref: place, onScroll, tabIndex: 0, role: "region", "aria-label": label },
      children,
      messages.length === 0 && h(Beginning, { isRestoring, error, invitation }),
      h("ol", { className: "messages" }, messages.map((message) =>
        h(Boundary, { key: message.id }, h(Message, { message })))),
      (last ? isUnanswered(last) : error) && h(Retry, { error, onClick: retry })),
    !isAtEnd && h("button", {
      type: "button", className: "latest",
      onClick: () => {
        follow();
        place.current.focus();
      },
    }, "Jump to latest"),
    h(Spoken, { message: last }),
    h(Form, {
      id, field, isBusy: isStreaming || isRestoring, isStreaming, stop,
      send: (text) => {
        sendMessage(text);
        follow();
      },
    }));
}

const isUnanswered = ({ status }) => status === "failed" || status === "cancelled";

function Beginning({ isRestoring, error, invitation }) {
  if (isRestoring) return h("p", { className: "invitation muted" }, "Loading …");
  if (error) return h("p", { className: "note" }, `The conversation could not be loaded. ${explain(error)}`);
  return h("p", { className: "invitation" }, invitation);
}

/** Shows a toast for each error. */
export function useErrorReport(error) {
  const { report } = useContext(Page);
  useEffect(() => { if (error) report(error); }, [error, report]);
}

/** Keeps the end of a growing content visible, unless the reader has scrolled up. */
function useFollowing(content) {
  const place = useRef();
  const isFollowing = useRef(true);
  const [isAtEnd, setAtEnd] = useState(true);
  const keep = () => { if (isFollowing.current) place.current.scrollTop = place.current.scrollHeight; };
  const onScroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = place.current;
    isFollowing.current = scrollHeight - scrollTop - clientHeight < 40;
    setAtEnd(isFollowing.current);
  };
  const follow = () => {
    isFollowing.current = true;
    setAtEnd(true);
    keep();
  };
  useLayoutEffect(keep, [content]);
  // Also when it is shown again, or the window gets smaller.
  useEffect(() => {
    const observer = new ResizeObserver(keep);
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  return { place, isAtEnd, follow, onScroll };
}

const Message = memo(function Message({ message: { role, content, status, finishReason, isRefusal, error } }) {
  const isUser = role === "user";
  const note = noteOn({ role, content, status, finishReason, isRefusal, error });
  return h("li", { className: `message ${role} ${status}${note ? " noted" : ""}`, "data-status": status },
    h("h3", null, isUser ? "You" : "Assistant"),
    status === "waiting" && h("p", { className: "waiting" }, h("span", null, "The assistant is typing"), h(Dots)),
    isUser ? h("p", { className: "text", dir: "auto" }, content) : h(Markdown, { text: content }),
    note && h("p", { className: "note" }, note),
    !isUser && content && !isRunning(status) && h("button", {
      type: "button", className: "quiet copy", onClick: (event) => copy(content, event.currentTarget),
    }, "Copy"));
});

const Dots = () => h("span", { className: "dots", "aria-hidden": true }, h("i"), h("i"), h("i"));

/** Returns what must be said about a message: that it is not what it seems. */
function noteOn({ role, content, status, finishReason, isRefusal, error }) {
  if (status === "cancelled") return "Stopped. Nothing was stored.";
  if (status === "failed") {
    return `${role === "user" ? "No answer" : "This answer is not complete, and was not stored"}. ${explain(error)}`;
  }
  if (status !== "done" || role === "user") return undefined;
  if (isRefusal) return "The model has refused to answer.";
  return incomplete[finishReason] ?? (content === "" ? "The answer is empty." : undefined);
}

/** Repeats the last request, when the time that the server asked for is over. */
export function Retry({ error, onClick, label = "Try again" }) {
  const left = useCountdown(error?.retryAfter, error);
  return h("button", { type: "button", className: "retry", disabled: left > 0, onClick },
    left > 0 ? `${label} in ${duration(left)}` : label);
}

/** Returns how many seconds are left, and counts them down. */
function useCountdown(seconds = 0, cause) {
  const [left, setLeft] = useState(seconds);
  useEffect(() => {
    const end = Date.now() + seconds * 1000;
    setLeft(seconds);
    if (!seconds) return;
    const timer = setInterval(() => {
      const rest = Math.max(0, (end - Date.now()) / 1000);
      setLeft(rest);
      if (rest === 0) clearInterval(timer);
    }, 1000);
    return () => clearInterval(timer);
  }, [seconds, cause]);
  return left;
}

/** A live region: each sentence of an answer, once it is complete. */
export function Spoken({ message }) {
  const spoken = useRef({ id: undefined, length: 0, text: "" });
  const { id, role, content, status } = message ?? {};
  if (spoken.current.id !== id || status === "waiting") {
    // What was there before is not read again.
    spoken.current = { id, length: isRunning(status) ? 0 : content?.length, text: "" };
  }
  if (role === "assistant") {
    const rest = content.slice(spoken.current.length);
    const length = isRunning(status) ? endOfSentences(rest) : rest.length;
    if (length > 0) spoken.current = { id, length: spoken.current.length + length, text: rest.slice(0, length) };
  }
  const text = status === "waiting" ? "The assistant is typing." : spoken.current.text;
  return h("p", { role: "status", className: "unseen" }, text);
}

/** Returns the length of the complete sentences at the start of a text. */
function endOfSentences(text) {
  let end = 0;
  for (const sentence of text.matchAll(/[.!?…:][\s"”)]+|[。！？]|\n+/g)) end = sentence.index + sentence[0].length;
  return end;
}

/** The form stays enabled and focused while an answer arrives: what is typed is the next message. */
function Form({ id, field, isBusy, isStreaming, stop, send }) {
  const [text, setText] = useState(drafts.get(id) ?? "");
  const change = (text) => {
    drafts.set(id, text);
    setText(text);
  };
  const submit = (event) => {
    event.preventDefault();
    if (isBusy || text.trim() === "") return;
    send(text);
    change("");
    field.current.focus();
  };
  const onKeyDown = (event) => {
    // Enter sends the message; Shift+Enter inserts a line break.
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    submit(event);
  };
  return h("form", { className: "composer", onSubmit: submit },
    h("label", null,
      h("span", { className: "unseen" }, "Message"),
      h(Field, {
        field, name: "message", rows: 1, value: text, onKeyDown, onChange: change, placeholder: "Write a message",
        "aria-keyshortcuts": "Enter",
      })),
    isStreaming
      ? h(Stop, { key: "stop", onStop: stop, field })
      : h("button", { key: "send", className: "primary send", disabled: isBusy || text.trim() === "" }, "Send"));
}
