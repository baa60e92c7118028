// Reads a stream in Sluice's `events` dialect with fetch.
//
// A stream that ends without a terminal record has failed, even if its connection closed cleanly: a web server reports a
// complete response when its backend is killed.

export class StreamError extends Error {
  constructor(code, message, retriable) {
    super(message);
    this.code = code;
    this.retriable = retriable;
  }
}

// Posts `message` and calls `onToken` with each delta. Resolves with {type: "done" | "cancelled", …} and the members of
// the record; rejects with a StreamError. `signal` aborts it. A retry with the same `key` after a lost connection gets
// the stored response if the first one was complete.
//
// If streaming is disabled, or the browser cannot read a body incrementally, the response is JSON.
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

// Yields the events of a body (WHATWG HTML, 9.2.6).
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", type = "", data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      // A CR at the end can be half of a CRLF: wait for the next byte.
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

// Stops a stream; its terminal record is `cancelled`.
export function stopStream(id, token) {
  return fetch(`/api/streams/${encodeURIComponent(id)}`, {
    method: "DELETE",
    headers: token ? { Authorization: `Bearer ${token}` } : {},
  });
}
