// The chat: conversations in a list, each of which goes on while another one is shown.

import { request } from "../sluice.js";
import { Conversation } from "./conversation.js";
import { address, begun, open } from "./fragment.js";
import { Page, h, memo, useChat, useCallback, useContext, useEffect, useRef, useState } from "./react.js";
import { Side } from "./side.js";

/** @param {{ id: string }} properties the session that is shown */
export function Chat({ id }) {
  const { token } = useContext(Page);
  const { sessions, hasMore, showMore, refresh, remove } = useSessions(token);
  // The sessions that have been shown.
  const [shown, setShown] = useState([]);
  useEffect(() => setShown((shown) => shown.includes(id) ? shown : [...shown, id]), [id]);
  const current = useRef(id);
  current.current = id;
  const forget = async (session) => {
    if (!await remove(session)) return;
    setShown((shown) => shown.filter((id) => id !== session));
    if (session === current.current) open("chat");
  };
  return h("div", { className: "with-side" },
    h(Side, {
      title: "Conversations", action: "New conversation", onAction: () => open("chat"), current: id, onRemove: forget,
      empty: "What you have asked is listed here.",
      onMore: hasMore ? showMore : undefined,
      items: sessions.map(({ id, updatedAt, label }) => ({ id, href: address("chat", id), label, at: updatedAt })),
    }),
    [...new Set([...shown, id])].map((session) => h("div", { key: session, className: "pane", hidden: session !== id },
      h(Session, { id: session, onEnd: refresh }))));
}

const Session = memo(function Session({ id, onEnd }) {
  const { token, transport } = useContext(Page);
  // Decided once: what is in the conversation is not restored again.
  const [restore] = useState(() => !begun.has(id));
  const chat = useChat({ token, transport, sessionId: id, restore });
  useEffect(() => { if (chat.end) onEnd(); }, [chat.end, onEnd]);
  return h(Conversation, { chat, id, label: "Conversation", invitation: "What would you like to know?" });
});

/** The user's sessions, the newest first, each with its newest message as a label. */
function useSessions(token) {
  const { report } = useContext(Page);
  const [sessions, setSessions] = useState([]);
  const [count, setCount] = useState(pageSize);
  const [hasMore, setHasMore] = useState(false);
  const labels = useRef(new Map());
  // A list that was requested before another one is not shown after it.
  const newest = useRef(0);
  const refresh = useCallback(async () => {
    const request = ++newest.current;
    const isNewest = () => request === newest.current;
    try {
      const listed = (await readSessions(token, count)).filter(({ id }) => id !== "onboarding");
      const show = () => {
        if (isNewest()) setSessions(listed.map((session) => ({ ...session, label: labels.current.get(session.id)?.label })));
      };
      show();
      setHasMore(listed.length >= count - 1);
      for (const { id, updatedAt } of listed) {
        if (labels.current.get(id)?.updatedAt === updatedAt) continue;
        if (!isNewest()) return;
        const label = await readLabel(token, id);
        if (label !== undefined) labels.current.set(id, { updatedAt, label });
        show();
      }
    } catch (error) {
      if (isNewest()) report(error);
    }
  }, [token, count, report]);
  const remove = useCallback(async (id) => {
    try {
      await request(`/api/sessions/${encodeURIComponent(id)}`, { method: "DELETE", token });
    } catch (error) {
      // It has been deleted elsewhere.
      if (error.status !== 404) {
        report(error);
        return false;
      }
    }
    newest.current += 1;
    setSessions((sessions) => sessions.filter((session) => session.id !== id));
    return true;
  }, [token, report]);
  useEffect(() => { refresh(); }, [refresh]);
  return { sessions, hasMore, showMore: () => setCount((count) => count + pageSize), refresh, remove };
}

const pageSize = 30;

/** Returns the newest sessions, up to a number, over as many requests as that takes. */
async function readSessions(token, count) {
  const sessions = [];
  while (sessions.length < count) {
    const query = { limit: Math.min(200, count - sessions.length), before: sessions.at(-1)?.id };
    const page = (await request("/api/sessions", { query, token })).sessions;
    sessions.push(...page);
    if (page.length < query.limit) break;
  }
  return sessions;
}

/** Returns the start of the newest message of a session; undefined if it has been deleted. */
async function readLabel(token, id) {
  try {
    const { turns } = await request(`/api/sessions/${id}`, { query: { limit: 1 }, token });
    return turns[0]?.user.content.slice(0, 100);
  } catch (error) {
    if (error.status === 404) return undefined;
    throw error;
  }
}
