import Glibc

/// A value that several threads share, behind a lock (pthread_mutex_lock(3)).
///
/// Not Synchronization's `Mutex`: on Linux the thread sanitizer does not see that one's lock, and takes all that is
/// behind it for a race.
@safe
package final class Locked<Value: ~Copyable>: Sendable {
  // Safe: the two addresses stay the same until deinit; the value is touched with the lock held only.
  private nonisolated(unsafe) let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private nonisolated(unsafe) let value = UnsafeMutablePointer<Value>.allocate(capacity: 1)

  package init(_ value: consuming sending Value) {
    unsafe pthread_mutex_init(mutex, nil)
    unsafe self.value.initialize(to: value)
  }

  /// Does `body` with the lock held: nothing else may be done with the value meanwhile, and nothing in it may take long
  /// or ask for the same lock.
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
