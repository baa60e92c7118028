import Bytes
import EventLoop
import Foundation
import SluiceTesting
import Testing

@testable import Upstream

/// The two HTTP clients, which must behave identically.
enum Transport: CaseIterable {
  case plain, libcurl
}

/// Sends a prompt to `upstream` `times` times, and returns the last complete output, or the first error.
private func generate(
  _ upstream: ScriptedUpstream, _ transport: Transport, key: String? = nil, times: Int = 1
) async throws -> (text: String, completion: Completion?, error: GeneratorError?) {
  let generator = OpenAIGenerator(baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl, key: { key })
  return try await onLoop { reactor in
    var text = ""
    var completion: Completion?
    for _ in 0..<times {
      text = ""
      let answer = generator.start(Prompt(messages: [Message(.user, "Hi")], model: "m", maximumTokens: 7), on: reactor)
      do throws(GeneratorError) {
        try await answer.waitUntilAccepted()
        events: while true {
          switch try await answer.next() {
          case .delta(let delta): text += delta
          case .chunk(let chunk): text += chunk.text
          case .completed(let end):
            completion = end
            break events
          }
        }
      } catch { return (text, nil, error) }
      try await waitUntilIdle(generator, reactor)
      // Bytes that follow a response are noticed on the idle connection.
      try await reactor.sleep(for: .milliseconds(20))
    }
    return (text, completion, nil)
  }
}

/// Waits until the connections of a generator on a loop can be reused.
private func waitUntilIdle(_ generator: OpenAIGenerator, _ reactor: Reactor) async throws {
  let connections: OpenAIGenerator.Connections? = reactor.attachment(of: generator)
  while let connections, !connections.client.isIdle { try await reactor.sleep(for: .milliseconds(1)) }
}

@Suite("OpenAI-compatible upstream")
struct OpenAITests {
  @Test(
    "A response that is one object, and a stream that is declared as text/plain, are read",
    arguments: Transport.allCases)
  func unstreamed(transport: Transport) async throws {
    let usage = #""usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#
    let message = #"{"index":0,"message":{"role":"assistant","content":"Hello 🎧"},"finish_reason":"length"}"#
    let object = try ScriptedUpstream { exchange in
      exchange.respond("200 OK", #"{"object":"chat.completion","choices":[\#(message)],\#(usage)}"#)
    }
    let whole = try await generate(object, transport, times: 2)
    #expect(whole.text == "Hello 🎧", "\(whole)")
    #expect(
      whole.completion
        == Completion(.length, usage: Usage(promptTokens: 1, completionTokens: 2, totalTokens: 3)), "\(whole)")
    for body in [#"{"error":{"type":"overloaded"}}"#, #"{"ok":true}"#, "[1]", ""] {
      let wrong = try ScriptedUpstream { $0.respond("200 OK", body) }
      let result = try await generate(wrong, transport)
      #expect(result.text.isEmpty && result.error?.code == .failed, "\(body) \(result)")
    }
    let plain = try ScriptedUpstream { exchange in
      exchange.respond(
        "200 OK",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        type: "text/plain; charset=utf-8")
    }
    #expect(try await generate(plain, transport).text == "Hi")
  }

  @Test("A path is inserted before the query of the base URL", arguments: Transport.allCases)
  func query(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { $0.stream(["Hi"]) }
    let generator = OpenAIGenerator(
      baseURL: upstream.baseURL + "/?api-version=2024-10-21", usesLibcurl: transport == .libcurl)
    let text = try await onLoop { reactor in
      let answer = generator.start(Prompt(messages: [Message(.user, "Hi")]), on: reactor)
      try await answer.waitUntilAccepted()
      _ = try await answer.next()
      return try #require(upstream.requests.first?.head)
    }
    #expect(text.hasPrefix("POST /v1/chat/completions?api-version=2024-10-21 HTTP/1.1"), "\(text)")
  }

