import EventLoop

/// The watched files of one kind, by the paths that locations configure.
final class WatchedFiles<Content: Sendable>: Sendable {
  private let files = Locked<[String: WatchedFile<Content>]>([:])
  private let parse: @Sendable ([UInt8]) -> Content

  init(parse: @escaping @Sendable ([UInt8]) -> Content) { self.parse = parse }

  /// Returns the current content of the file at `path`. Reads a changed file on the calling thread.
  ///
  /// - Throws: ``Failure/Code/internalError``, with the reason for the log, for as long as the file cannot be read.
  func content(_ path: String) throws(Failure) -> Content {
    do { return try file(path).content() } catch { throw Failure.incompleteConfiguration("\(error)") }
  }

  /// Returns the current content of the file at `path`. Reads a changed file on a thread of `pool`.
  ///
  /// - Throws: ``Failure/Code/internalError``, with the reason for the log, for as long as the file cannot be read.
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
