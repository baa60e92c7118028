// Streams of Sluice in a web page. No dependency, no build step.
//
//     const run = chat("Hello", { token });
//     for await (const text of run) answer.append(text);
//     const { sessionId } = await run.done;
//
// A stream that ends without a terminal record has failed, even if its connection closed cleanly: a web server reports a
// complete response when its backend is killed. A lost connection is resumed where the server allows it (SLUICE_RESUME).

/**
 * Options of a stream.
 *
 * @typedef {object} StreamOptions
 * @property {string} [method] POST if there is a body, else GET
 * @property {Record<string, any>} [body] sent as JSON
 * @property {Record<string, string | number | undefined>} [query]
 * @property {string} [token] the bearer token
 * @property {string} [dialect] another dialect than the endpoint's own
 * @property {AbortSignal} [signal] aborts the run: `done` rejects with the signal's reason
 * @property {string} [idempotencyKey] of a POST; random unless given
 * @property {"http" | "websocket" | "eventsource"} [transport] a WebSocket falls back to HTTP if it cannot be opened; an
 *   EventSource is for GET only, and continues by itself
 * @property {number} [timeout] the seconds without a byte after which a connection is lost (default 45); more than two
 *   heartbeats of the server. Not over a WebSocket or an EventSource, whose heartbeats a page cannot see
 */

/** @typedef {{ type: string, [member: string]: any }} Terminal the terminal record, of which `type` says how it ended */

/** The reason why a stream failed. */
export class SluiceError extends Error {
  /**
   * @param {string} code the server's code, or `connection_lost`
   * @param {string} message
   * @param {{ retriable?: boolean, retryAfter?: number, status?: number }} more `retryAfter` is in seconds
   */
  constructor(code, message, { retriable = false, retryAfter, status } = {}) {
    super(message);
    this.name = "SluiceError";
    this.code = code;
    this.retriable = retriable;
    this.retryAfter = retryAfter;
    this.status = status;
  }
}

/**
 * Starts a stream.
 *
 * @param {string} path a path, or a URL
 * @param {StreamOptions} [options]
 */
export function stream(path, options = {}) {
  return new Run(path, options);
}

/**
 * Sends a chat message. `sessionId` continues a conversation; the terminal record has the id of a new one.
 *
 * @param {string} message
 * @param {StreamOptions & { sessionId?: string, url?: string }} options
 */
export function chat(message, { sessionId, url = "/api/chat", ...options } = {}) {
  return stream(url, { ...options, body: { message, ...(sessionId && { sessionId }) } });
}

/**
 * Asks for a report. The terminal record has it as `report` and, if it is saved, its `reportId`.
 *
 * @param {string} input
 * @param {StreamOptions & { title?: string, save?: boolean }} options
 */
export function report(input, { title, save, ...options } = {}) {
  return stream("/api/ai/stream-report", { ...options, body: { input, ...(title && { title }), ...(save && { save }) } });
}

/**
 * Sends an input to a block.
 *
 * @param {string} type such as `quiz`
 * @param {string} input
 * @param {StreamOptions} [options]
 */
export function block(type, input, options = {}) {
  return stream(`/api/stream/ai-block/${encodeURIComponent(type)}`, { ...options, body: { input } });
}

/**
 * Answers the current step of the onboarding. The terminal record has `step`, `steps` and `finished`.
 *
 * @param {string} message
 * @param {StreamOptions} [options]
 */
export function onboarding(message, options = {}) {
  return stream("/chat/onboarding-stream", { ...options, query: { message } });
}

/**
 * Reads the running stream of a session from its start. Without one, `done` resolves with {type: "none"}.
 *
 * @param {string} sessionId
 * @param {StreamOptions} [options]
 */
export function running(sessionId, options = {}) {
  return stream(`/api/sessions/${encodeURIComponent(sessionId)}/stream`, options);
}

