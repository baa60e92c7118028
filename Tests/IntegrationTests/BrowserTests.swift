import Foundation
import SluiceTesting
import Testing

/// A real browser that curl controls through the WebDriver protocol (W3C WebDriver, level 2).
final class Browser: Sendable {
  private let driver: Program
  private let base: String
  private let session: String

  init() async throws {
    let socket = try Loopback.listen()
    let port = Loopback.port(of: socket)
    do { _ = consume socket }
    base = "http://127.0.0.1:\(port)"
    driver = try Program("/usr/bin/chromedriver", ["--port=\(port)"])
    let (driver, base) = (driver, base)
    let isUp = await eventually(within: .seconds(30)) { (try? await Self.call("GET", base + "/status", nil)) != nil }
    try #require(isUp, "\(driver.output) \(driver.errors)")
    let options = ["args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]]
    let answer = try await Self.call(
      "POST", base + "/session", ["capabilities": ["alwaysMatch": ["goog:chromeOptions": options]]])
    session = try #require((answer as? [String: Any])?["sessionId"] as? String, "\(String(describing: answer))")
  }

  func open(_ url: String) async throws { _ = try await call("/url", ["url": url]) }

  /// Runs a script in the page and returns its result as a string.
  func run(_ script: String) async throws -> String {
    try await call("/execute/sync", ["script": "return String(\(script))", "args": [String]()]) as? String ?? ""
  }

  /// Opens a tab, which becomes the current one, and returns the handle of the one before.
  func openTab(_ url: String) async throws -> String {
    let before = try await Self.call("GET", "\(base)/session/\(session)/window", nil) as? String
    let tab = try await call("/window/new", ["type": "tab"]) as? [String: String]
    try await select(try #require(tab?["handle"]))
    try await open(url)
    return try #require(before)
  }

  func select(_ tab: String) async throws { _ = try await call("/window", ["handle": tab]) }

  func reload() async throws { _ = try await call("/refresh", [String: Any]()) }

  func click(_ selector: String) async throws {
    let found = try await call("/element", ["using": "css selector", "value": selector]) as? [String: String]
    _ = try await call("/element/\(try #require(found?.values.first))/click", [String: String]())
  }

  func close() async {
    _ = try? await Self.call("DELETE", "\(base)/session/\(session)", nil)
    driver.signal(SIGTERM)
    _ = await driver.exitCode()
  }

  private func call(_ path: String, _ body: [String: Any]) async throws -> Any? {
    try await Self.call("POST", "\(base)/session/\(session)\(path)", body)
  }

  private struct BrowserError: Error {
    let message: String
  }

  private static func call(_ method: String, _ url: String, _ body: [String: Any]?) async throws -> Any? {
    var arguments = ["-sS", "--max-time", "60", "-X", method, url]
    if let body {
      let json = try JSONSerialization.data(withJSONObject: body)
      arguments += ["-H", "Content-Type: application/json", "-d", String(decoding: json, as: UTF8.self)]
    }
    let curl = try Program("/usr/bin/curl", arguments)
    let code = await curl.exitCode(within: .seconds(60))
    guard code == 0 else { throw BrowserError(message: curl.errors) }
    return (try JSONSerialization.jsonObject(with: Data(curl.output.utf8)) as? [String: Any])?["value"]
  }
}

extension Integration {
  @Suite("Example page in a browser")
  struct BrowserTests {
    private static let answer = "document.querySelector('#messages .assistant:last-child')?.textContent"
    private static let status = "document.getElementById('status').textContent"

    @Test("The page shows tokens as they arrive, can stop a stream, and reports a lost connection")
    func page() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "50ms"])
      let browser = try await Browser()
      try await browser.open("\(servers.url)/#token=\(servers.token)")

      try await browser.click("#send")
      // The first words are displayed before the response is complete.
      #expect(await eventually { (try? await browser.run(Self.answer).hasPrefix("The quick")) == true })
      #expect(await eventually { (try? await browser.run(Self.status)) == "Done." })
      #expect(try await browser.run(Self.answer) == "The quick brown fox jumps over the lazy dog")
      #expect(servers.storedLines.count == 1)
      #expect(try await browser.run("location.href") == servers.url + "/")

      let words = String(repeating: "word ", count: 400)
      _ = try await browser.run("document.getElementById('message').value = '\(words)'")
      try await browser.click("#send")
      #expect(await eventually { (try? await browser.run(Self.answer).hasPrefix("word")) == true })
      try await browser.click("#stop")
      #expect(await eventually { (try? await browser.run(Self.status).hasPrefix("Stopped.")) == true })
      #expect(await servers.outcomes(2) == ["completed", "stopped"])
      // What was typed meanwhile is kept, and so is the reason of the failure.
      #expect(try await browser.run("document.getElementById('message').value") == "")
      #expect(
        try await browser.run("document.querySelector('#messages .failed').dataset.note")
          == "Stopped. Nothing was stored.")

