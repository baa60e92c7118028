// Reads a stream of Sluice's dialect `events` with fetch.
//
// A stream that ends without a terminal record has failed, however clean the connection's end looked: a web server
// shows a killed backend as a complete answer.

export class StreamError extends Error {
  constructor(code, message, retriable) {
    super(message);
    this.code = code;
    this.retriable = retriable;
  }
}

// Posts `message` and calls `onToken` with each piece of the answer. Resolves with {type: "done" | "cancelled", …}
// and the record's members; rejects with a StreamError. `signal` ends it from here. With the same `key` again, after a
// lost connection, an answer that was complete is given again instead of asked for anew.
//
// Where streaming is turned off, or the browser cannot read a body as it comes, the answer comes in one piece.
export async function chat({ url = "/api/chat", token, message, sessionId, key, signal, onOpen, onToken }) {
  const canStream = typeof Response !== "undefined" && "body" in Response.prototype;
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(key && { "Idempotency-Key": key }),
      },
      body: JSON.stringify({ message, ...(sessionId && { sessionId }), ...(!canStream && { stream: false }) }),
      signal,
    });
  } catch (error) {
    throw lost(error);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    const error = body.error ?? {};
    throw new StreamError(error.code ?? "internal", error.message ?? `Status ${response.status}`, !!error.retriable);
  }
  if (response.headers.get("Content-Type")?.startsWith("application/json")) {
    const answer = await response.json().catch((error) => { throw lost(error); });
    onToken(answer.message);
    return { type: "done", ...answer };
  }
  onOpen?.(response.headers.get("Sluice-Stream-Id"));
  try {
    for await (const { type, data } of events(response.body)) {
      const record = JSON.parse(data);
      if (type === "token") onToken(record.t);
      else if (type === "done" || type === "cancelled") return { type, ...record };
      else if (type === "error") throw new StreamError(record.code, record.message, record.retriable);
    }
  } catch (error) {
    throw error instanceof StreamError ? error : lost(error);
  }
  throw lost();
}

function lost(error) {
  if (error?.name === "AbortError") return error;
  return new StreamError("connection_lost", "The connection was lost before the answer was complete.", true);
}

// The events of a body, by the rules of the HTML standard, 9.2.6.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", type = "", data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      // A CR at the end may be half of a CRLF: it waits for what follows.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { type: type || "message", data: data.join("\n") };
          type = "";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "event") type = text;
        else if (name === "data") data.push(text);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Asks the server to stop a stream, which then ends with its `cancelled` record.
export function stopStream(id, token) {
  return fetch(`/api/streams/${encodeURIComponent(id)}`, {
    method: "DELETE",
    headers: token ? { Authorization: `Bearer ${token}` } : {},
  });
}
