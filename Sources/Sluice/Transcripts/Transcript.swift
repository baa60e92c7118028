import Bytes
import EventLoop
import JSON
import Synchronization
import Upstream

/// The text of one generation, delta by delta, for readers that start late or come back, and the list of its readers.
///
/// Thread-safe: the generation's loop appends deltas, and each reader reads them on its own loop.
final class Transcript: Sendable {
  /// A position between two deltas.
  struct Position {
    /// The number of deltas before this position.
    fileprivate(set) var deltas = 0
    fileprivate var offset = 0
  }

  private struct State {
    /// The deltas, each preceded by an unsigned LEB128 number: twice its length, plus one if it is more than text and
    /// therefore JSON.
    var bytes: [UInt8] = []
    var deltas = 0
    var hasBegun = false
    var termination: Termination?
    var readers: [TranscriptReaderHandle] = []
    /// The number of times that the last reader has left.
    var departures = 0
    /// Whether no reader can be attached any more.
    var isForgotten = false

    /// Appends the number with which a delta begins.
    mutating func begin(_ number: Int) {
      var number = number
      while number >= 0x80 {
        bytes.append(UInt8(truncatingIfNeeded: number) | 0x80)
        number >>= 7
      }
      bytes.append(UInt8(number))
      deltas += 1
      hasBegun = true
    }
  }

  /// The id of the stream.
  let id: String
  let user: User
  /// The session in which the turn will be stored; nil if it is not stored.
  let session: String?
  /// The digest of the request, if it has an Idempotency-Key; otherwise empty.
  let requestDigest: String
  /// The dialect in which the stream began; nil if it began as a JSON response, which has no id.
  let dialect: DialectKind?
  let metadata: StreamMetadata

  private let state = Locked(State())
  private let bytesSent = Atomic(0)
  /// Called on any thread when the last reader has left.
  private let onUnread = Locked<(@Sendable (_ departure: Int) -> Void)?>(nil)

  /// The maximum number of simultaneous readers.
  static let maximumReaders = 10

  init(
    id: String, of user: User, session: String?, requestDigest: String, dialect: DialectKind?,
    _ metadata: StreamMetadata
  ) {
    self.id = id
    self.user = user
    self.session = session
    self.requestDigest = requestDigest
    self.dialect = dialect
    self.metadata = metadata
  }

  // MARK: Writing

  /// Records that the model has accepted the request, so that readers can send the heads of their responses.
  func begin() { state.withLock { $0.hasBegun = true } }

  /// Appends a delta, which is never empty.
  func append(_ delta: borrowing Span<UInt8>) {
    state.withLock { state in
      state.begin(delta.count << 1)
      state.bytes.append(delta)
    }
  }

  /// Appends a delta that is more than text.
  func append(_ chunk: OutputChunk) {
    // Encoded, because a value takes many times the memory of its text.
    let json = chunk.json.encoded
    state.withLock { state in
      state.begin(json.count << 1 | 1)
      state.bytes += json
    }
  }

  /// Records how the generation terminated. No delta follows.
  func end(_ termination: Termination) { state.withLock { $0.termination = termination } }

  // MARK: Reading

  var hasBegun: Bool { state.withLock { $0.hasBegun } }

  /// The number of deltas so far.
  var deltas: Int { state.withLock { $0.deltas } }

  /// Whether the generation has terminated.
  var hasEnded: Bool { state.withLock { $0.termination != nil } }

  /// The number of bytes that the deltas and their lengths take.
  var retainedBytes: Int { state.withLock { $0.bytes.count } }

  /// The text of all deltas.
  var text: String {
    state.withLock { state in
      var text: [UInt8] = []
      text.reserveCapacity(state.bytes.count)
      var offset = 0
      while offset < state.bytes.count {
        let (range, isChunk) = Self.delta(in: state.bytes.span, at: &offset)
        if isChunk {
          text += Self.chunk(state.bytes.span.extracting(range)).text.utf8
        } else {
          text += state.bytes[range]
        }
      }
      return String(decoding: text, as: UTF8.self)
    }
  }