  @Test(
    "A request contains the API key and requests a stream with usage, and its output arrives completely",
    arguments: Transport.allCases)
  func usual(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { $0.stream(["Hel", "lo", " 🎧"]) }
    let result = try await generate(upstream, transport, key: "sk-1")
    #expect(result.text == "Hello 🎧")
    #expect(result.completion == Completion(.stop))
    let request = try #require(upstream.requests.first)
    #expect(request.head.hasPrefix("POST /v1/chat/completions HTTP/1.1"))
    #expect(request.head.contains("Authorization: Bearer sk-1"))
    for part in [#""stream":true"#, #""include_usage":true"#, #""model":"m""#, #""max_tokens":7"#, #""content":"Hi""#] {
      #expect(request.body.contains(part), "\(request.body)")
    }
  }

  @Test(
    "A refusal is a failure, and its log detail contains the error type and code but not the message",
    arguments: Transport.allCases, ["500 Oops", "401 No", "404 Gone"])
  func refusal(transport: Transport, status: String) async throws {
    let upstream = try ScriptedUpstream {
      $0.respond(status, #"{"error":{"message":"bad key sk-1","type":"auth_error","code":"invalid_key"}}"#)
    }
    let error = try #require(try await generate(upstream, transport, key: "sk-1").error)
    #expect(error.code == .failed)
    #expect(!error.message.contains("sk-1") && error.message.contains(status.prefix(3)))
    #expect(error.detail == "status \(status.prefix(3)), auth_error invalid_key")
  }

  @Test(
    "An API key that cannot be read fails the request before it is sent, and the reason is logged",
    arguments: Transport.allCases)
  func noKey(transport: Transport) async throws {
    struct Unreadable: Error {}
    let upstream = try ScriptedUpstream { $0.stream(["a"]) }
    let generator = OpenAIGenerator(
      baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl, key: { throw Unreadable() })
    let error = try await onLoop { reactor -> GeneratorError? in
      do throws(GeneratorError) {
        try await generator.start(Prompt(messages: []), on: reactor).waitUntilAccepted()
        return nil
      } catch { return error }
    }
    #expect(error?.code == .misconfigured && error?.detail?.contains("Unreadable") == true)
    #expect(upstream.connections == 0)
  }

  @Test("A rate limit is reported with its Retry-After delay", arguments: Transport.allCases)
  func rateLimited(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { $0.respond("429 Slow", "{}", more: "Retry-After: 7\r\n") }
    let error = try #require(try await generate(upstream, transport).error)
    #expect(error.code == .rateLimited && error.retryAfter == .seconds(7))
  }

  @Test("Retry-After is read as seconds or as a date, for status 429 and 503", arguments: Transport.allCases)
  func retryAfter(transport: Transport) async throws {
    let date = Date(timeIntervalSinceNow: 600).formatted(
      .verbatim(
        "\(weekday: .abbreviated), \(day: .twoDigits) \(month: .abbreviated) \(year: .defaultDigits) \(hour: .twoDigits(clock: .twentyFourHour, hourCycle: .zeroBased)):\(minute: .twoDigits):\(second: .twoDigits) GMT",
        locale: Locale(identifier: "en_US_POSIX"), timeZone: .gmt, calendar: Calendar(identifier: .gregorian)))
    for (status, code) in [("429 Slow", GeneratorError.Code.rateLimited), ("503 Full", .failed)] {
      for (value, range) in [("7", 7...7), (date, 500...601), ("Thu, 01 Jan 1970 00:00:10 GMT", 0...0)] {
        let upstream = try ScriptedUpstream { $0.respond(status, "{}", more: "Retry-After: \(value)\r\n") }
        let error = try #require(try await generate(upstream, transport).error)
        let seconds = error.retryAfter.map { Int($0.components.seconds) } ?? -1
        #expect(error.code == code && range.contains(seconds), "\(status), \(value): \(error)")
      }
    }
    let upstream = try ScriptedUpstream { $0.respond("503 Full", "{}", more: "Retry-After: soon\r\n") }
    #expect(try await generate(upstream, transport).error?.retryAfter == nil)
  }

  @Test("An informational response is ignored in favor of the final one", arguments: Transport.allCases)
  func informational(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.send("HTTP/1.1 103 Early Hints\r\nContent-Type: text/html\r\nRetry-After: 5\r\n\r\n")
      exchange.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
      exchange.sendDelta("Hi", finishReason: "stop")
      exchange.sendDone()
    }
    let result = try await generate(upstream, transport)
    #expect(result.text == "Hi" && result.error == nil, "\(result)")
  }

