// A quiz that can be answered, from the text of the block `quiz`.

import { Markdown } from "./markdown.js";
import { h, useState } from "./react.js";

/**
 * Returns the questions of a quiz that are complete, with their answers.
 *
 * @param {string} text
 * @returns {{ question: string, choices: { letter: string, text: string }[], answer: string, reason: string }[]}
 */
export function questions(text) {
  const found = [];
  let current;
  for (const line of text.split("\n").map((line) => line.replace(/\*\*|^[\s>#-]+/g, "").trim())) {
    const question = /^(?:Question\s*)?(\d+)[.):]\s*(.*)$/i.exec(line);
    const choice = /^([A-D])[.):]\s+(.+)$/.exec(line);
    const answer = /^Answer:\s*\(?([A-D])\b[.):,]*\s*(.*)$/i.exec(line);
    if (question) current = { question: question[2], choices: [] };
    else if (!current) continue;
    else if (choice) current.choices.push({ letter: choice[1], text: choice[2] });
    else if (answer && current.choices.length > 1) {
      const reason = answer[2].replace(/^[—–-]\s*/, "").replace(/^./u, (letter) => letter.toUpperCase());
      found.push({ ...current, answer: answer[1].toUpperCase(), reason });
      current = undefined;
    } else if (line && current.choices.length === 0) current.question = `${current.question} ${line}`.trim();
  }
  return found;
}

export function Quiz({ text, isComplete }) {
  const [answers, setAnswers] = useState({});
  const found = questions(text);
  // It is no quiz, as the model has written it.
  if (found.length === 0 && isComplete) return h(Markdown, { text });
  if (found.length === 0) return h("p", { className: "muted" }, "The questions are being written …");
  const given = found.filter((_, index) => answers[index]);
  const right = found.filter(({ answer }, index) => answers[index] === answer).length;
  return h("div", { className: "quiz" },
    found.map((question, index) => h(Question, {
      key: index, number: index + 1, ...question, given: answers[index],
      onAnswer: (letter) => setAnswers((answers) => ({ ...answers, [index]: answers[index] ?? letter })),
    })),
    isComplete && given.length === found.length &&
      h("p", { className: "score", role: "status" }, `${right} of ${found.length} are right.`));
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
