import EventLoop
import Synchronization

/// The transcripts that can be read, of all loops. Thread-safe.
final class TranscriptRegistry: Sendable {
  private let transcripts = Locked<[String: Transcript]>([:])
  private let openReaders = Atomic(0)

  func add(_ transcript: Transcript) { transcripts.withLock { $0[transcript.id] = transcript } }

  func remove(_ id: String) { transcripts.withLock { _ = $0.removeValue(forKey: id) } }

  /// Returns the transcript of a stream; nil if that user has no such stream.
  func transcript(of id: String, for user: User) -> Transcript? {
    transcripts.withLock { $0[id] }.flatMap { $0.user == user ? $0 : nil }
  }

  /// Returns the transcript of the newest running generation of a session.
  func running(inSession session: String, of user: User) -> Transcript? {
    transcripts.withLock { transcripts in
      // Ids are ordered by time.
      transcripts.values.filter { $0.session == session && $0.user == user && !$0.hasEnded }.max { $0.id < $1.id }
    }
  }

  /// Removes the transcripts of a session that is being deleted.
  func removeAll(ofSession session: String, of user: User) {
    transcripts.withLock { transcripts in
      transcripts = transcripts.filter { $0.value.session != session || $0.value.user != user }
    }
  }

  /// The number of running generations without a reader.
  var detachedGenerations: Int { all.count { !$0.hasEnded && $0.readers.isEmpty } }

  /// The number of bytes that all transcripts take.
  var retainedBytes: Int { all.reduce(0) { $0 + $1.retainedBytes } }

  /// The number of readers, including those of transcripts that have been removed.
  var readers: Int { openReaders.load(ordering: .relaxed) }

  /// Starts a reader; see ``TranscriptReader/start(_:of:after:to:on:onEnd:)``.
  func read(
    _ transcript: Transcript, _ handle: TranscriptReaderHandle, after start: Int, to delivery: any Delivery,
    on reactor: Reactor, onEnd: @escaping (_ sentBytes: Int) -> Void
  ) {
    openReaders.add(1, ordering: .relaxed)
    TranscriptReader.start(handle, of: transcript, after: start, to: delivery, on: reactor) { [self] in
      openReaders.subtract(1, ordering: .relaxed)
      onEnd($0)
    }
  }

  private var all: [Transcript] { transcripts.withLock { Array($0.values) } }
}
