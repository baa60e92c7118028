import EventLoop
import FastCGI

extension ResponseStream {
  /// How an answer is given.
  struct Form {
    var dialect: any Dialect
    /// Makes the answer of all the text, when the client wants it in one piece. Nil streams.
    var whole: GenerationRequest.JSONBody?
    /// Where a large end is encoded; on the loop without.
    var pool: BlockingPool?
    /// Whether ``ResponseStream/text`` is wanted; a stream that is not stored need not grow.
    var retainsText = true
    /// Takes out what nobody may see, before anything else is done with the text.
    var redactor: Redactor?
    /// The right to answer the requests with an Idempotency-Key, of which this is one.
    var claim: ReplayClaim?
    /// Whether the stream's id is sent as an event's: an EventSource that reconnects then tells it.
    var sendsEventID = false
  }
}

extension ResponseHead {
  /// What every stream begins with.
  static var eventStream: ResponseHead {
    var head = ResponseHead()
    head.set("Content-Type", "text/event-stream; charset=utf-8")
    head.set("Cache-Control", "no-cache, no-transform")
    // Some proxies look at it; nginx keeps it to itself.
    head.set("X-Accel-Buffering", "no")
    return head
  }
}
