import Glibc

/// A value that several threads share, protected by a lock (pthread_mutex_lock(3)).
///
/// Synchronization's `Mutex` is not used: on Linux, the thread sanitizer does not recognise its lock and reports every
/// access that it protects as a race.
@safe
package final class Locked<Value: ~Copyable>: Sendable {
  // Safe: both addresses stay the same until deinit; the value is accessed only with the lock held.
  private nonisolated(unsafe) let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private nonisolated(unsafe) let value = UnsafeMutablePointer<Value>.allocate(capacity: 1)

  package init(_ value: consuming sending Value) {
    unsafe pthread_mutex_init(mutex, nil)
    unsafe self.value.initialize(to: value)
  }

  /// Runs `body` with the lock held, which excludes any other access to the value. `body` must be short and must not
  /// take the same lock.
  package func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    return try unsafe body(&value.pointee)
  }

  deinit {
    unsafe value.deinitialize(count: 1)
    unsafe value.deallocate()
    unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }
}
