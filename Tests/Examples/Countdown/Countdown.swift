import Sluice

@main
struct Countdown {
  static func main() async throws {
    let application = try Application()
    application.stream("GET", "/countdown/{from}") { context, stream in
      guard let from = Int(context.pathParameters["from"] ?? ""), (1...100).contains(from) else {
        throw Failure(.badRequest, "\"from\" must be an integer from 1 to 100.")
      }
      for number in (1...from).reversed() {
        try await stream.send("\(number) ")
        try await Task.sleep(for: .milliseconds(100))
      }
    }
    try await application.run()
  }
}
