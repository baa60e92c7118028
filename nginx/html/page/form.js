// Forms: a field that grows, a button that starts, and one that stops.

import { h, useLayoutEffect, useRef, useState } from "./react.js";

/** A text field as high as its text. */
export function Field({ field, value, onChange, ...properties }) {
  useLayoutEffect(() => {
    if (CSS.supports("field-sizing", "content")) return;
    field.current.style.height = "auto";
    field.current.style.height = `${field.current.scrollHeight + 2}px`;
  }, [value]);
  return h("textarea", {
    ...properties, ref: field, value, dir: "auto", onChange: (event) => onChange(event.target.value),
  });
}

/** Stops an answer. When it goes away with the focus, `field` gets that. */
export function Stop({ onStop, field }) {
  // Until the server has answered.
  const [isStopping, setStopping] = useState(false);
  const button = useRef();
  useLayoutEffect(() => {
    const own = button.current;
    return () => { if (document.activeElement === own) field.current?.focus(); };
  }, []);
  return h("button", {
    type: "button", className: "stop", ref: button,
    onClick: (event) => {
      // The second click of a double click on the button that was here before.
      if (event.detail > 1) return;
      setStopping(true);
      onStop();
    },
  }, isStopping ? "Stopping …" : "Stop");
}

/** One input and its buttons, above an answer. */
export function Request({ label, action, rows, isRunning, field, onStart, onStop }) {
  const [input, setInput] = useState("");
  const isPossible = !isRunning && input.trim() !== "";
  const submit = (event) => {
    event.preventDefault();
    if (isPossible) onStart(input);
  };
  return h("form", { className: "request", onSubmit: submit },
    h("label", null, label, h(Field, { field, name: "input", rows, value: input, onChange: setInput })),
    h("div", { className: "buttons" },
      // Not disabled: it would lose the focus.
      h("button", { className: "primary", "aria-disabled": !isPossible }, action),
      isRunning && h(Stop, { onStop, field })));
}
