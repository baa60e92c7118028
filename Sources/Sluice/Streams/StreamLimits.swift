/// What a stream is allowed in time and size.
struct StreamLimits: Sendable {
  var heartbeat: Duration = .seconds(15)
  var firstToken: Duration = .seconds(60)
  var idle: Duration = .seconds(30)
  var total: Duration = .seconds(600)
  var maximumTextBytes = 4 << 20
}

/// The stream is over: its client has gone, it was stopped, or it ran out of time. A handler that sees it just ends.
public struct StreamClosedError: Error, Sendable {}
