// Streams of Sluice in a web page. No dependency, no build step.
//
//     const run = chat("Hello", { token });
//     for await (const text of run) answer.append(text);
//     const { sessionId } = await run.done;
//
// A stream that ends without a terminal record has failed, even if its connection closed cleanly: a web server reports a
// complete response when its backend is killed. A lost connection is resumed where the server allows it (SLUICE_RESUME).

// The reason why a stream failed. `code` is the server's, or `connection_lost`. `retryAfter` is in seconds.
export class SluiceError extends Error {
  constructor(code, message, { retriable = false, retryAfter, status } = {}) {
    super(message);
    this.name = "SluiceError";
    this.code = code;
    this.retriable = retriable;
    this.retryAfter = retryAfter;
    this.status = status;
  }
}

// Starts a stream at `path`, a path or a URL, and returns its run.
//
//     body          the object to POST as JSON; without it the method is GET
//     query         parameters of the query
//     token         the bearer token
//     dialect       another dialect than the endpoint's own
//     signal        an AbortSignal: `done` rejects with its AbortError
//     transport     "websocket": over a WebSocket, if one can be opened; otherwise over HTTP
//     idempotencyKey  of a POST; random unless given
export function stream(path, options = {}) {
  return new Run(path, options);
}

// Sends a chat message. `sessionId` continues a conversation; the terminal record has the id of a new one.
export function chat(message, { sessionId, url = "/api/chat", ...options } = {}) {
  return stream(url, { ...options, body: { message, ...(sessionId && { sessionId }) } });
}

// Reads the running stream of a session from its start. Without one, `done` resolves with {type: "none"}.
export function running(sessionId, options = {}) {
  return stream(`/api/sessions/${encodeURIComponent(sessionId)}/stream`, options);
}

const maximumResumptions = 5;
const maximumRepetitions = 3;

class Run {
  // The stream's id, once it is open.
  id;
  // Called with the stream's id; with the user's message, which the dialect `deltas` contains.
  onOpen;
  onPrompt;
  // The terminal record: {type: "done" | "cancelled", …}. {type: "closed"} after close(). Rejects with a SluiceError.
  done;

  #path;
  #options;
  #key;
  #abort = new AbortController();
  #socket;
  #received = 0;
  #failures = 0;
  #isStopping = false;
  #isClosed = false;
  #end = {};
  #onToken;
  #queue = [];
  #wake;
  #isOver = false;

