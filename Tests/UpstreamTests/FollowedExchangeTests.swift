import EventLoop
import Foundation
import JSON
import SluiceTesting
import Testing

@testable import Upstream

/// Returns `body` compressed by gzip(1).
private func gzipped(_ body: String, _ level: String = "-9") throws -> [UInt8] {
  let (process, input, output) = (Process(), Pipe(), Pipe())
  process.executableURL = URL(fileURLWithPath: "/bin/gzip")
  process.arguments = ["-c", level]
  (process.standardInput, process.standardOutput) = (input, output)
  try process.run()
  let writer = try JoinableThread(name: "gzip input") {
    try? input.fileHandleForWriting.write(contentsOf: Data(body.utf8))
    try? input.fileHandleForWriting.close()
  }
  let compressed = try output.fileHandleForReading.readToEnd() ?? Data()
  writer.join()
  process.waitUntilExit()
  return Array(compressed)
}

@Suite("Redirections and codings")
struct FollowedExchangeTests {
  private static func event(_ text: String, _ finish: String = "null") -> String {
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\(text)\"},\"finish_reason\":\(finish)}]}\n\n"
  }

  private static let body = event("Hel") + event("lo") + event("", "\"stop\"") + "data: [DONE]\n\n"

  /// Sends a prompt, and returns the complete text, or the error.
  private func generate(
    _ upstream: ScriptedUpstream, _ transport: Transport, text message: String = "Hi", query: String = ""
  ) async throws -> (text: String, error: GeneratorError?) {
    let generator = OpenAIGenerator(
      baseURL: upstream.baseURL + query, maximumTextBytes: 64 * 1024, usesLibcurl: transport == .libcurl,
      key: { "sk-1" })
    return try await onLoop { reactor in
      let output = generator.start(Prompt(messages: [Message(.user, message)]), on: reactor)
      var text = ""
      do throws(GeneratorError) {
        while case .delta(let delta) = try await output.next() { text += delta }
        return (text, nil)
      } catch { return (text, error) }
    }
  }

  @Test("A compressed response is decoded, wherever it is split", arguments: Transport.allCases)
  func compressed(transport: Transport) async throws {
    for (level, coding) in [("-9", "gzip"), ("-1", "x-gzip")] {
      let bytes = try gzipped(Self.body, level)
      for split in stride(from: 0, through: bytes.count, by: transport == .plain ? 7 : 31) {
        let upstream = try ScriptedUpstream { exchange in
          exchange.sendHead(more: "Content-Encoding: \(coding)\r\n")
          exchange.send(Array(bytes[..<split]))
          exchange.send(Array(bytes[split...]))
        }
        let result = try await generate(upstream, transport)
        #expect(result.text == "Hello" && result.error == nil, "split at \(split): \(result)")
      }
    }
    // Several bodies in one, and one that is a JSON object.
    let halves = try gzipped(Self.event("Hel")) + gzipped(Self.event("lo", "\"stop\""))
    let object = #"{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}"#
    for (bytes, type) in [(halves, "text/event-stream"), (try gzipped(object), "application/json")] {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead(type: type, more: "Content-Encoding: gzip\r\n")
        exchange.send(bytes)
      }
      let result = try await generate(upstream, transport)
      #expect(result.text == "Hello" && result.error == nil, "\(type) \(result)")
    }
  }

  @Test("A compressed response that is broken or too large is a failure", arguments: Transport.allCases)
  func broken(transport: Transport) async throws {
    let good = try gzipped(Self.body)
    let large = try gzipped(Self.event(String(repeating: "a", count: 1 << 20)))
    #expect(large.count < 64 * 1024)
    for bytes in [Array("not gzip".utf8), good.prefix(20) + [0xFF, 0xFF, 0xFF, 0xFF], Array(good.prefix(30)), large] {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead(more: "Content-Encoding: gzip\r\n")
        exchange.send(bytes)
      }
      let result = try await generate(upstream, transport)
      #expect(
        result.error != nil && result.text.utf8.count < 10,
        "\(result.text.prefix(20)) \(String(describing: result.error))")
    }
  }

  @Test(
    "A small body that becomes a large one does not keep the loop from its other work", arguments: Transport.allCases)
  func bomb(transport: Transport) async throws {
    let bytes = try gzipped(String(repeating: "\n", count: 2 << 20) + Self.body)
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead(more: "Content-Encoding: gzip\r\n")
      exchange.send(bytes)
    }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl)
    let (text, turns) = try await onLoop { reactor in
      let output = generator.start(Prompt(messages: [Message(.user, "Hi")]), on: reactor)
      try await output.waitUntilAccepted()
      var turns = 0
      while !output.hasQueuedEvents {
        await reactor.nextTurn()
        turns += 1
      }
      var text = ""
      while case .delta(let delta) = try await output.next() { text += delta }
      return (text, turns)
    }
    #expect(text == "Hello" && turns >= 2, "\(turns) turns")
  }

  @Test(
    "A redirection to the same server is followed with the body and the key", arguments: Transport.allCases,
    [
      ("/other/v1/chat", "/other/v1/chat"), ("/other/v1/chat#fragment", "/other/v1/chat"),
      ("./other", "/v1/chat/other"),
      ("other?x=1", "/v1/chat/other?x=1"), ("?y=1", "/v1/chat/completions?y=1"), ("//127.0.0.1:PORT/other", "/other"),
      ("http://127.0.0.1:PORT/other", "/other"), ("HTTP://127.0.0.1:PORT/other", "/other"),
    ])
  func redirected(transport: Transport, target: (location: String, path: String)) async throws {
    for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
      let port = Locked("")
      let upstream = try ScriptedUpstream { exchange in
        if exchange.request.head.hasPrefix("POST \(target.path) HTTP") { return exchange.stream(["Hi"]) }
        let location = target.location.replacingOccurrences(of: "PORT", with: port.withLock(\.self))
        exchange.respond(status, "moved", more: "Location: \(location)\r\n", type: "text/plain")
      }
      port.withLock { $0 = String(upstream.port) }
      // The second message is too large for libcurl to copy.
      for message in ["Hi", String(repeating: "x", count: 40_000)] {
        let result = try await generate(upstream, transport, text: message)
        #expect(result.text == "Hi" && result.error == nil, "\(result)")
        let requests = upstream.requests.suffix(2)
        #expect(requests.allSatisfy { $0.head.contains("Authorization: Bearer sk-1") }, "\(requests.map(\.head))")
        #expect(requests.first?.body == requests.last?.body && requests.last?.body.contains(message) == true)
      }
    }
  }

  @Test("A redirection elsewhere, or without an end, is a failure that is not repeated", arguments: Transport.allCases)
  func elsewhere(transport: Transport) async throws {
    let other = try ScriptedUpstream { $0.stream(["stolen"]) }
    for (status, location, requests) in [
      ("308 Moved", other.baseURL, 1), ("307 Moved", "https://127.0.0.1/v1", 1), ("307 Moved", "../up", 1),
      ("307 Moved", "again", 4),
      ("307 Moved", "http://127.0.0.1.example/v1", 1), ("307 Moved", "http://user@127.0.0.1/v1", 1),
      ("302 Found", "/v1/chat", 1), ("307 Moved", "", 1), ("307 Moved", "/v1/again", 4),
    ] {
      let upstream = try ScriptedUpstream { $0.respond(status, "moved", more: "Location: \(location)\r\n") }
      let result = try await generate(upstream, transport)
      #expect(result.error?.code == .failed && result.error?.isRetriable == false, "\(location) \(result)")
      #expect(upstream.requests.count == requests, "\(location)")
    }
    #expect(other.connections == 0)
  }
}
