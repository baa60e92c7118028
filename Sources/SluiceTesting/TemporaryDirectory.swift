import Foundation

/// A directory that is removed with the last reference to this object.
package final class TemporaryDirectory: Sendable {
  package let path: String

  package init() {
    path = NSTemporaryDirectory() + "sluice-test-\(UUID().uuidString)"
    try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  package func file(_ name: String, _ text: String) -> String {
    let file = path + "/" + name
    _ = FileManager.default.createFile(atPath: file, contents: Data(text.utf8))
    return file
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}
