// The page: chat, onboarding, reports and blocks, on the hooks of hooks.js.

import { Blocks } from "./page/blocks.js";
import { Chat } from "./page/chat.js";
import { explain } from "./page/errors.js";
import { address, begun, takeToken, useFragment } from "./page/fragment.js";
import { Onboarding } from "./page/onboarding.js";
import { Boundary, Page, h, useCallback, useEffect, useMemo, useState } from "./page/react.js";
import { Reports } from "./page/report.js";
import { storeToken, stored } from "./page/storage.js";
import { Toasts, useToasts } from "./page/toasts.js";

const views = [
  { name: "chat", title: "Chat", View: Chat },
  { name: "onboarding", title: "Onboarding", View: Onboarding },
  { name: "reports", title: "Reports", View: Reports },
  { name: "blocks", title: "Blocks", View: Blocks },
];
const names = views.map(({ name }) => name);

const transport = new URLSearchParams(location.search).get("transport") ?? undefined;

function App() {
  const { name, id } = useFragment(names);
  const current = views.find((view) => view.name === name);
  const [token, setToken] = useState(() => stored("token") ?? "");
  const [isAccessOpen, setAccessOpen] = useState(false);
  const { toasts, show, dismiss } = useToasts();
  const report = useCallback((error) => {
    if (error.code === "unauthorized") setAccessOpen(true);
    show(explain(error));
  }, [show]);
  const page = useMemo(() => ({ token, transport, report }), [token, report]);
  // The views that have been shown, and what they show. They go on while another one is shown.
  const [visited, setVisited] = useState({});
  useEffect(() => setVisited((visited) => ({ ...visited, [current.name]: id })), [current, id]);
  useEffect(() => { document.title = `${current.title} · Sluice`; }, [current]);
  const shown = { ...visited, [current.name]: id };
  const access = (token) => {
    // What this user's predecessor began may be another's.
    if (token !== stored("token")) begun.clear();
    storeToken(token);
    setToken(token);
    setAccessOpen(false);
  };
  return h(Page.Provider, { value: page },
    h("header", null,
      h("h1", null, "Sluice"),
      h("nav", { "aria-label": "Views" }, views.map(({ name, title }) => h("a", {
        key: name, href: address(name, shown[name]), "aria-current": name === current.name ? "page" : undefined,
      }, title))),
      h(Access, { key: `access ${token}`, token, isOpen: isAccessOpen, setOpen: setAccessOpen, onChange: access })),
    // With another token, all of it is another user's.
    h("main", { key: token }, views.filter(({ name }) => name in shown).map(({ name, title, View }) =>
      h("section", { key: name, className: "view", hidden: name !== current.name },
        h("h2", { className: "unseen" }, title),
        h(Boundary, null, h(View, { id: shown[name] }))))),
    h(Toasts, { toasts, dismiss }));
}

function Access({ token, isOpen, setOpen, onChange }) {
  const [text, setText] = useState(token);
  const submit = (event) => {
    event.preventDefault();
    onChange(text.trim());
  };
  return h("details", { className: "access", open: isOpen, onToggle: (event) => setOpen(event.currentTarget.open) },
    h("summary", null, "Access"),
    h("form", { onSubmit: submit },
      h("label", null, "Bearer token",
        h("input", {
          name: "token", type: "password", autoComplete: "off", spellCheck: false, value: text,
          onChange: (event) => setText(event.target.value),
        })),
      h("button", { className: "primary" }, "Use")));
}

takeToken();
ReactDOM.createRoot(document.getElementById("page")).render(h(App));
