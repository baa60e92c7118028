import FoundationEssentials
import Sluice

/// Streams the text appended to a file, alongside other work of the program: `LogTail FILE`.
@main
struct LogTail {
  static func main() async throws {
    guard let path = CommandLine.arguments.dropFirst().first else {
      print("usage: LogTail FILE")
      return
    }
    let application = try Application()
    application.stream(
      "GET", "/log", dialect: .chat, countsAsMessage: false, feature: Feature("ENABLE_LOG")
    ) { context, stream in
      try await stream.open()
      let tail = Tail(path)
      while true {
        try await stream.send(await tail.next())
        try await Task.sleep(for: .milliseconds(100))
      }
    }
    try await withThrowingTaskGroup { group in
      group.addTask { try await application.run() }
      group.addTask {
        // The program's own work. If it throws, the group cancels the application, which then lets its streams finish.
        while true { try await Task.sleep(for: .seconds(1)) }
      }
      // The application returns on SIGTERM.
      try await group.next()
      group.cancelAll()
    }
  }
}

/// A reader of the text appended to a file since the previous call. It is an actor because file reads must not run on
/// an event loop.
private actor Tail {
  private let path: String
  private var read = 0

  init(_ path: String) { self.path = path }

  func next() -> String {
    guard let content = try? Data(contentsOf: URL(filePath: path)) else { return "" }
    // A file that has become shorter was rotated and is read from its start.
    if content.count < read { read = 0 }
    defer { read = content.count }
    return String(decoding: content.dropFirst(read), as: UTF8.self)
  }
}
