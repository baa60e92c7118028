import CLinux
import Glibc

/// One POSIX thread with a name (pthread_create(3)), which no signal interrupts.
package final class JoinableThread: Sendable {
  private let handle: pthread_t

  /// Starts a thread that calls `body` and ends with it.
  ///
  /// - Parameter name: what `top -H` shows; cut to 15 bytes.
  /// - Throws: `EAGAIN` when the system has no thread to give.
  package init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    let start = Start(name: name, body: body)
    var handle = pthread_t()
    // Safe: the reference is balanced by exactly one release, in the thread or, if there is none, below.
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

  /// Waits until the thread has ended (pthread_join(3)). Call it once, from another thread.
  package func join() { pthread_join(handle, nil) }

  /// Lets the thread go: it frees itself when it ends (pthread_detach(3)). Call it instead of ``join()``.
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
