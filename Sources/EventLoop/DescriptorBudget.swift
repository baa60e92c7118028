import Glibc
import Synchronization

/// The descriptors that connections may use, so that what has begun finds the ones that it still needs.
///
/// A process that accepts as long as accept4(2) succeeds has no descriptor left for the upstream connections and the
/// files of the requests that it has accepted. Units are acquired before a descriptor is opened. Use it on any thread.
package final class DescriptorBudget: Sendable {
  private let units: Atomic<Int>
  private let total: Int

  /// - Parameter units: the number of descriptors to give away; practically without limit unless given.
  package init(units: Int = .max / 2) {
    self.units = Atomic(units)
    total = units
  }

  /// The units that nothing holds.
  package var available: Int { units.load(ordering: .relaxed) }

  /// Whether fewer than a quarter are left: what is kept for convenience should be closed.
  package var isShort: Bool { available < total / 4 }

  /// Acquires one unit for as long as its owner keeps what is returned. Nil without one.
  package func unit() -> DescriptorUnit? { acquire(1) ? DescriptorUnit(self) : nil }

  /// Acquires `count` units, or none.
  package func acquire(_ count: Int) -> Bool {
    var present = units.load(ordering: .relaxed)
    while present >= count {
      let (isDone, original) = units.compareExchange(expected: present, desired: present - count, ordering: .relaxed)
      if isDone { return true }
      present = original
    }
    return false
  }

  /// Gives `count` units back.
  package func release(_ count: Int) { units.add(count, ordering: .relaxed) }

  /// Raises the process's limit of open descriptors as far as it may (setrlimit(2)) and returns it. Nothing here uses
  /// select(2), for which the lower limit exists.
  package static func raiseProcessLimit() -> Int {
    var limit = rlimit()
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
    if limit.rlim_cur < limit.rlim_max {
      var raised = limit
      raised.rlim_cur = limit.rlim_max
      if unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &raised) == 0 { limit = raised }
    }
    return Int(clamping: limit.rlim_cur)
  }
}

/// One unit of a budget, given back when its last owner lets it go.
package final class DescriptorUnit: Sendable {
  private let budget: DescriptorBudget

  fileprivate init(_ budget: DescriptorBudget) { self.budget = budget }

  deinit { budget.release(1) }
}