  /// Returns the size in bytes of the delta after `position`; nil if it does not exist yet.
  func nextDeltaBytes(at position: Position) -> Int? {
    state.withLock { state in
      guard position.offset < state.bytes.count else { return nil }
      var offset = position.offset
      return Self.delta(in: state.bytes.span, at: &offset).range.count
    }
  }

  /// Passes on the delta after `position`, and advances `position` past it.
  ///
  /// - Parameters:
  ///   - onText: called with a delta of the text. Must not use the transcript.
  ///   - onChunk: called with a delta that is more than text. Must not use the transcript.
  /// - Returns: false if the delta does not exist yet.
  @discardableResult
  func readDelta(
    at position: inout Position, onText: (borrowing Span<UInt8>) -> Void, onChunk: (OutputChunk) -> Void
  ) -> Bool {
    state.withLock { state in
      guard position.offset < state.bytes.count else { return false }
      let (range, isChunk) = Self.delta(in: state.bytes.span, at: &position.offset)
      if isChunk {
        onChunk(Self.chunk(state.bytes.span.extracting(range)))
      } else {
        onText(state.bytes.span.extracting(range))
      }
      position.deltas += 1
      return true
    }
  }

  /// Returns how the generation terminated, once all deltas are before `position`.
  func termination(at position: Position) -> Termination? {
    state.withLock { position.offset == $0.bytes.count ? $0.termination : nil }
  }

  private static func chunk(_ json: borrowing Span<UInt8>) -> OutputChunk {
    (try? JSON(parsing: json, depth: OutputChunk.maximumDepth)).flatMap(OutputChunk.init(json:)) ?? OutputChunk()
  }

  /// Returns the place of the delta whose length is at `offset`, and advances `offset` past it.
  private static func delta(
    in bytes: borrowing Span<UInt8>, at offset: inout Int
  ) -> (range: Range<Int>, isChunk: Bool) {
    var (number, shift) = (0, 0)
    while bytes[offset] >= 0x80 {
      number |= Int(bytes[offset] & 0x7F) << shift
      shift += 7
      offset += 1
    }
    number |= Int(bytes[offset]) << shift
    offset += 1
    let start = offset
    offset += number >> 1
    return (start..<offset, number & 1 == 1)
  }

  // MARK: Readers

  /// Adds a reader. ``detach(_:)`` must follow.
  ///
  /// - Returns: false if the stream has been given up in the meantime.
  /// - Throws: ``Failure/Code/tooManyStreams`` when there are too many readers.
  func attach(_ reader: TranscriptReaderHandle) throws(Failure) -> Bool {
    try state.withLock { (state) throws(Failure) in
      if state.isForgotten { return false }
      guard state.readers.count < Self.maximumReaders else {
        throw Failure(
          .tooManyStreams, "The stream already has \(Self.maximumReaders) readers.", retryAfter: .seconds(5))
      }
      state.readers.append(reader)
      return true
    }
  }

  func detach(_ reader: TranscriptReaderHandle) {
    let departure: Int? = state.withLock { state in
      state.readers.removeAll { $0 === reader }
      guard state.readers.isEmpty else { return nil }
      state.departures += 1
      return state.departures
    }
    if let departure { onUnread.withLock { $0 }?(departure) }
  }

  /// The current readers.
  var readers: [TranscriptReaderHandle] { state.withLock { $0.readers } }

  /// Prevents further readers, unless there has been one since the last of them left.
  ///
  /// - Parameter departure: the number that was passed to the unread handler then.
  /// - Returns: whether there was none.
  func forgetIfUnread(since departure: Int) -> Bool {
    state.withLock { state in
      if state.readers.isEmpty, state.departures == departure { state.isForgotten = true }
      return state.isForgotten
    }
  }

  /// Sets the closure to call when the last reader has left. It is called on any thread.
  func setUnreadHandler(_ handler: (@Sendable (_ departure: Int) -> Void)?) { onUnread.withLock { $0 = handler } }

  /// The number of bytes that all readers together have sent to the web server.
  var sentBytes: Int { bytesSent.load(ordering: .relaxed) }

  func addSentBytes(_ count: Int) { bytesSent.add(count, ordering: .relaxed) }
}

extension Failure {
  static let noSuchStream = Failure(.notFound, "No stream has this id, or it ended some time ago.")
}
