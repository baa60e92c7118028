import CLinux
import Glibc

/// A named POSIX thread (pthread_create(3)) that is not interrupted by signals.
package final class JoinableThread: Sendable {
  private let handle: pthread_t

  /// Starts a thread that calls `body` and exits when it returns.
  ///
  /// - Parameter name: the name that `top -H` displays, truncated to 15 bytes.
  /// - Throws: `EAGAIN` when the system cannot create a thread.
  package init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    let start = Start(name: name, body: body)
    var handle = pthread_t()
    // Safe: the reference is balanced by exactly one release, in the thread or, if it cannot be created, below.
    let context = unsafe Unmanaged.passRetained(start)
    let result = Signals.withAllBlocked {
      unsafe pthread_create(
        &handle, nil,
        { context in
          guard let context = unsafe context else { return nil }
          let start = unsafe Unmanaged<Start>.fromOpaque(context).takeRetainedValue()
          unsafe clinux_name_thread(start.name)
          start.body()
          return nil
        }, context.toOpaque())
    }
    guard result == 0 else {
      unsafe context.release()
      throw SystemError("start a thread", code: result)
    }
    self.handle = handle
  }

  /// Waits until the thread has exited (pthread_join(3)). Call it once, from another thread.
  package func join() { pthread_join(handle, nil) }

  /// Detaches the thread, so that its resources are freed when it exits (pthread_detach(3)). Call it instead of
  /// ``join()``.
  package func detach() { pthread_detach(handle) }

  private final class Start: Sendable {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }
}