  @Test(
    "A response with an unrequested encoding is dropped before it is decoded",
    arguments: Transport.allCases,
    ["Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip", "Content-Encoding: br"])
  func unrequestedEncoding(transport: Transport, field: String) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead(more: field + "\r\n")
      // Sends the header of a gzip member, without any content.
      exchange.send([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3])
      exchange.waitUntilClosed()
    }
    let error = try #require(try await generate(upstream, transport).error)
    #expect(error.code == .failed && error.message.contains("encoding"), "\(error)")
    #expect(await eventually { !upstream.closeTimes.isEmpty })
  }

  @Test(
    "A large request is encoded off the loop, sent completely, and retried if a reused connection closes",
    arguments: Transport.allCases)
  func largeRequest(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { exchange in
      // The first response leaves its connection open; the second request gets no response on it, and is retried.
      if exchange.requestCount == 2 { return }
      let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
      exchange.respond("200 OK", body, more: "X: y\r\n", type: "text/event-stream")
    }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl)
    let long = String(repeating: "é", count: 300_000)
    for _ in 0..<2 {
      let text = try await onLoop { reactor -> String in
        var texts = ""
        for _ in 0..<2 {
          let answer = generator.start(Prompt(messages: [Message(.user, long)]), on: reactor)
          while case .delta(let text) = try await answer.next() { texts += text }
          try await waitUntilIdle(generator, reactor)
        }
        return texts
      }
      #expect(text == "aa")
    }
    for request in upstream.requests { #expect(request.body.contains("\"\(long)\""), "\(request.body.utf8.count)") }
    #expect(upstream.requests.count == 5)
  }

  @Test("A large request that is cancelled while it is encoded is not sent", arguments: Transport.allCases)
  func abandonedEarly(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { $0.stream(["a"]) }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl)
    try await onLoop { reactor in
      generator.start(Prompt(messages: [Message(.user, String(repeating: "x", count: 300_000))]), on: reactor).cancel()
      try await reactor.sleep(for: .milliseconds(100))
    }
    #expect(upstream.connections == 0)
  }

  @Test("A response that is not an event stream is a failure, even with status 200", arguments: Transport.allCases)
  func notStreamed(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { $0.respond("200 OK", #"{"error":{"message":"x","type":"overloaded"}}"#) }
    let error = try #require(try await generate(upstream, transport).error)
    #expect(error.code == .failed && error.detail == "error overloaded", "\(error)")
    let page = try ScriptedUpstream { $0.respond("200 OK", "<html></html>", type: "text/html; charset=utf-8") }
    #expect(try await generate(page, transport).error?.detail == "status 200, Content-Type text/html")
  }

  @Test(
    "A stream that ends early or is reset is truncated after all text that arrived", arguments: Transport.allCases,
    [false, true])
  func truncated(transport: Transport, resets: Bool) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead()
      exchange.sendDelta("Hel")
      exchange.pause(.milliseconds(50))
      if resets { exchange.reset() }
    }
    let result = try await generate(upstream, transport)
    #expect(result.text == "Hel" && result.error?.code == .truncated, "\(result)")
  }

  @Test("A chunked body that ends early is truncated", arguments: Transport.allCases)
  func cutChunks(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
      exchange.send("100\r\ndata: {\"choices\"")
    }
    #expect(try await generate(upstream, transport).error?.code == .truncated)
  }

  @Test(
    "A connection closed before a complete head is a failure", arguments: Transport.allCases,
    ["", "HTTP/1.1 200 OK\r\nContent-"])
  func noHead(transport: Transport, sent: String) async throws {
    let upstream = try ScriptedUpstream { $0.send(sent) }
    #expect(try await generate(upstream, transport).error?.code == .failed)
  }

  @Test(
    "A reused connection that closes without a response is a failure after one retry on a new connection",
    arguments: Transport.allCases)
  func keptThenClosed(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { exchange in
      if exchange.request.body.contains("refuse") { exchange.respond("500 Oops", "{}") }
    }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl)
    let codes = try await onLoop { reactor -> [GeneratorError.Code] in
      var codes: [GeneratorError.Code] = []
      for word in ["refuse", "refuse", "close"] {
        do throws(GeneratorError) {
          try await generator.start(Prompt(messages: [Message(.user, word)]), on: reactor).waitUntilAccepted()
        } catch { codes.append(error.code) }
      }
      return codes
    }
    #expect(codes == [.failed, .failed, .failed])
    #expect(upstream.requests.count == 4 && upstream.connections == 2)
  }

  @Test("A refused connection is a failure", arguments: Transport.allCases)
  func countRefusal(transport: Transport) async throws {
    let generator = OpenAIGenerator(baseURL: "http://127.0.0.1:1/v1", usesLibcurl: transport == .libcurl)
    let code = try await onLoop { reactor -> GeneratorError.Code? in
      do throws(GeneratorError) {
        try await generator.start(Prompt(messages: []), on: reactor).waitUntilAccepted()
        return nil
      } catch { return error.code }
    }
    #expect(code == .failed)
  }

  @Test("A response with fewer choices than the prompt asks for is complete some time after the last has finished")
  func fewerChoices() async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead()
      exchange.sendDelta("a")
      exchange.sendDelta("", finishReason: "stop")
      exchange.waitUntilClosed()
    }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL)
    let clock = ManualClock()
    let end = try await onLoop(clock: clock.loopClock) { reactor in
      var prompt = Prompt(messages: [Message(.user, "Hi")])
      prompt.parameters["n"] = 2
      let output = generator.start(prompt, on: reactor)
      guard case .delta("a") = try await output.next() else { return nil as ModelOutput.Event? }
      while !output.hasQueuedEvents { await clock.advance(by: .seconds(1), on: reactor) }
      return try await output.next()
    }
    #expect(end == .completed(Completion(.stop)))
  }

  @Test("A stream that goes silent after its finish_reason is complete", arguments: Transport.allCases)
  func noEnd(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead()
      exchange.sendDelta("Hi", finishReason: "stop")
      exchange.waitUntilClosed()
    }
    let result = try await generate(upstream, transport)
    #expect(result.text == "Hi" && result.completion == Completion(.stop))
  }

  @Test("A connection is reused for the next request", arguments: Transport.allCases)
  func reuse(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { exchange in
      let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
      exchange.respond("200 OK", body, more: "X: y\r\n", type: "text/event-stream")
    }
    let result = try await generate(upstream, transport, times: 5)
    #expect(result.text == "a" && result.error == nil)
    #expect(upstream.requests.count == 5)
    #expect(upstream.connections == 1)
  }

  @Test(
    "Cancelling output closes the connection immediately, before or after the first token",
    arguments: Transport.allCases, [false, true])
  func cancelled(transport: Transport, afterToken: Bool) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead()
      if afterToken { exchange.sendDelta("a") }
      exchange.waitUntilClosed()
    }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl)
    let cancelledAt = try await onLoop { reactor -> ContinuousClock.Instant in
      let answer = generator.start(Prompt(messages: []), on: reactor)
      try await answer.waitUntilAccepted()
      if afterToken { _ = try await answer.next() }
      let now = ContinuousClock.now
      answer.cancel()
      return now
    }
    #expect(await eventually { !upstream.closeTimes.isEmpty })
    let closedAt = try #require(upstream.closeTimes.first)
    #expect(closedAt - cancelledAt < .milliseconds(500))
  }

  @Test(
    "A slow reader pauses the upstream, so that little is buffered and nothing is lost", arguments: Transport.allCases)
  func backPressure(transport: Transport) async throws {
    let piece = String(repeating: "x", count: 1000)
    let upstream = try ScriptedUpstream { $0.stream(Array(repeating: piece, count: 5000)) }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl)
    let (most, total) = try await onLoop { reactor -> (Int, Int) in
      let answer = generator.start(Prompt(messages: []), on: reactor)
      try await answer.waitUntilAccepted()
      var (most, total) = (0, 0)
      while case .delta(let text) = try await answer.next() {
        total += text.utf8.count
        if total % 100_000 == 0 { try await reactor.sleep(for: .milliseconds(10)) }
        most = max(most, answer.queuedBytes)
      }
      return (most, total)
    }
    #expect(total == 5_000_000)
    #expect(most < 140_000, "\(most) bytes waited")
  }

  @Test("Many requests, some of them cancelled, leave no timers or descriptors behind", arguments: Transport.allCases)
  func leaks(transport: Transport) async throws {
    let upstream = try ScriptedUpstream { $0.stream(["a", "b"], gap: .milliseconds(2)) }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL, usesLibcurl: transport == .libcurl)
    let (timers, watched) = try await onLoop { reactor -> (Int, Int) in
      for index in 0..<100 {
        let answer = generator.start(Prompt(messages: []), on: reactor)
        if index % 3 == 0 { answer.cancel() } else { while case .delta = try await answer.next() {} }
      }
      try await reactor.sleep(for: .milliseconds(200))
      return (reactor.pendingTimers, reactor.watchedDescriptors)
    }
    // Only the loop's own wake-up descriptor is still watched; libcurl can keep one timer of its own.
    #expect(timers <= 1 && watched == 1, "\(timers) timers, \(watched) descriptors")
  }
}

