import Foundation
import Testing

/// The dependencies between the directories of Sources/Sluice, read from the sources.
private struct DirectoryDependencies {
  /// The directories that each directory depends on, each with an example: a name and the file that uses it.
  private(set) var dependencies: [String: [String: String]] = [:]

  init(_ sources: String) throws {
    var files: [(directory: String, name: String, code: String)] = []
    for directory in try FileManager.default.contentsOfDirectory(atPath: sources) where !directory.contains(".") {
      for name in try FileManager.default.contentsOfDirectory(atPath: sources + "/" + directory)
      where name.hasSuffix(".swift") {
        let text = try String(contentsOfFile: "\(sources)/\(directory)/\(name)", encoding: .utf8)
        files.append((directory, name, Self.code(text)))
      }
    }
    // Maps the name of each top-level declaration that is not private to the directories that declare it.
    let declaration = /(?m)^(?:@\w+ )*(?:public |package |final |indirect )*(?:struct|class|enum|protocol|func) (\w+)/
    var declaringDirectories: [String: Set<String>] = [:]
    for file in files {
      for match in file.code.matches(of: declaration) {
        declaringDirectories[String(match.1), default: []].insert(file.directory)
      }
    }
    for file in files {
      for word in Set(file.code.matches(of: /\b[A-Za-z]\w+\b/).map { String($0.0) }) {
        guard let directories = declaringDirectories[word], directories.count == 1, let directory = directories.first,
          directory != file.directory
        else { continue }
        dependencies[file.directory, default: [:]][directory] = "\(word) in \(file.name)"
      }
    }
  }

  /// Returns the source without comments, and without the text of strings that have no interpolation.
  private static func code(_ text: String) -> String {
    text.replacing(/\/\/[^\n]*/, with: "").replacing(/"(?:[^"\\\n]|\\[^(\n])*"/, with: "\"\"")
  }

  /// Returns the direct and indirect dependencies of a directory.
  func transitiveDependencies(_ directory: String) -> Set<String> {
    var found: Set<String> = []
    var next = [directory]
    while let directory = next.popLast() {
      for dependency in dependencies[directory, default: [:]].keys where found.insert(dependency).inserted {
        next.append(dependency)
      }
    }
    return found
  }
}

@Suite("Library directories")
struct DirectoryDependencyTests {
  @Test("The directories have no circular dependencies")
  func oneWay() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().path
    let directories = try DirectoryDependencies(root + "/Sources/Sluice")
    #expect(
      directories.dependencies["Server"]?["Dispatch"] != nil && directories.dependencies.count > 15,
      "\(directories.dependencies.keys)")
    for directory in directories.dependencies.keys.sorted()
    where directories.transitiveDependencies(directory).contains(directory) {
      Issue.record("\(directory) dependencies itself by way of \(directories.dependencies[directory, default: [:]])")
    }
  }
}
