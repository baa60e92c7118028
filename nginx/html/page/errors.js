// What errors mean for a person.

const meanings = {
  unauthorized: "The token is missing or not valid. Enter one under “Access”.",
  forbidden: "You are not allowed to do this.",
  not_found: "This does not exist, or no longer.",
  streaming_disabled: "This is switched off at the moment.",
  payload_too_large: "This text is too long.",
  too_many_streams: "Too many answers are being written at once. Wait for one to finish.",
  rate_limited: "You have sent too many messages.",
  upstream_error: "The model could not answer.",
  upstream_truncated: "The model broke off before its answer was complete.",
  upstream_timeout: "The model took too long.",
  upstream_rate_limited: "The model has too many requests.",
  conflict: "This message is being answered already.",
  parse_error: "The model did not write a valid report.",
  store_failed: "The answer could not be saved.",
  overloaded: "The server is busy.",
  shutting_down: "The server is restarting.",
  internal: "The server has a problem.",
  connection_lost: "The connection was lost before the answer was complete.",
};

/**
 * Returns what an error means, and what a person can do.
 *
 * @param {Error & { code?: string, retryAfter?: number }} error
 */
export function explain({ code, message, retryAfter }) {
  const meaning = meanings[code] ?? message;
  return retryAfter ? `${meaning} Try again in ${duration(retryAfter)}.` : meaning;
}

/**
 * Returns a number of seconds in words.
 *
 * @param {number} seconds
 */
export function duration(seconds) {
  const [count, unit] = seconds < 100 ? [Math.ceil(seconds), "second"] : [Math.ceil(seconds / 60), "minute"];
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** What the terminal record of an answer says that is complete for the server, but not for a person. */
export const incomplete = {
  length: "The answer has reached its maximum length.",
  content_filter: "A filter of the model has cut the answer.",
  tool_calls: "The model asks for a tool, which this page does not have.",
};