/**
 * Stores a report, and returns its id.
 *
 * @param {object} report
 * @param {StreamOptions & { title?: string, url?: string }} options
 * @returns {Promise<string>}
 */
export async function saveReport(report, { title, url = "/api/reports", ...options } = {}) {
  return (await request(url, { ...options, body: { report, ...(title && { title }) } })).id;
}

/**
 * Requests an endpoint that does not stream, such as `/api/sessions`, and returns its JSON; undefined if it has none.
 *
 * @param {string} path
 * @param {Pick<StreamOptions, "method" | "body" | "query" | "token" | "signal">} options
 * @returns {Promise<any>}
 */
export async function request(path, { method, body, query = {}, token, signal } = {}) {
  const url = withQuery(new URL(path, location.href), query);
  const response = await fetch(url, {
    method: method ?? (body ? "POST" : "GET"),
    headers: {
      ...(token && { Authorization: `Bearer ${token}` }),
      ...(body && { "Content-Type": "application/json" }),
    },
    ...(body && { body: JSON.stringify(body) }),
    signal,
  }).catch((error) => { throw signal?.aborted ? signal.reason : lost(error); });
  if (!response.ok) throw await refusal(response);
  return response.status === 204 ? undefined : await response.json().catch((error) => { throw lost(error); });
}

/**
 * @param {URL} url
 * @param {Record<string, string | number | undefined>} query
 */
function withQuery(url, query) {
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) url.searchParams.set(name, String(value));
  }
  return url;
}

/** Returns a random id, for a session or a key. */
export function randomID() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const maximumResumptions = 5;
const maximumRepetitions = 3;
const maximumStops = 6;

/** The endpoints that respond with JSON instead, by the path of the one that streams. */
const twins = new Map([
  ["/stream/", "/messages/"],
  ["/chat/stream", "/chat/message"],
  ["/api/ai/stream-report", "/api/ai/report"],
]);

class Run {
  /**
   * The stream's id, once it is open.
   *
   * @type {string | undefined}
   */
  id;
  /**
   * The number of the last piece, in the dialect `chunks`.
   *
   * @type {number | undefined}
   */
  seq;
  /**
   * Called with the stream's id once it is open.
   *
   * @type {((id: string) => void) | undefined}
   */
  onOpen;
  /**
   * Called with the user's message, which the dialect `deltas` contains.
   *
   * @type {((message: string) => void) | undefined}
   */
  onPrompt;
  /**
   * Called with each piece of the model's reasoning, which only some dialects contain.
   *
   * @type {((text: string) => void) | undefined}
   */
  onReasoning;
  /**
   * The terminal record: `type` is `done` or `cancelled`, or `closed` after close(). Rejects with a SluiceError, or with the
   * reason of an aborted signal. A refusal of the model has its text as `refusal` too, and the tools that it calls are
   * `toolCalls`.
   *
   * @type {Promise<Terminal>}
   */
  done;

  /** @type {URL} */
  #url;
  /** @type {StreamOptions} */
  #options;
  /** @type {string | undefined} */
  #key;
  #abort = new AbortController();
  /**
   * The current WebSocket; null if none could be opened.
   *
   * @type {WebSocket | null | undefined}
   */
  #socket;
  /** Whether a piece of text has been received. */
  #hasText = false;
  /**
   * The number of the last record with an id, from which the stream can be continued.
   *
   * @type {number | undefined}
   */
  #position;
  /** The lengths of what has been received and, after a resumption from the start, of what comes once more. */
  #received = { text: 0, reasoning: 0 };
  #repeated = { text: 0, reasoning: 0 };
  /** The number of failures since the last piece of text. */
  #failures = 0;
  #isStopping = false;
  #isClosed = false;
  /**
   * The members of the terminal record that came before it.
   *
   * @type {Record<string, any>}
   */
  #members = {};
  /**
   * The calls of tools that arrive in deltas, by their index.
   *
   * @type {Map<number, any>}
   */
  #calls = new Map();
  /** @type {((text: string) => void) | undefined} */
  #onToken;
  /**
   * The pieces of text that have not been taken.
   *
   * @type {string[]}
   */
  #queue = [];
  /** @type {(() => void) | undefined} */
  #wake;
  #isOver = false;