@Suite("Plain HTTP client")
struct PlainHTTPClientTests {
  private static let done =
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"

  @Test("A name with addresses of both families is tried until one accepts the connection")
  func names() async throws {
    let upstream = try ScriptedUpstream { $0.stream(["Hi"]) }
    let generator = OpenAIGenerator(baseURL: "http://localhost:\(upstream.port)/v1")
    for _ in 0..<2 {
      let text = try await onLoop { reactor -> String in
        let output = generator.start(Prompt(messages: []), on: reactor)
        var all = ""
        while case .delta(let text) = try await output.next() { all += text }
        return all
      }
      #expect(text == "Hi")
    }
    #expect(upstream.requests.allSatisfy { $0.head.contains("Host: localhost:\(upstream.port)\r\n") })
  }

  @Test("A name that does not exist is a failure whose log detail contains it")
  func unknownName() async throws {
    let generator = OpenAIGenerator(baseURL: "http://model.invalid/v1")
    let error = try await onLoop { reactor -> GeneratorError? in
      do throws(GeneratorError) {
        try await generator.start(Prompt(messages: []), on: reactor).waitUntilAccepted()
        return nil
      } catch { return error }
    }
    #expect(error?.code == .failed && error?.detail?.contains("model.invalid") == true, "\(String(describing: error))")
  }

