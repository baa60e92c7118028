import FastCGI

extension Request {
  /// Returns an integer of the query; nil if the field is missing.
  ///
  /// - Throws: ``Failure/Code/badRequest`` if it is no integer in `range`.
  func integer(_ name: String, in range: ClosedRange<Int>) throws(Failure) -> Int? {
    guard let text = query(name) else { return nil }
    guard let value = Int(text), range.contains(value) else {
      throw Failure(
        .badRequest, "\"\(name)\" must be an integer from \(range.lowerBound) to \(range.upperBound).")
    }
    return value
  }
}
