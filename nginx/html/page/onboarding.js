// The onboarding: a conversation that has steps.

import { Conversation } from "./conversation.js";
import { Page, h, useChat, useContext, useEffect, useState } from "./react.js";
import { store, stored } from "./storage.js";

export function Onboarding() {
  const { token, transport } = useContext(Page);
  const chat = useChat({ token, transport, sessionId: "onboarding", onboarding: true, restore: true });
  const [progress, setProgress] = useState(() => JSON.parse(stored("onboarding") ?? "null"));
  useEffect(() => {
    if (chat.end?.steps === undefined) return;
    const { step, steps, finished } = chat.end;
    store("onboarding", JSON.stringify({ step, steps, finished }));
    setProgress({ step, steps, finished });
  }, [chat.end]);
  return h("div", { className: "pane" },
    // Without messages, it has been deleted.
    progress && chat.messages.length > 0 && h("div", { className: "progress" },
      h("label", null, progress.finished ? "All questions are answered. " : `${progress.step} of ${progress.steps} answered `,
        h("progress", { max: progress.steps, value: progress.step })),
      progress.finished && h("a", { href: "#chat" }, "Start a conversation")),
    h(Conversation, {
      chat, id: "onboarding", label: "Onboarding",
      invitation: "A few questions, so that the answers fit you. Say who you are to begin.",
    }));
}
