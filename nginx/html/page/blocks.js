// The blocks: one input, one answer, each kind shown in its own way.

import { Retry, Spoken, useErrorReport } from "./conversation.js";
import { Diagram } from "./diagram.js";
import { explain, incomplete } from "./errors.js";
import { Request } from "./form.js";
import { address } from "./fragment.js";
import { Markdown, copy } from "./markdown.js";
import { Quiz } from "./quiz.js";
import { Boundary, Page, h, isRunning, useAIBlockStreaming, useContext, useRef } from "./react.js";

const kinds = [
  { type: "ask-question", name: "Ask", label: "Your question", View: Markdown },
  { type: "explain-like-i-am-10", name: "Explain", label: "What should be explained as to a ten-year-old?", View: Markdown },
  { type: "quiz", name: "Quiz", label: "What should the quiz be about?", View: Quiz },
  { type: "diagram", name: "Diagram", label: "What should be drawn?", View: Diagram },
];

/** @param {{ id: string | undefined }} properties the type of the block that is shown */
export function Blocks({ id }) {
  const { type } = kinds.find(({ type }) => type === id) ?? kinds[0];
  return h("div", { className: "pane" },
    h("nav", { className: "kinds", "aria-label": "Kinds of blocks" }, kinds.map((kind) =>
      h("a", {
        key: kind.type, href: address("blocks", kind.type), "aria-current": kind.type === type ? "page" : undefined,
      }, kind.name))),
    kinds.map((kind) => h("div", { key: kind.type, className: "pane", hidden: kind.type !== type }, h(Block, kind))));
}

function Block({ type, label, View }) {
  const { token, transport } = useContext(Page);
  const { text, status, error, finishReason, start, stop } = useAIBlockStreaming(type, { token, transport });
  const field = useRef(), sent = useRef("");
  useErrorReport(error);
  const ask = (input) => {
    sent.current = input;
    start(input);
  };
  const retry = () => {
    field.current.focus();
    ask(sent.current);
  };
  const note = noteOn({ status, text, finishReason });
  return h("div", { className: "scroll document" },
    h(Request, { label, action: "Start", rows: 2, isRunning: isRunning(status), field, onStart: ask, onStop: stop }),
    status === "waiting" && h("p", { className: "muted" }, "The assistant is typing …"),
    text && h("section", { className: `block-answer ${status}`, "data-status": status },
      h("h3", { className: "unseen" }, "Answer"),
      h(Boundary, { key: sent.current }, h(View, { text, status })),
      !isRunning(status) && h("button", {
        type: "button", className: "quiet copy", onClick: (event) => copy(text, event.currentTarget),
      }, "Copy")),
    note && h("p", { className: "note" }, note),
    status === "failed" && h("div", { className: "failure" },
      h("p", { className: "note" }, `The answer is not complete. ${explain(error)}`),
      h(Retry, { error, onClick: retry })),
    h(Spoken, { message: { id: type, role: "assistant", status, content: View === Quiz ? "" : text } }));
}

/** Returns what must be said about an answer that has not failed. */
function noteOn({ status, text, finishReason }) {
  if (status === "cancelled") return "Stopped. The answer is not complete.";
  if (status !== "done") return undefined;
  return incomplete[finishReason] ?? (text === "" ? "The answer is empty." : undefined);
}