  constructor(path, options) {
    this.#path = path;
    this.#options = options;
    this.#key = options.body ? options.idempotencyKey ?? randomID() : undefined;
    options.signal?.addEventListener("abort", () => this.#leave(), { once: true });
    if (options.signal?.aborted) this.#abort.abort();
    this.done = this.#run().finally(() => {
      this.#isOver = true;
      this.#wake?.();
    });
    // An iteration receives the failure too.
    this.done.catch(() => {});
  }

  // Called with each piece of text, first with those that have arrived already; instead of an iteration.
  set onToken(receive) {
    this.#onToken = receive;
    while (receive && this.#queue.length) receive(this.#queue.shift());
  }

  // Asks the server to stop the stream, which then ends with the record `cancelled`.
  stop() {
    this.#isStopping = true;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type: "stop", id: "a" }));
    else if (this.id) this.#requestStop();
  }

  // Leaves the stream without stopping it. Without SLUICE_RESUME the server stops it then.
  close() {
    this.#isClosed = true;
    this.#leave();
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.#queue.length) yield this.#queue.shift();
      if (this.#isOver) break;
      await new Promise((resolve) => { this.#wake = resolve; });
    }
    await this.done;
  }

  #leave() {
    this.#abort.abort(this.#options.signal?.reason);
    this.#socket?.close();
  }

  // Reads until the terminal record, over as many connections as that takes.
  async #run() {
    for (;;) {
      try {
        return await this.#attempt();
      } catch (error) {
        if (this.#isClosed) return { type: "closed" };
        if (this.#options.signal?.aborted) throw this.#options.signal.reason;
        if (!this.#canRetry(error)) throw error;
        await pause(error.retryAfter ? error.retryAfter * 1000 : 250 * 2 ** (this.#failures - 1), this.#abort.signal);
      }
    }
  }

  // Whether the stream can be continued or, as long as nothing has been received, requested again with the same key.
  #canRetry(error) {
    const isLost = error.code === "connection_lost";
    const isRunning = error.code === "conflict" && this.#failures > 0;
    if (!isLost && !isRunning) return false;
    this.#failures += 1;
    if (this.id) return this.#failures <= maximumResumptions;
    return this.#key !== undefined && this.#failures <= maximumRepetitions;
  }

  // What the server has forgotten or never kept cannot be resumed. Before the first text it can be requested again.
  #forgotten() {
    if (this.#received === 0 && this.#key) this.id = undefined;
    else this.#failures = maximumResumptions;
    return lost();
  }

  #attempt() {
    if (this.#abort.signal.aborted) throw lost();
    if (this.#options.transport === "websocket" && this.#socket !== null) return this.#readSocket();
    return this.#readResponse();
  }

  // Handles one record. Returns the terminal record if it is one.
  #take(type, value) {
    const { text, prompt, members, end, error } = interpret(type, value);
    if (members) Object.assign(this.#end, members);
    if (prompt !== undefined) this.onPrompt?.(prompt);
    if (text) {
      this.#received += 1;
      this.#failures = 0;
      if (this.#onToken) this.#onToken(text);
      else this.#queue.push(text);
      this.#wake?.();
    }
    if (error) throw failure(error);
    if (end) return { ...end, ...this.#end };
  }

  #didOpen(id) {
    this.id = id;
    this.onOpen?.(id);
    if (this.#isStopping) this.#requestStop();
  }

  #requestStop() {
    fetch(this.#url(`/api/streams/${this.id}`), { method: "DELETE", headers: this.#headers() }).catch(() => {});
  }

  // MARK: HTTP

  #url(path, query = {}) {
    const url = new URL(path, new URL(this.#path, location.href));
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
    return url;
  }

  #headers() {
    return this.#options.token ? { Authorization: `Bearer ${this.#options.token}` } : {};
  }

  async #fetch() {
    const { body, query, dialect } = this.#options;
    if (this.id) {
      const url = this.#url(`/api/streams/${this.id}`, { after: this.#received, dialect });
      return fetch(url, { headers: this.#headers(), signal: this.#abort.signal });
    }
    return fetch(this.#url(this.#path, { ...query, dialect }), {
      method: body ? "POST" : "GET",
      headers: {
        ...this.#headers(),
        ...(body && { "Content-Type": "application/json" }),
        ...(this.#key && { "Idempotency-Key": this.#key }),
      },
      ...(body && { body: JSON.stringify(body) }),
      signal: this.#abort.signal,
    });
  }

  async #readResponse() {
    const isResumption = this.id !== undefined;
    const response = await this.#fetch().catch((error) => { throw lost(error); });
    if (response.status === 204) return { type: "none" };
    if (!response.ok) {
      const { error } = await response.json().catch(() => ({}));
      // The web server's own error: its backend is restarting, for example.
      if (!error && response.status >= 502) throw lost();
      if (isResumption && response.status === 404) throw this.#forgotten();
      throw failure(error ?? { message: `Status ${response.status}` }, response);
    }
    if (response.headers.get("Content-Type")?.startsWith("application/json")) return this.#readJSON(response);
    if (!isResumption) this.#didOpen(response.headers.get("Sluice-Stream-Id"));
    const records = events(response.body);
    for (;;) {
      const { value, done } = await records.next().catch((error) => { throw lost(error); });
      if (done) throw lost();
      const end = this.#take(value.type, parse(value.data));
      if (end) {
        records.return().catch(() => {});
        return end;
      }
    }
  }

  // Streaming is disabled, and this endpoint responds with JSON.
  async #readJSON(response) {
    const { message, content, ...members } = await response.json().catch((error) => { throw lost(error); });
    this.#take("token", { t: message ?? content ?? "" });
    return { type: "done", ...members };
  }

  // MARK: WebSocket

  #readSocket() {
    const { body, query, dialect, token } = this.#options;
    const url = this.#url(this.#path);
    url.pathname = "/ws" + url.pathname;
    url.protocol = url.protocol.replace("http", "ws");
    if (dialect) url.searchParams.set("dialect", dialect);
    const isSubprotocol = token && /^[\w!#$%&'*+.^`|~-]+$/.test(token);
    if (token && !isSubprotocol) url.searchParams.set("token", token);
    const socket = new WebSocket(url, isSubprotocol ? ["sluice.v1", `bearer.${token}`] : ["sluice.v1"]);
    this.#socket = socket;
    const start = this.id
      ? { type: "resume", id: "a", stream: this.id, after: this.#received }
      : { type: "start", id: "a", ...(body ? { body } : { query: query ?? {} }), ...(body && { idempotencyKey: this.#key }) };
    return new Promise((resolve, reject) => {
      let isOpen = false;
      socket.onopen = () => {
        isOpen = true;
        socket.send(JSON.stringify(start));
      };
      socket.onmessage = ({ data }) => {
        try {
          const message = JSON.parse(data);
          if (message.status === 404 && start.type === "resume") throw this.#forgotten();
          if (message.status) throw failure(message.data, { status: message.status });
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
        // A browser does not say why a handshake was refused: HTTP does.
        if (!isOpen) this.#socket = null;
        if (!isOpen && !this.#abort.signal.aborted) return this.#readResponse().then(resolve, reject);
        reject(lost());
      };
      const finish = (settle) => {
        socket.onclose = socket.onmessage = null;
        socket.close();
        settle();
      };
    });
  }
}

// Returns what a record of any dialect means: {text}, {prompt}, {members} of the terminal record, {end}, {error}.
function interpret(type, value) {
  if (value === "[DONE]") return { end: { type: "done" } };
  switch (type) {
    case "token": return { text: value.t };
    case "chunk": return { text: value.token };
    case "done": case "complete": return { end: { type: "done", ...value } };
    case "cancelled": return { end: { type: "cancelled", ...value } };
    case "error": return { error: value };
    case "heartbeat": return {};
  }
  if (value.error) return value.error.code === "cancelled" ? { end: { type: "cancelled" } } : { error: value.error };
  if (value.choices) {
    const [choice] = value.choices;
    return {
      text: choice?.delta?.content,
      members: {
        ...(choice?.finish_reason && { finishReason: choice.finish_reason }),
        ...(value.usage && { usage: value.usage }),
      },
    };
  }
  if (value.role) return value.role === "user" ? { prompt: value.delta } : { text: value.delta };
  const { type: kind, ...members } = value;
  switch (kind) {
    case "chunk": return { text: value.content };
    case "text-delta": return { text: value.delta };
    case "complete": return { end: { type: "done", ...members } };
    case "cancelled": case "abort": return { end: { type: "cancelled", ...members } };
    case "error": return { error: value.errorText ? { code: "stream_error", message: value.errorText } : members };
    case "message-metadata": return { members: value.messageMetadata };
    case "finish": return { members };
    default: return {};
  }
}

const parse = (data) => (data === "[DONE]" ? data : JSON.parse(data));

const lostMessage = "The connection was lost before the answer was complete.";

function lost(error) {
  return error?.name === "AbortError" ? error : new SluiceError("connection_lost", lostMessage, { retriable: true });
}

function failure({ code = "internal", message, retriable }, response) {
  const retryAfter = Number(response?.headers?.get("Retry-After")) || undefined;
  return new SluiceError(code, message, { retriable: !!retriable, retryAfter, status: response?.status });
}

const pause = (time, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, time);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

// Returns a random id, for a session or a key.
export function randomID() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Yields the events of a body: {type, data, id}, where `id` is the last one seen (WHATWG HTML, 9.2.6).
export async function* events(readable) {
  const reader = readable.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [], type = "", data = [], id = "", isAfterCR = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      let start = isAfterCR && value[0] === "\n" ? 1 : 0;
      if (value) isAfterCR = false;
      const lineEnd = /\r\n?|\n/g;
      lineEnd.lastIndex = start;
      for (let found; (found = lineEnd.exec(value)); start = lineEnd.lastIndex) {
        // The LF of a CRLF can be in the next part.
        isAfterCR = found[0] === "\r" && lineEnd.lastIndex === value.length;
        const line = parts.join("") + value.slice(start, found.index);
        parts = [];
        if (line === "") {
          if (data.length) yield { type: type || "message", data: data.join("\n"), id };
          type = "";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "event") type = text;
        else if (name === "data") data.push(text);
        else if (name === "id" && !text.includes("\0")) id = text;
      }
      if (start < value.length) parts.push(value.slice(start));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
