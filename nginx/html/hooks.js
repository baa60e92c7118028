// React hooks for the streams of Sluice, on whatever React the page has (16.8 or later).
//
//     import * as React from "react";
//     const { useChat } = createHooks(React);
//
//     function Chat({ token }) {
//       const { messages, isStreaming, sendMessage, stop } = useChat({ token });
//       …
//     }
//
// Text is shown once per animation frame, however many pieces arrive. A component that is unmounted leaves its stream.

import {
  SluiceError, block, chat, onboarding as startOnboarding, randomID, report, request, running, saveReport, stream,
} from "./sluice.js";

/** @typedef {import("./sluice.js").StreamOptions} StreamOptions */
/** @typedef {import("./sluice.js").Terminal} Terminal */
/** @typedef {ReturnType<typeof stream>} Run */
/** @typedef {"idle" | "waiting" | "streaming" | "done" | "cancelled" | "failed"} Status `waiting` until the first text */

/**
 * A message of a conversation. `id` is for the page alone. A message of the user is `failed` if there is no answer.
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {"user" | "assistant"} role
 * @property {string} content
 * @property {boolean} isStreaming
 * @property {Status} status never `idle`
 * @property {string} [finishReason] of an answer that is done, such as `length`
 * @property {boolean} [isRefusal] whether the model has refused to answer; the content says why
 * @property {Error} [error] why it failed
 */

/** The maximum number of messages that useChat returns; the server stores all. */
const maximumMessages = 50;

/**
 * Returns the hooks.
 *
 * @param {any} React the page's React
 */