  @Test(
    "A malformed response is a failure whose log detail names the reason",
    arguments: [
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "nonsense\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ])
  func malformed(response: String) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.send(response)
      exchange.waitUntilClosed()
    }
    let error = try #require(try await generate(upstream, .plain).error)
    #expect(error.detail?.contains("malformed") == true, "\(error)")
    #expect(await eventually { !upstream.closeTimes.isEmpty })
  }

  @Test("A connection is not reused after bytes that follow its response")
  func surplus() async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.respond("200 OK", Self.done, more: "X: y\r\n", type: "text/event-stream")
      exchange.send("HTTP/1.1 200 OK\r\n")
    }
    let result = try await generate(upstream, .plain, times: 3)
    #expect(result.text == "a" && result.error == nil)
    #expect(upstream.connections == 3)
  }

  @Test("A connection is reused although its responses arrive in many parts")
  func parts() async throws {
    let response =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: \(Self.done.utf8.count)\r\n\r\n"
    let upstream = try ScriptedUpstream { exchange in
      exchange.keepsConnection = true
      for part in Array((response + Self.done).utf8).parts(of: 8) { exchange.send(part) }
    }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL)
    let texts = try await onLoop { reactor -> [String] in
      var texts: [String] = []
      for _ in 0..<100 {
        let output = generator.start(Prompt(messages: []), on: reactor)
        while case .delta(let text) = try await output.next() { texts.append(text) }
        await reactor.nextTurn()
      }
      return texts
    }
    #expect(texts == Array(repeating: "a", count: 100))
    #expect(upstream.connections == 1)
  }

  @Test("A request is not repeated if its connection closes only after the model may have run")
  func lateClose() async throws {
    let upstream = try ScriptedUpstream { exchange in
      if exchange.requestCount == 2 { return exchange.pause(.milliseconds(1200)) }
      exchange.respond("200 OK", Self.done, more: "X: y\r\n", type: "text/event-stream")
    }
    let result = try await generate(upstream, .plain, times: 2)
    #expect(result.error?.code == .failed && upstream.requests.count == 2, "\(result), \(upstream.requests.count)")
  }

  @Test("A response to a request that is still being sent is complete, and its connection is not reused")
  func earlyResponse() async throws {
    let server = try Loopback.listen()
    let port = Loopback.port(of: server)
    let thread = try JoinableThread(name: "early") {
      let number = server.accept()
      guard number >= 0 else { return }
      let connection = Descriptor(owning: number)
      _ = connection.receive()
      connection.sendAll(Array("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}".utf8))
      // Reads until the client closes, although it has not sent everything.
      while let bytes = connection.receive(), !bytes.isEmpty {}
    }
    let generator = OpenAIGenerator(baseURL: "http://127.0.0.1:\(port)/v1")
    let error = try await onLoop { reactor -> GeneratorError? in
      let long = String(repeating: "x", count: 8_000_000)
      do throws(GeneratorError) {
        try await generator.start(Prompt(messages: [Message(.user, long)]), on: reactor).waitUntilAccepted()
        return nil
      } catch { return error }
    }
    thread.join()
    #expect(error?.message.contains("413") == true, "\(String(describing: error))")
  }

  @Test("The connections of ended exchanges stay open up to the limit, and those that the server closes are released")
  func idle() async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.respond("200 OK", Self.done, more: "X: y\r\n", type: "text/event-stream")
    }
    let generator = OpenAIGenerator(baseURL: upstream.baseURL, maximumIdleConnections: 3)
    let watched = try await onLoop { reactor -> Int in
      let outputs = (0..<8).map { _ in generator.start(Prompt(messages: []), on: reactor) }
      for output in outputs { while case .delta = try await output.next() {} }
      try await reactor.sleep(for: .milliseconds(50))
      return reactor.watchedDescriptors
    }
    // The loop's own descriptor is watched too.
    #expect(watched == 4, "\(watched) descriptors")
  }
}

