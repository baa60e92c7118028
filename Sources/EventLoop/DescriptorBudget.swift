import Glibc
import Synchronization

/// A limit on the descriptors of connections, so that accepted requests can open the other descriptors that they need.
///
/// A process that accepts as long as accept4(2) succeeds has no descriptor left for the upstream connections and the
/// files of the requests that it has accepted. Units must be acquired before a descriptor is opened. A budget can be
/// used on any thread.
package final class DescriptorBudget: Sendable {
  private let units: Atomic<Int>
  private let total: Int

  /// - Parameter units: the number of descriptors that can be acquired; practically unlimited by default.
  package init(units: Int = .max / 2) {
    self.units = Atomic(units)
    total = units
  }

  /// The number of free units.
  package var available: Int { units.load(ordering: .relaxed) }

  /// Whether fewer than a quarter of the units are free, so that cached descriptors should be closed.
  package var isShort: Bool { available < total / 4 }

  /// Acquires one unit, which is released with the returned object. Returns nil if no unit is free.
  package func acquireUnit() -> DescriptorUnit? { acquire(1) ? DescriptorUnit(self) : nil }

  /// Acquires `count` units, or none. Returns whether it acquired them.
  package func acquire(_ count: Int) -> Bool {
    var present = units.load(ordering: .relaxed)
    while present >= count {
      let (isExchanged, original) = units.compareExchange(
        expected: present, desired: present - count, ordering: .relaxed)
      if isExchanged { return true }
      present = original
    }
    return false
  }

  /// Releases `count` units.
  package func release(_ count: Int) { units.add(count, ordering: .relaxed) }

  /// Raises the process's limit of open descriptors to its hard limit (setrlimit(2)) and returns the resulting limit.
  /// Sluice does not use select(2), for which the lower limit exists.
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

/// One unit of a budget, released with the last reference to it.
package final class DescriptorUnit: Sendable {
  private let budget: DescriptorBudget

  fileprivate init(_ budget: DescriptorBudget) { self.budget = budget }

  deinit { budget.release(1) }
}