  /**
   * @param {string} path
   * @param {StreamOptions} options
   */
  constructor(path, options) {
    this.#url = new URL(path, location.href);
    this.#options = options;
    this.#key = options.body ? options.idempotencyKey ?? randomID() : undefined;
    const leave = () => this.#leave();
    options.signal?.addEventListener("abort", leave);
    if (options.signal?.aborted) leave();
    this.done = this.#run().finally(() => {
      this.#isOver = true;
      this.#wake?.();
      options.signal?.removeEventListener("abort", leave);
      // Also when the page's own function has failed.
      leave();
    });
    // An iteration receives the failure too.
    this.done.catch(() => {});
  }

  /** Called with each piece of text, first with those that have arrived already; instead of an iteration. */
  set onToken(/** @type {((text: string) => void) | undefined} */ receive) {
    this.#onToken = receive;
    for (let text; receive && (text = this.#queue.shift()) !== undefined;) receive(text);
  }

  get onToken() { return this.#onToken; }

  /** Asks the server to stop the stream, which then ends with the record `cancelled`. */
  stop() {
    if (this.#isStopping || this.#isOver) return;
    this.#isStopping = true;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type: "stop", id: "a" }));
    else this.#requestStop();
  }

  /** Leaves the stream without stopping it. Without SLUICE_RESUME the server stops it then. */
  close() {
    this.#isClosed = true;
    this.#leave();
  }

  /** The pieces of text, in order. Throws what `done` rejects with. */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      for (let text; (text = this.#queue.shift()) !== undefined;) yield text;
      if (this.#isOver) break;
      await new Promise((resolve) => { this.#wake = () => resolve(undefined); });
    }
    await this.done;
  }

  #leave() {
    this.#abort.abort();
    this.#socket?.close();
  }

  // MARK: Attempts

  /**
   * Reads until the terminal record, over as many connections as that takes.
   *
   * @returns {Promise<Terminal>}
   */
  async #run() {
    for (;;) {
      try {
        if (this.#abort.signal.aborted) throw lost();
        return await this.#attempt();
      } catch (error) {
        if (this.#isClosed) return { type: "closed" };
        if (this.#isStopping) return { type: "cancelled" };
        if (this.#options.signal?.aborted) throw this.#options.signal.reason;
        if (!(error instanceof SluiceError)) throw error;
        if (error.code === "streaming_disabled" || this.#isUnusable(error)) {
          const twin = this.#twin(error);
          if (twin) return await this.#readTwin(twin);
        }
        if (!this.#canRetry(error)) throw error;
        await pause(error.retryAfter ? error.retryAfter * 1000 : 250 * 2 ** (this.#failures - 1), this.#abort.signal);
      }
    }
  }

  /** @returns {Promise<Terminal>} */
  #attempt() {
    switch (this.#options.transport) {
      case "websocket": return this.#socket === null ? this.#readResponse() : this.#readSocket();
      case "eventsource": return this.#readSource();
      default: return this.#readResponse();
    }
  }

  /**
   * Returns whether the stream can be continued or, as long as nothing has been received, requested again with the same
   * key.
   *
   * @param {SluiceError} error
   */
  #canRetry(error) {
    const isLost = error.code === "connection_lost";
    const isRunning = error.code === "conflict" && this.#failures > 0;
    if (!isLost && !isRunning) return false;
    this.#failures += 1;
    if (this.id) return this.#failures <= maximumResumptions;
    return this.#key !== undefined && this.#failures <= maximumRepetitions;
  }

  /** Handles a 404 for a stream that the server has forgotten or never kept. */
  #forgotten() {
    // Before the first text it can be requested again.
    if (!this.#hasText && this.#key) this.id = undefined;
    else this.#failures = maximumResumptions;
    return lost();
  }

  /**
   * Handles one record. Returns the terminal record if it is one.
   *
   * @param {string} type
   * @param {any} value
   * @returns {Terminal | undefined}
   */
  #take(type, value) {
    const { seq, prompt, members, refusal, toolCalls = [], end, error, ...pieces } = interpret(type, value);
    if (seq !== undefined) this.seq = seq;
    if (members) Object.assign(this.#members, members);
    if (prompt !== undefined) this.onPrompt?.(prompt);
    for (const { index, id = "", name = "", arguments: text = "" } of toolCalls) {
      /** @type {any[]} */
      const calls = (this.#members.toolCalls ??= []);
      let call = index === undefined ? undefined : this.#calls.get(index);
      if (!call) calls.push(call = { id, name, arguments: "" });
      if (index !== undefined) this.#calls.set(index, call);
      call.arguments += text;
    }
    const reasoning = this.#unseen("reasoning", pieces.reasoning);
    if (reasoning) this.onReasoning?.(reasoning);
    const text = this.#unseen("text", pieces.text);
    if (text && refusal) this.#members.refusal = (this.#members.refusal ?? "") + text;
    if (text) {
      this.#hasText = true;
      this.#failures = 0;
      if (this.#onToken) this.#onToken(text);
      else this.#queue.push(text);
      this.#wake?.();
    }
    if (error) throw failure(error);
    return end && { ...this.#members, ...end };
  }

  /**
   * Returns the part of a piece that has not been received before.
   *
   * @param {"text" | "reasoning"} kind
   * @param {string} [piece]
   */
  #unseen(kind, piece = "") {
    const isRepeated = Math.min(piece.length, this.#repeated[kind]);
    this.#repeated[kind] -= isRepeated;
    this.#received[kind] += piece.length - isRepeated;
    return piece.slice(isRepeated);
  }

  /** Returns the number of deltas after which to continue: all, or none where the records have no ids. */
  #resume() {
    this.#repeated = this.#position === undefined ? { ...this.#received } : { text: 0, reasoning: 0 };
    if (this.#position === undefined) {
      delete this.#members.toolCalls;
      this.#calls.clear();
    }
    return this.#position ?? 0;
  }

  /** @param {string} id */
  #didOpen(id) {
    this.id = id;
    this.onOpen?.(id);
  }

  /**
   * Stops the stream, by its id or, before that is known, by the key of its request. If the server does not know either,
   * leaving it is all that is left.
   */
  async #requestStop() {
    for (let tries = 0; tries < maximumStops && (this.id || this.#key); tries += 1) {
      if (tries > 0) await pause(100 * 2 ** tries, this.#abort.signal);
      if (this.#isOver) return;
      const url = this.#at(`/api/streams/${this.id || this.#key}`);
      const response = await fetch(url, { method: "DELETE", headers: this.#headers() }).catch(() => undefined);
      if (response?.ok) return;
    }
    this.#leave();
  }

  /**
   * Returns the URL of a path on the same server.
   *
   * @param {string} path
   * @param {Record<string, string | number | undefined>} [query]
   */
  #at(path, query = {}) {
    return withQuery(new URL(path, this.#url), query);
  }

  // MARK: HTTP

  /** @returns {Record<string, string>} */
  #headers() {
    return this.#options.token ? { Authorization: `Bearer ${this.#options.token}` } : {};
  }

  /**
   * @param {URL} url
   * @param {Record<string, any>} [body]
   * @param {string} [key]
   * @param {AbortSignal} [signal]
   */
  #fetch(url, body, key, signal = this.#abort.signal) {
    return fetch(url, {
      method: this.#options.method ?? (body ? "POST" : "GET"),
      headers: {
        ...this.#headers(),
        ...(body && { "Content-Type": "application/json" }),
        ...(key && { "Idempotency-Key": key }),
      },
      ...(body && { body: JSON.stringify(body) }),
      signal,
    }).catch((error) => { throw lost(error); });
  }

  /** @returns {Promise<Terminal>} */
  async #readResponse() {
    const silence = new Silence((this.#options.timeout ?? 45) * 1000, this.#abort.signal);
    try {
      return await this.#readRecords(silence);
    } catch (error) {
      throw silence.isOver ? lost() : error;
    } finally {
      silence.end();
    }
  }

  /**
   * @param {Silence} silence ends the connection when nothing arrives any more
   * @returns {Promise<Terminal>}
   */
  async #readRecords(silence) {
    const { body, query, dialect } = this.#options;
    const isResumption = this.id !== undefined;
    // The head of a first response can take long: where streaming is disabled, it comes with all of the answer.
    if (isResumption) silence.begin();
    const url = isResumption
      ? this.#at(`/api/streams/${this.id}`, { after: this.#resume(), dialect })
      : this.#at(this.#url.href, { ...query, dialect });
    const response = isResumption
      ? await this.#fetch(url, undefined, undefined, silence.signal)
      : await this.#fetch(url, body, this.#key, silence.signal);
    if (response.status === 204) return { type: "none" };
    if (isResumption && response.status === 404) throw this.#forgotten();
    if (!response.ok) throw await refusal(response);
    if (response.headers.get("Content-Type")?.startsWith("application/json")) return this.#readJSON(response);
    if (!isResumption) this.#didOpen(response.headers.get("Sluice-Stream-Id") ?? "");
    silence.begin();
    const records = events(response.body ? silence.watch(response.body) : await response.text());
    for (;;) {
      const { value, done } = await records.next().catch((error) => { throw lost(error); });
      if (done) throw lost();
      const position = Number(value.id.split(".")[1]);
      if (position >= 0) this.#position = position;
      const end = this.#take(value.type, parse(value.data));
      if (end) {
        records.return(undefined).catch(() => {});
        return end;
      }
    }
  }

  // MARK: Without streaming

  /**
   * Returns whether the stream has failed before its first text, and again when it was requested again.
   *
   * @param {SluiceError} error
   */
  #isUnusable(error) {
    // A stream that is open can be running still.
    return error.code === "connection_lost" && this.id === undefined && this.#failures >= maximumRepetitions;
  }

  /**
   * Returns the request that gets the same response as JSON.
   *
   * @param {SluiceError & { alternate?: string }} error
   */
  #twin(error) {
    const path = error.alternate ?? twins.get(this.#url.pathname);
    const body = { ...this.#options.query, ...this.#options.body };
    if (path) return { url: this.#at(path), body };
    const isSame = ["/api/chat", "/v1/chat/completions"].includes(this.#url.pathname);
    return isSame && error.code === "connection_lost" ? { url: this.#url, body: { ...body, stream: false } } : undefined;
  }

  /**
   * @param {{ url: URL, body: Record<string, any> }} twin
   * @returns {Promise<Terminal>}
   */
  async #readTwin({ url, body }) {
    // Another request has another key.
    this.#key = `${this.#key ?? randomID()}-json`;
    const response = await this.#fetch(url, body, this.#key);
    if (!response.ok) throw await refusal(response);
    return this.#readJSON(response);
  }

  /**
   * @param {Response} response
   * @returns {Promise<Terminal>}
   */
  async #readJSON(response) {
    const answer = await response.json().catch((error) => { throw lost(error); });
    const { message, content, choices, finish_reason, ...members } = answer;
    const { content: text, refusal, tool_calls } = choices?.[0]?.message ?? {};
    const all = { ...(refusal && { refusal }), ...(tool_calls && { toolCalls: tool_calls.map(flat) }), ...members };
    this.#take("token", { t: message ?? content ?? text ?? (members.report ? JSON.stringify(members.report) : "") });
    if (all.refusal) this.#take("token", { t: all.refusal });
    const finishReason = finish_reason ?? choices?.[0]?.finish_reason;
    return camelCased({ ...(finishReason && { finishReason }), ...all, type: "done" });
  }

  // MARK: WebSocket

  /** @returns {Promise<Terminal>} */
  #readSocket() {
    const { body, query, dialect, token } = this.#options;
    const url = this.#at(this.#url.href, { dialect });
    url.pathname = "/ws" + url.pathname;
    url.protocol = url.protocol.replace("http", "ws");
    const isSubprotocol = token && /^[\w!#$%&'*+.^`|~-]+$/.test(token);
    if (token && !isSubprotocol) url.searchParams.set("token", token);
    const socket = new WebSocket(url, isSubprotocol ? ["sluice.v1", `bearer.${token}`] : ["sluice.v1"]);
    this.#socket = socket;
    const start = this.id
      ? { type: "resume", id: "a", stream: this.id, after: this.#resume() }
      : { type: "start", id: "a", ...(body ? { body, idempotencyKey: this.#key } : { query: query ?? {} }) };
    return new Promise((resolve, reject) => {
      let isOpen = false;
      /** @param {() => void} settle */
      const finish = (settle) => {
        socket.onclose = socket.onmessage = null;
        socket.close();
        settle();
      };
      // A stream of a process that a newer one has replaced is reached by HTTP only.
      const readOverHTTP = () => {
        this.#socket = null;
        this.#readResponse().then(resolve, reject);
      };
      socket.onopen = () => {
        isOpen = true;
        socket.send(JSON.stringify(start));
        if (this.#isStopping) socket.send(JSON.stringify({ type: "stop", id: "a" }));
      };
      socket.onmessage = ({ data }) => {
        try {
          const message = JSON.parse(data);
          if (message.status === 404 && start.type === "resume") return finish(readOverHTTP);
          if (message.status) throw failure(message.data, message.status, message.retryAfter);
          if (message.event === "open") {
            if (!this.id) this.#didOpen(message.stream);
            return;
          }
          const end = this.#take(message.event ?? "message", message.data);
          if (end) finish(() => resolve(end));
        } catch (error) {
          finish(() => reject(error));
        }
      };
      socket.onclose = () => {
        if (isOpen || this.#abort.signal.aborted) return reject(lost());
        // A browser does not say why a handshake was refused: HTTP does.
        readOverHTTP();
      };
    });
  }

  // MARK: EventSource

  /** @returns {Promise<Terminal>} */
  #readSource() {
    const { query, dialect, token } = this.#options;
    const source = new EventSource(this.#at(this.#url.href, { ...query, dialect, token }));
    return new Promise((resolve, reject) => {
      /** @param {() => void} settle */
      const finish = (settle) => {
        // Otherwise it would reconnect, although the stream is complete.
        source.close();
        settle();
      };
      /** @param {Event} event */
      const receive = (event) => {
        if (!(event instanceof MessageEvent)) {
          // The browser reconnects by itself, unless the server has refused.
          if (source.readyState === EventSource.CLOSED) finish(() => reject(lost()));
          return;
        }
        try {
          if (!this.id && event.lastEventId) this.#didOpen(event.lastEventId.split(".")[0]);
          const end = this.#take(event.type, parse(event.data));
          if (end) finish(() => resolve(end));
        } catch (error) {
          finish(() => reject(error));
        }
      };
      for (const type of ["message", "token", "reasoning", "chunk", "done", "complete", "cancelled", "error"]) {
        source.addEventListener(type, receive);
      }
      if (this.#abort.signal.aborted) finish(() => reject(lost()));
      this.#abort.signal.addEventListener("abort", () => finish(() => reject(lost())), { once: true });
    });
  }
}

// MARK: Records

/**
 * Returns what a record of any dialect means.
 *
 * @param {string} type
 * @param {any} value
 * @returns {{ text?: string, refusal?: boolean, reasoning?: string, seq?: number, prompt?: string, members?: object,
 *   toolCalls?: ToolCall[], end?: Terminal, error?: any }} `members` are those of the terminal record that come before it;
 *   `refusal` marks a text, and `toolCalls` are calls or deltas of them, that the terminal record does not repeat
 */
function interpret(type, value) {
  if (value === "[DONE]") return { end: { type: "done" } };
  switch (type) {
    case "token": return { text: value.t };
    case "reasoning": return { reasoning: value.t };
    case "tool_call": case "source": return {};
    case "chunk": return { text: value.token, seq: value.seq };
    case "done": case "complete": return { end: { ...value, type: "done" } };
    case "cancelled": return { end: { ...value, type: "cancelled" } };
    case "error": return { error: value };
    case "heartbeat": return {};
  }
  if (value.error) return value.error.code === "cancelled" ? { end: { type: "cancelled" } } : { error: value.error };
  if (value.choices) {
    const [choice] = value.choices;
    // Other choices are other answers.
    const delta = choice?.index === 0 ? choice.delta ?? {} : {};
    return {
      // Some servers send an array of parts.
      text: typeof delta.content === "string" ? delta.content : delta.refusal ?? "",
      refusal: Boolean(delta.refusal),
      reasoning: delta.reasoning_content ?? delta.reasoning ?? "",
      toolCalls: delta.tool_calls?.map(flat),
      members: {
        ...(choice?.index === 0 && choice.finish_reason && { finishReason: choice.finish_reason }),
        ...(value.usage && { usage: value.usage }),
      },
    };
  }
  if (value.tool_calls && value.role) return { members: { toolCalls: value.tool_calls } };
  if (value.role) return value.role === "user" ? { prompt: value.delta } : { text: value.delta, refusal: value.refusal };
  const { type: kind, ...members } = value;
  switch (kind) {
    case "chunk": return { text: value.content };
    case "text-delta": return { text: value.delta, refusal: value.id === "refusal" };
    case "reasoning-delta": return { reasoning: value.delta };
    case "tool-input-available": case "tool-input-error": {
      const text = kind === "tool-input-error" ? value.input : JSON.stringify(value.input);
      return { toolCalls: [{ id: value.toolCallId, name: value.toolName, arguments: text }] };
    }
    case "complete": {
      const { finish_reason: finishReason, ...others } = members;
      return { end: camelCased({ ...others, ...(finishReason && { finishReason }), type: "done" }) };
    }
    case "cancelled": case "abort": return { end: { ...members, type: "cancelled" } };
    case "error": return { error: value.errorText ? { code: "stream_error", message: value.errorText } : members };
    case "message-metadata": return { members: value.messageMetadata };
    case "finish": return { members };
    default: return {};
  }
}

/**
 * Returns a terminal record whose calls of tools have the same name in every dialect.
 *
 * @param {Terminal} end
 * @returns {Terminal}
 */
const camelCased = ({ tool_calls: toolCalls, ...others }) => ({ ...others, ...(toolCalls && { toolCalls }) });

/**
 * A call of a tool, or a delta of one, whose `index` says which.
 *
 * @typedef {{ index?: number, id?: string, name?: string, arguments?: string }} ToolCall
 */

/**
 * Returns a call of OpenAI's API in the form of the other dialects.
 *
 * @param {{ index?: number, id?: string, function?: { name?: string, arguments?: string } }} call
 * @returns {ToolCall}
 */
const flat = ({ index, id, function: called }) => ({
  ...(index !== undefined && { index }), id, name: called?.name, arguments: called?.arguments,
});

/** @param {string} data */
const parse = (data) => (data === "[DONE]" ? data : JSON.parse(data));

// MARK: Failures

/** @param {unknown} [error] the cause */
function lost(error) {
  if (error instanceof SluiceError) return error;
  return new SluiceError("connection_lost", "The connection was lost before the answer was complete.", { retriable: true });
}

/**
 * Returns the error of a response that is none of the server's streams.
 *
 * @param {Response} response
 */
async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  // The web server's own page: its backend is restarting, for example.
  if (response.status >= 502 && (!error || error.code === "unavailable")) return lost();
  const link = response.headers.get("Link")?.match(/<([^>]*)>; rel="alternate"/)?.[1];
  const found = failure(
    error ?? { message: `The server responded with status ${response.status}.` }, response.status,
    Number(response.headers.get("Retry-After")) || undefined);
  return Object.assign(found, link && { alternate: link });
}

/**
 * @param {{ code?: string | null, message?: string, retriable?: boolean }} error
 * @param {number} [status]
 * @param {number} [retryAfter]
 */
function failure({ code, message = "", retriable = false }, status, retryAfter) {
  return new SluiceError(code ?? "internal", message, { retriable, retryAfter, status });
}

/**
 * @param {number} time in milliseconds
 * @param {AbortSignal} signal ends the pause
 */
const pause = (time, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, time);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    resolve(undefined);
  }, { once: true });
});

/** Aborts a request when no byte of its response has arrived for some time, or with another signal. */
class Silence {
  #abort = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** Whether it has aborted the request. */
  isOver = false;

  /**
   * @param {number} limit in milliseconds
   * @param {AbortSignal} outer
   */
  constructor(limit, outer) {
    this.limit = limit;
    outer.addEventListener("abort", () => this.#abort.abort(), { signal: this.#abort.signal });
    if (outer.aborted) this.#abort.abort();
  }

  get signal() { return this.#abort.signal; }

  /** Counts from now on. */
  begin() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.isOver = true;
      this.#abort.abort();
    }, this.limit);
  }

  /** Ends the request too. */
  end() {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }

  /**
   * Returns a body that counts again from each of its bytes, those of heartbeats too.
   *
   * @param {ReadableStream<Uint8Array>} body
   * @returns {ReadableStream<Uint8Array>}
   */
  watch(body) {
    return body.pipeThrough(new TransformStream({
      transform: (chunk, controller) => {
        this.begin();
        controller.enqueue(chunk);
      },
    }));
  }
}

// MARK: Server-Sent Events

/**
 * Yields the events of a body (WHATWG HTML, 9.2.6). `id` is the last one seen.
 *
 * @param {ReadableStream<Uint8Array> | string} readable
 * @returns {AsyncGenerator<{ type: string, data: string, id: string }, void, void>}
 */
export async function* events(readable) {
  const parser = new EventParser();
  if (typeof readable === "string") return yield* parser.read(readable.replace(/^\uFEFF/, ""));
  const reader = readable.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.read(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Reads events from text that arrives in parts. */
class EventParser {
  /**
   * The parts of a line that is not complete.
   *
   * @type {string[]}
   */
  #line = [];
  #type = "";
  /** @type {string[]} */
  #data = [];
  #id = "";
  /** Whether the last part ended with a CR, which can be half of a CRLF. */
  #isAfterCR = false;

  /** @param {string} text */
  *read(text) {
    if (text === "") return;
    let start = this.#isAfterCR && text[0] === "\n" ? 1 : 0;
    this.#isAfterCR = false;
    const lineEnd = /\r\n?|\n/g;
    lineEnd.lastIndex = start;
    for (let found; (found = lineEnd.exec(text)); start = lineEnd.lastIndex) {
      this.#isAfterCR = found[0] === "\r" && lineEnd.lastIndex === text.length;
      this.#line.push(text.slice(start, found.index));
      const line = this.#line.join("");
      this.#line = [];
      if (line !== "") this.#readField(line);
      else if (this.#data.length) yield { type: this.#type || "message", data: this.#data.join("\n"), id: this.#id };
      if (line === "") [this.#type, this.#data] = ["", []];
    }
    if (start < text.length) this.#line.push(text.slice(start));
  }

  /** @param {string} line */
  #readField(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#type = value;
    else if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }
}
