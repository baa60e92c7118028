import CLinux

/// A set of events that a descriptor is watched for or is ready for (epoll_ctl(2)).
///
/// `OptionSet` is not used: outside this module its operations would be resolved at run time, for every event.
package struct Readiness: Sendable {
  @usableFromInline let events: UInt32
  @inlinable init(events: UInt32) { self.events = events }

  @inlinable package static var none: Readiness { Readiness(events: 0) }
  @inlinable package static var readable: Readiness { Readiness(events: EPOLLIN.rawValue) }
  @inlinable package static var writable: Readiness { Readiness(events: EPOLLOUT.rawValue) }
  /// Closure of the peer's sending side, or of the connection.
  @inlinable package static var peerClosed: Readiness { Readiness(events: EPOLLRDHUP.rawValue) }
  /// Closure of both sides. Always reported, whether or not it is watched for.
  @inlinable package static var hangup: Readiness { Readiness(events: EPOLLHUP.rawValue) }
  /// A pending error, or a pipe whose reader has closed. Always reported, whether or not it is watched for.
  @inlinable package static var error: Readiness { Readiness(events: EPOLLERR.rawValue) }
  /// A modifier that reports a change once instead of for as long as it lasts.
  @inlinable package static var edgeTriggered: Readiness { Readiness(events: 1 << 31) }

  /// Returns the union of both sets.
  @inlinable package static func | (left: Readiness, right: Readiness) -> Readiness {
    Readiness(events: left.events | right.events)
  }

  /// Returns whether the set contains all of `others`.
  @inlinable package func contains(_ others: Readiness) -> Bool { events & others.events == others.events }

  /// Returns whether the set contains any of `others`.
  @inlinable package func contains(anyOf others: Readiness) -> Bool { events & others.events != 0 }
}