export function createHooks({ useCallback, useEffect, useRef, useState }) {
  /**
   * Keeps at most one run, and what has been received of it.
   *
   * @returns {{ state: State, start: (make: () => Run) => Promise<Terminal | undefined>, stop: () => void }}
   */
  function useRun() {
    /** @type {[State, (state: State) => void]} */
    const [state, setState] = useState(idle);
    const reader = useReader();
    const start = useCallback((/** @type {() => Run} */ make) => reader.read(make(), setState), [reader]);
    const stop = useCallback(() => reader.run?.stop(), [reader]);
    return { state, start, stop };
  }

  /**
   * Returns the reader of a component, which leaves its run when the component is unmounted.
   *
   * @returns {RunReader}
   */
  function useReader() {
    /** @type {{ current: RunReader | undefined }} */
    const reader = useRef(undefined);
    reader.current ??= new RunReader();
    useEffect(() => () => reader.current?.leave(), []);
    return reader.current;
  }

  /**
   * Streams from any endpoint. `send` posts a body, or requests the path if there is none; `retry` does the same again.
   *
   * @param {string} path
   * @param {StreamOptions} [options]
   */
  function useStream(path, options) {
    const { state, start, stop } = useRun();
    const last = useRef(undefined);
    const latest = useLatest({ path, options });
    const send = useCallback((/** @type {Record<string, any>} */ body) => {
      last.current = { body, idempotencyKey: randomID() };
      const { path, options } = latest.current;
      return start(() => stream(path, { ...options, ...last.current }));
    }, [start, latest]);
    const retry = useCallback(() => {
      const { path, options } = latest.current;
      if (last.current) return start(() => stream(path, { ...options, ...last.current }));
    }, [start, latest]);
    const { text, status, error } = state;
    return { text, status, error, send, stop, retry };
  }

  /**
   * Streams from an endpoint that is chosen at the start.
   *
   * @param {StreamOptions} [options]
   */
  function useAIStreaming(options) {
    const { state, start: startRun, stop } = useRun();
    const latest = useLatest(options);
    const start = useCallback(
      (/** @type {string} */ path, /** @type {Record<string, any>} */ body) =>
        startRun(() => stream(path, { ...latest.current, body })),
      [startRun, latest]);
    const { text, status, error } = state;
    return { text, status, error, start, stop };
  }

  /**
   * Streams from a block. `seq` is the number of the last piece, from 0, or at the end the number of pieces. `finishReason`
   * is why the model has ended, unless by itself, such as `length`.
   *
   * @param {string} blockType such as `quiz`
   * @param {StreamOptions} [options]
   */
  function useAIBlockStreaming(blockType, options) {
    const { state, start: startRun, stop } = useRun();
    const latest = useLatest({ blockType, options });
    const start = useCallback((/** @type {string} */ input) => {
      const { blockType, options } = latest.current;
      return startRun(() => block(blockType, input, options));
    }, [startRun, latest]);
    const { text, seq, status, error, end } = state;
    return { text, seq, status, error, finishReason: end?.finishReason, start, stop };
  }

  /**
   * Asks for a report: its text while it arrives, then the parsed object, which `save` stores.
   *
   * @param {StreamOptions} [options]
   */
  function useReport(options) {
    const { state, start: startRun, stop } = useRun();
    const [saved, setSaved] = useState(/** @type {{ id?: string, error?: Error }} */ ({}));
    const input = useRef(undefined);
    const saving = useRef(/** @type {{ report: object, promise: Promise<string | undefined> } | undefined} */ (undefined));
    const latest = useLatest({ options, report: state.end?.report });
    const start = useCallback((/** @type {string} */ text) => {
      input.current = text;
      saving.current = undefined;
      setSaved({});
      return startRun(() => report(text, latest.current.options));
    }, [startRun, latest]);
    const retry = useCallback(() => (input.current === undefined ? undefined : start(input.current)), [start]);
    const save = useCallback(async () => {
      const { report, options } = latest.current;
      if (report === undefined) return undefined;
      // A report is stored once, however often this is called.
      if (saving.current?.report === report) return saving.current.promise;
      // The maximum length of a title.
      const title = typeof report.title === "string" ? [...report.title].slice(0, 200).join("") : undefined;
      const promise = saveReport(report, { ...options, title }).then((id) => {
        // Another report can have been requested in the meantime.
        if (saving.current?.report === report) setSaved({ id });
        return id;
      }, (error) => {
        if (saving.current?.report !== report) return undefined;
        saving.current = undefined;
        setSaved({ error });
        return undefined;
      });
      saving.current = { report, promise };
      return promise;
    }, [latest]);
    const { text, status, error, end } = state;
    return {
      text, status, error: error ?? saved.error, report: end?.report, reportId: saved.id ?? end?.reportId, start, stop, save,
      retry,
    };
  }

  /**
   * Holds a conversation. While an answer is streamed, `sendMessage` does nothing. A failed answer is taken away if it has
   * no text, and marked as failed if it has some, until it is requested again. `end` is the last terminal record.
   *
   * With `restore`, the conversation begins with the stored messages of its session and continues with the answer that is
   * being streamed, if the server allows that (SLUICE_RESUME). Until then, `isRestoring` is true and `sendMessage` does
   * nothing. If that fails, `retryLastMessage` tries it again. A changed `sessionId` needs a component with another key.
   *
   * @param {StreamOptions & { sessionId?: string, onboarding?: boolean, restore?: boolean }} options
   */
  function useChat({ sessionId, onboarding, restore = false, ...options } = {}) {
    /** @type {[Message[], (change: (messages: Message[]) => Message[]) => void]} */
    const [messages, setMessages] = useState([]);
    const [error, setError] = useState(undefined);
    const [end, setEnd] = useState(undefined);
    const [isStreaming, setStreaming] = useState(false);
    const [isRestoring, setRestoring] = useState(restore && sessionId !== undefined);
    // The number of attempts to restore.
    const [attempt, setAttempt] = useState(0);
    const isBusy = useRef(isRestoring);
    const reader = useReader();
    const session = useRef(sessionId);
    const last = useRef(/** @type {Question | undefined} */ (undefined));
    const latest = useLatest({ onboarding, options });

    // Shows the answer to the last question as it arrives.
    const read = useCallback(async (/** @type {Run} */ run) => {
      const question = last.current.id, answer = randomID();
      setMessages((messages) => {
        const asked = messages.map((message) => message.id === question ? messageOfUser(question, message.content) : message);
        return shown(asked, { id: answer, role: "assistant", content: "", isStreaming: true, status: "waiting" });
      });
      setError(undefined);
      setStreaming(true);
      const end = await reader.read(run, (state) => {
        setMessages((messages) => answered(messages, question, answer, state));
        if (!isRunning(state.status)) setStreaming(false);
        if (state.error) setError(state.error);
      });
      if (!end) return;
      session.current = end.sessionId ?? end.session_id ?? session.current;
      setEnd(end);
    }, [reader]);

    const ask = useCallback(() => {
      const { text, idempotencyKey } = last.current;
      const { onboarding, options } = latest.current;
      return read(onboarding
        ? startOnboarding(text, options)
        : chat(text, { ...options, sessionId: session.current, idempotencyKey }));
    }, [latest, read]);

    const sendMessage = useCallback((/** @type {string} */ text) => {
      if (reader.isReading || isBusy.current) return;
      last.current = { id: randomID(), text, idempotencyKey: randomID() };
      setMessages((messages) => shown(messages, messageOfUser(last.current.id, text)));
      return ask();
    }, [reader, ask]);

    const retryLastMessage = useCallback(() => {
      if (reader.isReading || isBusy.current) return;
      if (!last.current) return setAttempt((/** @type {number} */ attempt) => attempt + 1);
      setMessages((messages) => {
        const answer = messages[messages.length - 1];
        return answer?.role === "assistant" && answer.status !== "done" ? messages.slice(0, -1) : messages;
      });
      return ask();
    }, [reader, ask]);

    useEffect(() => {
      if (!restore || !session.current) return;
      const abort = new AbortController();
      /** @param {boolean} value */
      const setBusy = (value) => {
        isBusy.current = value;
        setRestoring(value);
      };
      setBusy(true);
      setError(undefined);
      const options = { ...latest.current.options, signal: abort.signal };
      readConversation(session.current, options).then(({ messages, prompt, run }) => {
        if (abort.signal.aborted) return;
        setMessages(() => messages);
        setBusy(false);
        if (prompt === undefined) return run.close();
        last.current = { id: randomID(), text: prompt, idempotencyKey: randomID() };
        setMessages((messages) => shown(messages, messageOfUser(last.current.id, prompt)));
        return read(run);
      }).catch((error) => {
        if (abort.signal.aborted) return;
        setBusy(false);
        setError(error);
      });
      return () => abort.abort();
    }, [attempt, latest, read]);

    const stop = useCallback(() => reader.run?.stop(), [reader]);
    return { messages, isStreaming, isRestoring, error, end, sendMessage, stop, retryLastMessage };
  }

  /**
   * Returns a reference to the latest value, so that functions that use it stay the same.
   *
   * @template Value
   * @param {Value} value
   * @returns {{ current: Value }}
   */
  function useLatest(value) {
    const latest = useRef(value);
    latest.current = value;
    return latest;
  }

  return { useStream, useChat, useAIStreaming, useAIBlockStreaming, useReport };
}

