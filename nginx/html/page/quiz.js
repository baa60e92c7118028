// A quiz that can be answered, from the text of the block `quiz`.

import { Markdown } from "./markdown.js";
import { h, isRunning, useState } from "./react.js";

/** Returns a line without the marks of a list, a heading or a quote, and without those that make all of it bold. */
const bare = (line) => line.replace(/^[\s>#*+-]*(?=\S)/, (marks) => (marks.includes("**") ? "**" : ""))
  .trim().replace(/^(\*\*|__)(.*)\1$/, "$2").replace(/^\*\*(.*?)\*\*/, "$1").trim();

/**
 * Returns the questions of a quiz that are complete, with their answers, and whether nothing was left out.
 *
 * @param {string} text
 * @returns {{ found: { question: string, choices: { letter: string, text: string }[], answer: string, reason: string }[],
 *   isUnderstood: boolean }}
 */
export function questions(text) {
  const found = [];
  let current, isUnderstood = true;
  for (const line of text.split("\n").map(bare)) {
    if (line === "") continue;
    const question = /^(?:Question\s*)?(\d+)[.):]\s*(.*)$/i.exec(line);
    const choice = /^\(?([A-D])[.):]\)?\s+(.+)$/.exec(line);
    const answer = /^(?:Correct\s+)?Answer:[\s*]*\(?([A-D])\b[.):,*]*\s*(.*)$/i.exec(line);
    if (question) {
      if (current) isUnderstood = false;
      current = { question: question[2], choices: [] };
    } else if (!current) {
      isUnderstood = false;
    } else if (answer && current.choices.some(({ letter }) => letter === answer[1].toUpperCase())) {
      const reason = answer[2].replace(/^[—–-]\s*/, "").replace(/^./u, (letter) => letter.toUpperCase());
      found.push({ ...current, answer: answer[1].toUpperCase(), reason });
      current = undefined;
    } else if (choice) {
      current.choices.push({ letter: choice[1], text: choice[2] });
    } else if (current.choices.length === 0) {
      current.question = `${current.question} ${line}`.trim();
    } else {
      isUnderstood = false;
    }
  }
  return { found, isUnderstood: isUnderstood && !current };
}

export function Quiz({ text, status }) {
  const [answers, setAnswers] = useState({});
  const { found, isUnderstood } = questions(text);
  if (!isRunning(status) && found.length === 0) return h(Markdown, { text });
  const given = found.filter((_, index) => answers[index]);
  const right = found.filter(({ answer }, index) => answers[index] === answer).length;
  return h("div", { className: "quiz" },
    found.map((question, index) => h(Question, {
      key: index, number: index + 1, ...question, given: answers[index],
      onAnswer: (letter) => setAnswers((answers) => ({ ...answers, [index]: answers[index] ?? letter })),
    })),
    isRunning(status) && h("p", { className: "muted" }, "The questions are being written …"),
    status === "done" && given.length === found.length &&
      h("p", { className: "score", role: "status" }, `${right} of ${found.length} are right.`),
    // Nothing of what the model has written is lost.
    !isRunning(status) && h("details", null,
      h("summary", null, isUnderstood ? "Source" : "Source, with text that is not shown above"), h(Markdown, { text })));
}

function Question({ number, question, choices, answer, reason, given, onAnswer }) {
  const isRight = given === answer;
  return h("fieldset", null,
    h("legend", null, `${number}. ${question}`),
    choices.map(({ letter, text }) => {
      const state = given && letter === answer ? "right" : letter === given ? "wrong" : "";
      // No radio buttons: with the arrow keys, the first one that is reached would be the answer.
      return h("button", {
        key: letter, type: "button", className: `choice ${state}`, "aria-pressed": given === letter,
        "aria-disabled": given !== undefined, onClick: () => onAnswer(letter),
      }, `${letter}) ${text}`);
    }),
    h("p", { className: `verdict ${isRight ? "right" : "wrong"}`, role: "status" },
      given && `${isRight ? "Right" : `No: ${answer} is right`}. ${reason}`));
}