      _ = try await browser.run("document.getElementById('message').value = '\(words)'")
      try await browser.click("#send")
      #expect(await eventually { (try? await browser.run(Self.answer).hasPrefix("word")) == true })
      kill(servers.pid, SIGKILL)
      // The page has tried to resume the stream.
      #expect(
        await eventually(within: .seconds(30)) {
          (try? await browser.run(Self.status).contains("lost before the answer was complete")) == true
        })
      #expect(servers.storedLines.count == 1)
      #expect(try await browser.run("document.getElementById('retry').hidden") == "false")
      await browser.close()
      _ = await servers.stop()
    }

    @Test(
      "The page explains answers that are not complete for a person, keeps a draft, and says what to do about a 401")
    func explanations() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        if !exchange.request.body.contains("nothing") { exchange.sendDelta("one") }
        exchange.sendDelta("", finishReason: exchange.request.body.contains("long") ? "length" : "stop")
        exchange.sendDone()
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let browser = try await Browser()
      try await browser.open("\(servers.url)/#token=\(servers.token)")
      func send(_ message: String) async throws {
        _ = try await browser.run("document.getElementById('message').value = '\(message)'")
        try await browser.click("#send")
      }
      func shows(_ status: String) async -> Bool {
        await eventually { (try? await browser.run(Self.status)) == status }
      }
      try await send("long")
      _ = try await browser.run("document.getElementById('message').value = 'a draft'")
      #expect(await shows("The answer has reached its maximum length."))
      #expect(try await browser.run("document.getElementById('message').value") == "a draft")
      try await send("nothing")
      #expect(await shows("The answer is empty."))
      _ = try await browser.run("document.getElementById('token').value = 'wrong'")
      try await send("hello")
      #expect(await shows("The token is missing or not valid. Enter one below."))
      await browser.close()
      _ = await servers.stop()
    }

    @Test("The page retries a failed stream, and displays a JSON response if streaming is disabled")
    func retry() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta("Hel")
        if exchange.request.body.contains("fail"), exchange.requestCount == 1 { return exchange.reset() }
        exchange.sendDelta("lo", finishReason: "stop")
        exchange.sendDone()
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let browser = try await Browser()
      try await browser.open("\(servers.url)/#token=\(servers.token)")
      _ = try await browser.run("document.getElementById('message').value = 'fail once'")
      try await browser.click("#send")
      #expect(await eventually { (try? await browser.run("document.getElementById('retry').hidden")) == "false" })
      try await browser.click("#retry")
      #expect(await eventually { (try? await browser.run(Self.status)) == "Done." })
      #expect(try await browser.run(Self.answer) == "Hello")
      #expect(try await browser.run("document.querySelectorAll('#messages li').length") == "2")
      #expect(servers.storedLines.count == 1)
      _ = await servers.stop()

      let off = try await Servers(["SLUICE_STREAM_CHAT": "off", "SLUICE_ECHO_GAP": "1ms"])
      try await browser.open("\(off.url)/#token=\(off.token)")
      try await browser.click("#send")
      #expect(await eventually { (try? await browser.run(Self.status)) == "Done." })
      #expect(try await browser.run(Self.answer) == "The quick brown fox jumps over the lazy dog")
      await browser.close()
      _ = await off.stop()
    }

    private static let question = "document.querySelector('#messages .user')?.textContent"

    @Test(
      "A stream survives a lost connection, nginx's reload and the page's own, and is seen in a second tab",
      arguments: ["", "?transport=websocket"])
    func resumption(query: String) async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "100ms", "SLUICE_RESUME": "20s"])
      let browser = try await Browser()
      let words = (0..<80).map { "w\($0)" }.joined(separator: " ")
      try await browser.open("\(servers.url)/\(query)#token=\(servers.token)")
      _ = try await browser.run("document.getElementById('message').value = '\(words)'")
      try await browser.click("#send")
      func shows(_ word: String) async -> Bool {
        await eventually(within: .seconds(20)) { (try? await browser.run(Self.answer).contains(word + " ")) == true }
      }
      #expect(await shows("w3"))
      #expect(try await servers.metric("sluice_websockets_open") == (query.isEmpty ? 0 : 1))
      try servers.cutConnections()
      #expect(await shows("w12"))
      kill(servers.nginxPID, SIGHUP)
      #expect(await shows("w18"))
      try await browser.reload()
      #expect(await shows("w25"))
      #expect(try await browser.run(Self.question) == words)
      let session = try await browser.run("sessionStorage.getItem('session')")
      let first = try await browser.openTab("\(servers.url)/\(query)#token=\(servers.token)&session=\(session)")
      #expect(await shows("w35"))
      #expect(try await browser.run(Self.question) == words)
      for tab in ["second", "first"] {
        #expect(
          await eventually(within: .seconds(30)) { (try? await browser.run(Self.status)) == "Done." }, "\(tab) tab")
        #expect(try await browser.run(Self.answer) == words, "\(tab) tab")
        if tab == "second" { try await browser.select(first) }
      }
      #expect(servers.storedLines.count == 1)
      #expect(await servers.outcomes(1) == ["completed"])
      // After the end a reload shows the stored turn.
      try await browser.reload()
      #expect(await eventually { (try? await browser.run(Self.answer)) == words })
      await browser.close()
      _ = await servers.stop()
    }

    @Test("An EventSource that loses its connection continues by itself, without a gap")
    func eventSourceContinues() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "100ms", "SLUICE_RESUME": "20s"])
      let browser = try await Browser()
      try await browser.open("\(servers.url)/")
      let words = (0..<60).map { "w\($0)" }.joined(separator: "+")
      _ = try await browser.run(
        """
        (() => {
          window.sequence = []; window.ends = [];
          const source = new EventSource('/api/stream/ai-block/quiz?input=\(words)&token=\(servers.token)');
          source.addEventListener('chunk', (e) => sequence.push(JSON.parse(e.data).seq));
          source.addEventListener('complete', (e) => { ends.push(e.lastEventId); source.close(); });
        })()
        """)
      #expect(await eventually { (try? await browser.run("sequence.length > 4")) == "true" })
      try servers.cutConnections()
      #expect(await eventually(within: .seconds(30)) { (try? await browser.run("ends.length")) == "1" })
      #expect(try await browser.run("sequence.join()") == (0..<60).map(String.init).joined(separator: ","))
      #expect(try await browser.run("ends[0].endsWith('.end')") == "true")
      #expect(await servers.outcomes(1) == ["completed"])
      await browser.close()
      _ = await servers.stop()
    }

    @Test("An EventSource that reconnects does not start a second generation")
    func eventSource() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "20ms"])
      let browser = try await Browser()
      try await browser.open("\(servers.url)/")
      _ = try await browser.run(
        """
        (() => {
          window.chunks = []; window.ends = [];
          const source = new EventSource('/chat/stream?message=one+two&token=\(servers.token)');
          source.onmessage = (e) => {
            const record = JSON.parse(e.data);
            if (record.type === 'chunk') chunks.push(record.content); else ends.push(record.type);
          };
          window.source = source;
        })()
        """)
      #expect(await eventually { (try? await browser.run("ends.join()")) == "complete" })
      // The page does not close the EventSource. It reconnects, gets 204, and closes permanently.
      #expect(await eventually(within: .seconds(20)) { (try? await browser.run("source.readyState")) == "2" })
      #expect(try await browser.run("chunks.join('')") == "one two")
      #expect(servers.storedLines.count == 1)
      await browser.close()
      _ = await servers.stop()
    }

    @Test("A page can stream from another origin only if its own origin is configured there")
    func otherOrigin() async throws {
      let page = try await Servers()
      let allowing = try await Servers(["SLUICE_ECHO_GAP": "5ms", "SLUICE_CORS_ORIGINS": page.url])
      let silent = try await Servers(["SLUICE_ECHO_GAP": "5ms"])
      let browser = try await Browser()
      try await browser.open("\(page.url)/")
      for (servers, expected) in [(allowing, "ok one two"), (silent, "TypeError")] {
        _ = try await browser.run(
          """
          (() => { window.result = ''; (async () => {
            try {
              const { chat } = await import('/sluice.js');
              const run = chat('one two', { url: '\(servers.url)/api/chat', token: '\(servers.token)' });
              let text = '';
              for await (const piece of run) text += piece;
              const end = await run.done;
              result = (run.id && end.type === 'done' ? 'ok ' : 'bad ') + text;
            } catch (e) { result = e.code === 'connection_lost' ? 'TypeError' : String(e); }
          })(); })()
          """)
        _ = await eventually { (try? await browser.run("result")) != "" }
        #expect(try await browser.run("result") == expected)
      }
      await browser.close()
      for servers in [page, allowing, silent] { _ = await servers.stop() }
    }
  }
}
