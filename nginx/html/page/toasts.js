// Short messages above the page, read out at once. What they say also stays where it belongs.

import { h, useCallback, useEffect, useState } from "./react.js";

const shownSeconds = 10;

export function useToasts() {
  const [toasts, setToasts] = useState([]);
  const dismiss = useCallback((id) => setToasts((toasts) => toasts.filter((toast) => toast.id !== id)), []);
  const show = useCallback((text) =>
    setToasts((toasts) => [...toasts.filter((toast) => toast.text !== text), { id: performance.now(), text }].slice(-3)), []);
  return { toasts, show, dismiss };
}

export function Toasts({ toasts, dismiss }) {
  return h("div", { className: "toasts", role: "alert" },
    toasts.map(({ id, text }) => h(Toast, { key: id, text, onDismiss: () => dismiss(id) })));
}

function Toast({ text, onDismiss }) {
  useEffect(() => {
    const timer = setTimeout(onDismiss, shownSeconds * 1000);
    return () => clearTimeout(timer);
  }, []);
  return h("div", { className: "toast" },
    h("p", null, text), h("button", { type: "button", className: "quiet", "aria-label": "Dismiss", onClick: onDismiss }, "×"));
}
