import EventLoop
import Glibc

/// A file that is read again whenever it has changed: what a person edits while the server runs.
///
/// Asking costs one stat(2), about a microsecond; reading happens only after a change. Use it from any thread.
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
    /// Whether a thread of a pool reads it, and the tasks that wait for that.
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

  /// What the file says now. Reads it on the calling thread when it has changed.
  ///
  /// - Throws: why it cannot be read, for as long as it cannot.
  func content() throws(SystemError) -> Content {
    if let current = current() { return current }
    // One thread reads and parses; those that wait for it find the result.
    let result: Result<Content, SystemError> = loading.withLock { _ in
      if let current = current() { return .success(current) }
      let version = version()
      let content = Result { () throws(SystemError) in parse(try readFile(path)) }
      state.withLock {
        $0.version = version
        $0.content = content
      }
      return content
    }
    return try result.get()
  }

  /// What the file says now. Reads it on a thread of `pool` when it has changed: for files that may be large.
  ///
  /// - Throws: why it cannot be read, for as long as it cannot.
  func content(on pool: BlockingPool) async throws(SystemError) -> Content {
    if let current = current() { return current }
    // One thread for all who ask meanwhile: the pool is there for others too.
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

  /// What was read last, if the file has not changed since.
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