@Suite("Model output")
struct ModelOutputTests {
  @Test("Deltas stay in order when the source resumes during a read")
  func order() async throws {
    let texts = try await onLoop { reactor -> [String] in
      final class Receiver: DeltaReceiver {
        var taken: [String] = []
        func receive(_ delta: borrowing Span<UInt8>) -> Bool {
          taken.append(String(decodingUTF8: delta))
          return true
        }
        func receive(_ chunk: OutputChunk) -> Bool { false }
        func didReceiveActivity() {}
      }
      let (answer, receiver) = (ModelOutput(), Receiver())
      var held = ["2", "3"]
      // Delivers the withheld deltas during the call, as libcurl does.
      answer.onDrain = { for text in exchange(&held, with: []) { answer.yield(text) } }
      answer.yield(String(repeating: "1", count: 66_000))
      #expect(answer.isFull)
      answer.receiver = receiver
      guard case .delta(let first) = try await answer.next() else { return [] }
      receiver.taken.append(String(first.prefix(1)))
      _ = try answer.nextReady()
      return receiver.taken
    }
    #expect(texts == ["1", "2", "3"])
  }
}

@Suite("Echo generator")
struct EchoTests {
  @Test(
    "The echo generator returns the last message, at most one word per delta",
    arguments: ["", " ", "a", "The quick  brown\nfox ", "🎧 é"])
  func words(text: String) async throws {
    let deltas = try await onLoop { reactor -> [String] in
      var deltas: [String] = []
      let prompt = Prompt(messages: [Message(.user, "earlier"), Message(.user, text)])
      let answer = EchoGenerator().start(prompt, on: reactor)
      while case .delta(let delta) = try await answer.next() { deltas.append(delta) }
      return deltas
    }
    #expect(deltas.joined() == text)
    #expect(deltas.allSatisfy { $0.split(whereSeparator: \.isWhitespace).count <= 1 }, "\(deltas)")
  }
}

extension [UInt8] {
  /// The bytes in parts of `count`, the last of which can be shorter.
  fileprivate func parts(of count: Int) -> [[UInt8]] {
    stride(from: 0, to: self.count, by: count).map { Array(self[$0..<Swift.min($0 + count, self.count)]) }
  }
}
