// A list beside a view: of conversations, or of reports. On a phone it opens above the view.

import { h, useRef, useState } from "./react.js";

/**
 * @param {object} properties
 * @param {{ id: string, href: string, label?: string, at: string }[]} properties.items
 * @param {(id: string) => void} [properties.onRemove] called after a confirmation
 * @param {() => void} [properties.onMore] shows more of them
 */
export function Side({ title, action, onAction, items, current, empty, onRemove, onMore }) {
  const [isOpen, setOpen] = useState(false);
  const [removing, setRemoving] = useState(undefined);
  const close = () => setOpen(false);
  const head = useRef();
  return h("nav", { className: `side${isOpen ? " open" : ""}`, "aria-label": title },
    h("div", { className: "side-head" },
      h("button", {
        type: "button", className: "quiet toggle", "aria-expanded": isOpen, onClick: () => setOpen(!isOpen),
      }, title),
      h("h2", null, title),
      action && h("button", { ref: head, type: "button", className: "new", onClick: () => { close(); onAction(); } }, action)),
    items.length === 0 && h("p", { className: "muted empty" }, empty),
    h("ul", null, items.map(({ id, href, label, at }) => h("li", { key: id },
      h("a", { href, "aria-current": id === current ? "page" : undefined, onClick: close },
        h("span", { className: "label", dir: "auto" }, label ?? "…"), h("time", { dateTime: at }, when(at))),
      onRemove && h("button", {
        type: "button", className: "quiet remove", "aria-label": `Delete “${label ?? when(at)}”`,
        onClick: () => setRemoving({ id, label }),
      }, "×")))),
    onMore && h("button", { type: "button", className: "quiet more", onClick: onMore }, "Show more"),
    removing && h(Confirmation, {
      label: removing.label, onClose: () => setRemoving(undefined),
      onConfirm: () => {
        // The button that opened it goes away with its item.
        head.current.focus();
        onRemove(removing.id);
      },
    }));
}

function Confirmation({ label, onConfirm, onClose }) {
  const open = useRef((dialog) => { if (dialog && !dialog.open) dialog.showModal(); });
  return h("dialog", { ref: open.current, onClose, "aria-labelledby": "confirmation" },
    h("form", { method: "dialog" },
      h("p", { id: "confirmation" }, "Delete this conversation?"),
      label && h("p", { className: "muted" }, label),
      h("div", { className: "buttons" },
        h("button", null, "Keep"),
        h("button", { className: "danger", onClick: onConfirm }, "Delete"))));
}

/** Returns a time as a person says it. */
export function when(text) {
  const date = new Date(text), isToday = date.toDateString() === new Date().toDateString();
  return isToday
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
}
