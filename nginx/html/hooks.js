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

import { SluiceError, block, chat, onboarding as startOnboarding, randomID, report, saveReport, stream } from "./sluice.js";

/** @typedef {import("./sluice.js").StreamOptions} StreamOptions */
/** @typedef {import("./sluice.js").Terminal} Terminal */
/** @typedef {ReturnType<typeof stream>} Run */
/** @typedef {"idle" | "waiting" | "streaming" | "done" | "cancelled" | "failed"} Status `waiting` until the first text */

/**
 * A message of a conversation. `id` is for the page alone.
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {"user" | "assistant"} role
 * @property {string} content
 * @property {boolean} isStreaming
 * @property {Exclude<Status, "idle">} status
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
   * Streams from a block. `seq` is the number of the last piece, from 0, or at the end the number of pieces.
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
    const { text, seq, status, error } = state;
    return { text, seq, status, error, start, stop };
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
    const latest = useLatest({ options, report: state.end?.report });
    const start = useCallback((/** @type {string} */ text) => {
      input.current = text;
      setSaved({});
      return startRun(() => report(text, latest.current.options));
    }, [startRun, latest]);
    const retry = useCallback(() => (input.current === undefined ? undefined : start(input.current)), [start]);
    const save = useCallback(async () => {
      const { report, options } = latest.current;
      if (report === undefined) return undefined;
      try {
        const id = await saveReport(report, options);
        setSaved({ id });
        return id;
      } catch (error) {
        setSaved({ error });
        return undefined;
      }
    }, [latest]);
    const { text, status, error, end } = state;
    return {
      text, status, error: error ?? saved.error, report: end?.report, reportId: saved.id ?? end?.reportId, start, stop, save,
      retry,
    };
  }

  /**
   * Holds a conversation. While an answer is streamed, `sendMessage` does nothing. A failed answer is taken away if it has
   * no text, and marked as failed if it has some, until it is requested again.
   *
   * @param {StreamOptions & { sessionId?: string, onboarding?: boolean }} options
   */
  function useChat({ sessionId, onboarding, ...options } = {}) {
    /** @type {[Message[], (change: (messages: Message[]) => Message[]) => void]} */
    const [messages, setMessages] = useState([]);
    const [error, setError] = useState(undefined);
    const [isStreaming, setStreaming] = useState(false);
    const reader = useReader();
    const session = useRef(sessionId);
    const last = useRef(/** @type {{ text: string, idempotencyKey: string } | undefined} */ (undefined));
    const latest = useLatest({ onboarding, options });

    const ask = useCallback(async () => {
      const { text, idempotencyKey } = last.current;
      const { onboarding, options } = latest.current;
      const id = randomID();
      setMessages((messages) => shown(messages, { id, role: "assistant", content: "", isStreaming: true, status: "waiting" }));
      setError(undefined);
      setStreaming(true);
      const run = onboarding
        ? startOnboarding(text, options)
        : chat(text, { ...options, sessionId: session.current, idempotencyKey });
      const end = await reader.read(run, ({ text, status, error }) => {
        const isOver = status !== "waiting" && status !== "streaming";
        setMessages((messages) => messages.flatMap((message) => {
          if (message.id !== id) return [message];
          if (status === "failed" && text === "") return [];
          return [{ ...message, content: text, isStreaming: !isOver, status: /** @type {any} */ (status) }];
        }));
        if (isOver) setStreaming(false);
        if (error) setError(error);
      });
      session.current = end?.sessionId ?? end?.session_id ?? session.current;
    }, [reader, latest]);

    const sendMessage = useCallback((/** @type {string} */ text) => {
      if (reader.isReading) return;
      last.current = { text, idempotencyKey: randomID() };
      setMessages((messages) =>
        shown(messages, { id: randomID(), role: "user", content: text, isStreaming: false, status: "done" }));
      return ask();
    }, [reader, ask]);

    const retryLastMessage = useCallback(() => {
      if (reader.isReading || !last.current) return;
      setMessages((messages) => {
        const answer = messages[messages.length - 1];
        return answer?.role === "assistant" && answer.status !== "done" ? messages.slice(0, -1) : messages;
      });
      return ask();
    }, [reader, ask]);

    const stop = useCallback(() => reader.run?.stop(), [reader]);
    return { messages, isStreaming, error, sendMessage, stop, retryLastMessage };
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
