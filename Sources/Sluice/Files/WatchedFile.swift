import EventLoop
import Glibc

/// A file that can be edited while the server runs, and is read again after it has changed.
///
/// Each access costs one stat(2), about a microsecond; the file is read only after a change. Thread-safe.
final class WatchedFile<Content: Sendable>: Sendable {
  private struct Version: Equatable {
    let device: UInt
    let inode: UInt
    let size: Int
    let seconds: Int
    let nanoseconds: Int
  }

  private struct State {
    var version: Version?
    var content: Result<Content, SystemError>?
    /// The number of times that the file was read.
    var reads = 0
    /// Whether a thread of a pool is reading the file; the ``waiters`` are resumed with the result.
    var isLoading = false
    var waiters: [CheckedContinuation<Result<Content, SystemError>, Never>] = []
  }

  let path: String
  private let parse: @Sendable ([UInt8]) -> Content
  private let state = Locked(State())
  private let loading = Locked(())

  init(_ path: String, parse: @escaping @Sendable ([UInt8]) -> Content) {
    self.path = path
    self.parse = parse
  }

  /// The content that was read last, whether or not the file has changed since; nil if it cannot be read.
  var latest: Content? { state.withLock { try? $0.content?.get() } }

  /// Returns the current content of the file, and how often it was read, which tells whether it has changed. Blocks.
  func numberedContent() throws(SystemError) -> (Content, reads: Int) {
    let content = try content()
    let latest = state.withLock { ($0.content, $0.reads) }
    return (try latest.0?.get() ?? content, latest.1)
  }

  /// Returns the current content of the file. Reads a changed file on the calling thread.
  ///
  /// - Throws: ``SystemError`` for as long as the file cannot be read.
  func content() throws(SystemError) -> Content {
    if let current = current() { return current }
    // One thread reads and parses the file; threads that wait for the lock find its result.
    let result: Result<Content, SystemError> = loading.withLock { _ in
      if let current = current() { return .success(current) }
      let version = version()
      let content = Result { () throws(SystemError) in parse(try readFile(path)) }
      state.withLock {
        $0.version = version
        $0.reads += 1
        $0.content = content
      }
      return content
    }
    return try result.get()
  }

  /// Returns the current content of the file. Reads a changed file on a thread of `pool`, because it can be large.
  ///
  /// - Throws: ``SystemError`` for as long as the file cannot be read.
  func content(on pool: BlockingPool) async throws(SystemError) -> Content {
    if let current = current() { return current }
    // Concurrent callers share one read, so that they occupy only one thread of the pool.
    let result: Result<Content, SystemError> = await withCheckedContinuation { continuation in
      let isFirst = state.withLock { state in
        state.waiters.append(continuation)
        return !exchange(&state.isLoading, with: true)
      }
      if isFirst { pool.submit { self.load() } }
    }
    return try result.get()
  }

  private func load() {
    let result = Result { () throws(SystemError) in try content() }
    let waiters = state.withLock { state in
      state.isLoading = false
      return exchange(&state.waiters, with: [])
    }
    for waiter in waiters { waiter.resume(returning: result) }
  }

  /// Returns the content that was read last, if the file has not changed since.
  private func current() -> Content? {
    guard let version = version() else { return nil }
    return state.withLock { state in
      guard version == state.version, case .success(let content)? = state.content else { return nil }
      return content
    }
  }

  private func version() -> Version? {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { return nil }
    return Version(
      device: status.st_dev, inode: UInt(status.st_ino), size: Int(status.st_size), seconds: status.st_ctim.tv_sec,
      nanoseconds: status.st_ctim.tv_nsec)
  }
}
