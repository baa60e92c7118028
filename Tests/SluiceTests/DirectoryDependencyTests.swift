import Foundation
import Testing

/// The dependencies between the directories of Sources/Sluice, read from the sources.
private struct Rooms {
  /// The directories that each directory depends on, each with an example: a name and the file that uses it.
  private(set) var needs: [String: [String: String]] = [:]

  init(_ sources: String) throws {
    var files: [(room: String, name: String, code: String)] = []
    for room in try FileManager.default.contentsOfDirectory(atPath: sources) where !room.contains(".") {
      for name in try FileManager.default.contentsOfDirectory(atPath: sources + "/" + room)
      where name.hasSuffix(".swift") {
        let text = try String(contentsOfFile: "\(sources)/\(room)/\(name)", encoding: .utf8)
        files.append((room, name, Self.code(text)))
      }
    }
    // Maps the name of each top-level declaration that is not private to the directories that declare it.
    let declaration = /(?m)^(?:@\w+ )*(?:public |package |final |indirect )*(?:struct|class|enum|protocol|func) (\w+)/
    var homes: [String: Set<String>] = [:]
    for file in files {
      for match in file.code.matches(of: declaration) { homes[String(match.1), default: []].insert(file.room) }
    }
    for file in files {
      for word in Set(file.code.matches(of: /\b[A-Za-z]\w+\b/).map { String($0.0) }) {
        guard let rooms = homes[word], rooms.count == 1, let room = rooms.first, room != file.room else { continue }
        needs[file.room, default: [:]][room] = "\(word) in \(file.name)"
      }
    }
  }

  /// Returns the source without comments, and without the text of strings that have no interpolation.
  private static func code(_ text: String) -> String {
    text.replacing(/\/\/[^\n]*/, with: "").replacing(/"(?:[^"\\\n]|\\[^(\n])*"/, with: "\"\"")
  }

  /// Returns the direct and indirect dependencies of a directory.
  func reach(_ room: String) -> Set<String> {
    var found: Set<String> = []
    var next = [room]
    while let room = next.popLast() {
      for need in needs[room, default: [:]].keys where found.insert(need).inserted { next.append(need) }
    }
    return found
  }
}

@Suite("Library directories")
struct RoomsTests {
  @Test("The directories have no circular dependencies")
  func oneWay() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().path
    let rooms = try Rooms(root + "/Sources/Sluice")
    #expect(rooms.needs["Server"]?["Dispatch"] != nil && rooms.needs.count > 15, "\(rooms.needs.keys)")
    for room in rooms.needs.keys.sorted() where rooms.reach(room).contains(room) {
      Issue.record("\(room) needs itself by way of \(rooms.needs[room, default: [:]])")
    }
  }
}
