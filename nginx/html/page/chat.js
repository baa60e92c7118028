// The chat: conversations in a list, each of which goes on while another one is shown.

import { request } from "../sluice.js";
import { Conversation } from "./conversation.js";
import { address, begun, open } from "./fragment.js";
import { Page, h, memo, useChat, useCallback, useContext, useEffect, useRef, useState } from "./react.js";
import { Side } from "./side.js";

/** @param {{ id: string }} properties the session that is shown */
export function Chat({ id }) {
  const { token } = useContext(Page);
  const { sessions, refresh, remove } = useSessions(token);
  // The sessions that have been shown.
  const [shown, setShown] = useState([id]);
  useEffect(() => setShown((shown) => shown.includes(id) ? shown : [...shown, id]), [id]);
  const forget = async (session) => {
    if (!await remove(session)) return;
    setShown((shown) => shown.filter((id) => id !== session));
    if (session === id) open("chat");
  };
  return h("div", { className: "with-side" },
    h(Side, {
      title: "Conversations", action: "New conversation", onAction: () => open("chat"), current: id, onRemove: forget,
      empty: "What you have asked is listed here.",
      items: sessions.map(({ id, updatedAt, label }) => ({ id, href: address("chat", id), label, at: updatedAt })),
    }),
    shown.map((session) => h("div", { key: session, className: "pane", hidden: session !== id },
      h(Session, { id: session, onEnd: refresh }))));
}

const Session = memo(function Session({ id, onEnd }) {
  const { token, transport } = useContext(Page);
  const chat = useChat({ token, transport, sessionId: id, restore: !begun.has(id) });
  useEffect(() => { if (chat.end) onEnd(); }, [chat.end, onEnd]);
  return h(Conversation, { chat, label: "Conversation", invitation: "What would you like to know?" });
});

/** The user's sessions, the newest first, each with its newest message as a label. */
function useSessions(token) {
  const { report } = useContext(Page);
  const [sessions, setSessions] = useState([]);
  const labels = useRef(new Map());
  const refresh = useCallback(async () => {
    try {
      const listed = (await request("/api/sessions", { query: { limit: 30 }, token })).sessions;
      const chats = listed.filter(({ id }) => id !== "onboarding");
      const show = () => setSessions(chats.map((session) => ({ ...session, label: labels.current.get(session.id)?.label })));
      show();
      for (const { id, updatedAt } of chats) {
        if (labels.current.get(id)?.updatedAt === updatedAt) continue;
        const { turns } = await request(`/api/sessions/${id}`, { query: { limit: 1 }, token });
        labels.current.set(id, { updatedAt, label: turns[0]?.user.content.slice(0, 100) });
        show();
      }
    } catch (error) {
      report(error);
    }
  }, [token, report]);
  const remove = useCallback(async (id) => {
    try {
      await request(`/api/sessions/${encodeURIComponent(id)}`, { method: "DELETE", token });
    } catch (error) {
      report(error);
      return false;
    }
    setSessions((sessions) => sessions.filter((session) => session.id !== id));
    return true;
  }, [token, report]);
  useEffect(() => { refresh(); }, [refresh]);
  return { sessions, refresh, remove };
}
