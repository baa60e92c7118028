import EventLoop

/// Watched files of one kind, by their paths, which locations name.
final class WatchedFiles<Content: Sendable>: Sendable {
  private let files = Locked<[String: WatchedFile<Content>]>([:])
  private let parse: @Sendable ([UInt8]) -> Content

  init(parse: @escaping @Sendable ([UInt8]) -> Content) { self.parse = parse }

  /// What the file at `path` says now. Reads it on the calling thread when it has changed.
  ///
  /// - Throws: ``Failure/Code/internalError``, with the reason for the log, as long as it cannot be read.
  func content(_ path: String) throws(Failure) -> Content {
    do { return try file(path).content() } catch { throw Failure.incompleteConfiguration("\(error)") }
  }

  /// What the file at `path` says now. Reads it on a thread of `pool` when it has changed.
  ///
  /// - Throws: ``Failure/Code/internalError``, with the reason for the log, as long as it cannot be read.
  func content(_ path: String, on pool: BlockingPool) async throws(Failure) -> Content {
    do { return try await file(path).content(on: pool) } catch { throw Failure.incompleteConfiguration("\(error)") }
  }

  private func file(_ path: String) -> WatchedFile<Content> {
    files.withLock { files in
      if let file = files[path] { return file }
      let file = WatchedFile(path, parse: parse)
      files[path] = file
      return file
    }
  }
}