/**
 * What has been received of a run.
 *
 * @typedef {object} State
 * @property {string} text
 * @property {Status} status
 * @property {number | undefined} seq
 * @property {Error | undefined} error
 * @property {Terminal | undefined} end
 */

/** @type {State} */
const idle = { text: "", status: "idle", seq: undefined, error: undefined, end: undefined };

/**
 * Returns the messages that are shown after another one.
 *
 * @param {Message[]} messages
 * @param {Message} message
 */
const shown = (messages, message) => [...messages, message].slice(-maximumMessages);

/** @typedef {{ id: string, text: string, idempotencyKey: string }} Question */

/**
 * @param {string} id
 * @param {string} content
 * @returns {Message}
 */
const messageOfUser = (id, content) => ({ id, role: "user", content, isStreaming: false, status: "done" });

/**
 * Returns the stored messages of a session and, if an answer is being streamed, its run and the message that it answers.
 *
 * @param {string} sessionId
 * @param {StreamOptions} options
 * @returns {Promise<{ messages: Message[], prompt: string | undefined, run: Run }>}
 */
async function readConversation(sessionId, options) {
  // Requested first: an answer that is completed in the meantime is then among the turns. This dialect contains the user's
  // message, which is not stored before the answer is complete.
  const run = running(sessionId, { ...options, dialect: "deltas" });
  /** @type {string | undefined} */
  const prompt = await new Promise((resolve) => {
    run.onPrompt = resolve;
    run.done.catch(() => {}).finally(() => resolve(undefined));
  });
  const query = { limit: maximumMessages / 2 };
  const { turns } = await request(`/api/sessions/${encodeURIComponent(sessionId)}`, { ...options, query })
    .catch((error) => {
      // A session without a complete turn does not exist yet.
      if (error.status === 404) return { turns: [] };
      run.close();
      throw error;
    });
  /** @type {Message[]} */
  const messages = turns.flatMap((/** @type {any} */ { id, user, assistant }) => [
    messageOfUser(`${id}-user`, user.content),
    {
      id, role: "assistant", content: assistant.content + (assistant.refusal ?? ""), isStreaming: false, status: "done",
      finishReason: assistant.finishReason, isRefusal: Boolean(assistant.refusal),
    },
  ]);
  return { messages, prompt: turns.some((/** @type {any} */ { id }) => id === run.id) ? undefined : prompt, run };
}

