// The blocks: one input, one answer, each kind shown in its own way.

import { Retry, Spoken, useErrorReport } from "./conversation.js";
import { Diagram } from "./diagram.js";
import { explain } from "./errors.js";
import { address } from "./fragment.js";
import { Markdown, copy } from "./markdown.js";
import { Quiz } from "./quiz.js";
import { Page, h, useAIBlockStreaming, useContext, useState } from "./react.js";

const kinds = [
  { type: "ask-question", name: "Ask", label: "Your question" },
  { type: "explain-like-i-am-10", name: "Explain", label: "What should be explained as to a ten-year-old?" },
  { type: "quiz", name: "Quiz", label: "What should the quiz be about?", View: Quiz },
  { type: "diagram", name: "Diagram", label: "What should be drawn?", View: Diagram },
];

/** @param {{ id: string | undefined }} properties the type of the block that is shown */
export function Blocks({ id: type = kinds[0].type }) {
  return h("div", { className: "pane" },
    h("nav", { className: "kinds", "aria-label": "Kinds of blocks" }, kinds.map((kind) =>
      h("a", {
        key: kind.type, href: address("blocks", kind.type), "aria-current": kind.type === type ? "page" : undefined,
      }, kind.name))),
    kinds.map((kind) => h("div", { key: kind.type, className: "pane", hidden: kind.type !== type }, h(Block, kind))));
}

function Block({ type, label, View = ({ text }) => h(Markdown, { text }) }) {
  const { token, transport } = useContext(Page);
  const { text, status, error, start, stop } = useAIBlockStreaming(type, { token, transport });
  const [input, setInput] = useState("");
  useErrorReport(error);
  const isRunning = status === "waiting" || status === "streaming";
  const submit = (event) => {
    event.preventDefault();
    if (!isRunning && input.trim() !== "") start(input);
  };
  return h("div", { className: "scroll document" },
    h("form", { className: "request", onSubmit: submit },
      h("label", null, label,
        h("textarea", { name: "input", rows: 2, value: input, onChange: (event) => setInput(event.target.value) })),
      h("div", { className: "buttons" },
        h("button", { className: "primary", disabled: isRunning || input.trim() === "" }, "Start"),
        isRunning && h("button", { type: "button", className: "stop", onClick: stop }, "Stop"))),
    status === "waiting" && h("p", { className: "muted" }, "The assistant is typing …"),
    text && h("section", { className: `block-answer ${status}`, "data-status": status },
      h("h3", { className: "unseen" }, "Answer"),
      h(View, { text, isComplete: status === "done" }),
      !isRunning && h("button", {
        type: "button", className: "quiet copy", onClick: (event) => copy(text, event.currentTarget),
      }, "Copy")),
    status === "cancelled" && h("p", { className: "note" }, "Stopped. The answer is not complete."),
    status === "done" && text === "" && h("p", { className: "note" }, "The answer is empty."),
    status === "failed" && h("div", { className: "failure" },
      h("p", { className: "note" }, `The answer is not complete. ${explain(error)}`),
      h(Retry, { error, onClick: () => start(input) })),
    h(Spoken, { message: { id: type, role: "assistant", status, content: View === Quiz ? "" : text } }));
}