/**
 * Returns whether an answer is on its way.
 *
 * @param {Status} status
 */
export const isRunning = (status) => status === "waiting" || status === "streaming";

/**
 * Returns the messages with what has been received of an answer. A failed answer without text is taken away.
 *
 * @param {Message[]} messages
 * @param {string} question the id of the message that it answers
 * @param {string} answer the id of the answer
 * @param {State} state
 * @returns {Message[]}
 */
function answered(messages, question, answer, state) {
  const { text, status, error, end } = state;
  const isMissing = status === "failed" && text === "";
  return messages.flatMap((message) => {
    if (message.id === question && isMissing) return [{ ...message, status, error }];
    if (message.id !== answer) return [message];
    if (isMissing) return [];
    const isRefusal = Boolean(end?.refusal);
    return [{
      ...message, content: text, isStreaming: isRunning(status), status, finishReason: end?.finishReason, isRefusal, error,
    }];
  });
}

/** Reads one run after the other, and shows what arrives once per animation frame. */
class RunReader {
  /** @type {Run | undefined} */
  run;

  /** Whether a run is being read. */
  get isReading() { return this.run !== undefined; }

  /** Leaves the current run. */
  leave() {
    this.run?.close();
    this.run = undefined;
  }

  /**
   * Reads a run, instead of the current one.
   *
   * @param {Run} run
   * @param {(state: State) => void} show called at once, at most once per animation frame, and at the end
   * @returns {Promise<Terminal | undefined>} the terminal record; undefined if the run failed or was left
   */
  async read(run, show) {
    this.leave();
    this.run = run;
    let text = "", frame = 0;
    show({ ...idle, status: "waiting" });
    run.onToken = (piece) => {
      text += piece;
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        if (this.run === run) show({ ...idle, status: "streaming", text, seq: run.seq });
      });
    };
    /** @type {Terminal | undefined} */
    let end;
    /** @type {Error | undefined} */
    let error;
    try {
      end = await run.done;
    } catch (failure) {
      error = failure instanceof Error ? failure : new SluiceError("internal", String(failure));
    }
    cancelAnimationFrame(frame);
    // Another run has taken its place, or the component is gone.
    if (this.run !== run) return undefined;
    this.run = undefined;
    const status = error ? "failed" : end?.type === "cancelled" ? "cancelled" : "done";
    show({ text, status, seq: end?.seq ?? run.seq, error, end });
    return end;
  }
}
