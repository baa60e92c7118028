import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("React hooks in a browser")
  struct HookTests {
    /// A browser in which Debian's React renders, in StrictMode, a component that calls one hook.
    private final class HookPage: Sendable {
      let browser: Browser
      private let files: Program

      /// - Parameter hook: the call, such as `useChat({ token })`; its result is `hook` in the page.
      init(_ hook: String, at servers: Servers) async throws {
        let port: UInt16
        (files, port) = try ReactFiles.serve()
        browser = try await Browser()
        // A document without the page's Content-Security-Policy, which forbids React from another origin.
        try await browser.open("\(servers.url)/healthz")
        _ = try await browser.run(
          """
          (() => { window.ready = ''; (async () => {
            \(ReactFiles.loading(from: port))
            const token = '\(servers.token)';
            const { createHooks } = await import('/hooks.js');
            const hooks = createHooks(React);
            const { useStream, useChat, useAIStreaming, useAIBlockStreaming, useReport } = hooks;
            window.errors = [];
            console.error = (...all) => errors.push(all.join(' '));
            window.renders = 0;
            function Component() {
              window.hook = \(hook);
              window.renders += 1;
              return null;
            }
            const root = ReactDOM.createRoot(document.createElement('div'));
            root.render(React.createElement(React.StrictMode, null, React.createElement(Component)));
            window.unmount = () => root.unmount();
            const end = Date.now() + 10000;
            while (!window.hook && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 5));
            ready = 'yes';
          })().catch((error) => { ready = String(error); }); })()
          """)
        let browser = browser
        let isReady = await eventually(within: .seconds(30)) { (try? await browser.run("ready")) == "yes" }
        let reason = try await browser.run("ready")
        try #require(isReady, "\(reason)")
      }

      /// Waits until an expression is true, and returns whether it became so.
      func waits(for expression: String) async -> Bool {
        await eventually(within: .seconds(30)) { (try? await browser.run(expression)) == "true" }
      }

      func run(_ expression: String) async throws -> String { try await browser.run(expression) }

      /// Ends the page. React has complained about nothing.
      func close() async throws {
        #expect(try await browser.run("errors.join()") == "")
        await browser.close()
        files.signal(SIGTERM)
        _ = await files.exitCode()
      }
    }

    @Test(
      "The hook useChat shows the user's message at once and the answer as it arrives, and sends one message at a time")
    func chat() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "30ms"])
      let page = try await HookPage("useChat({ token })", at: servers)
      _ = try await page.run("(hook.sendMessage('one two three four five'), hook.sendMessage('ignored'))")
      #expect(await page.waits(for: "hook.messages.length === 2 && hook.isStreaming"))
      #expect(
        try await page.run("hook.messages[0].content + '/' + hook.messages[0].role") == "one two three four five/user")
      #expect(await page.waits(for: "hook.messages[1].status === 'streaming' && hook.messages[1].isStreaming"))
      _ = try await page.run("hook.sendMessage('ignored')")
      #expect(await page.waits(for: "!hook.isStreaming"))
      #expect(
        try await page.run("JSON.stringify(hook.messages.map((m) => [m.role, m.content, m.isStreaming, m.status]))")
          == #"[["user","one two three four five",false,"done"],["assistant","one two three four five",false,"done"]]"#)
      // The next message continues the session.
      _ = try await page.run("hook.sendMessage('again')")
      #expect(await page.waits(for: "hook.messages.length === 4 && !hook.isStreaming"))
      #expect(servers.storedFiles.count == 1 && servers.storedLines.count == 2)
      // Of many messages the last 50 are shown.
      _ = try await page.run(
        "(async () => { for (let i = 0; i < 30; i += 1) { await hook.sendMessage('m' + i); await new Promise(requestAnimationFrame); } window.sent = true; })()"
      )
      #expect(await page.waits(for: "window.sent === true && hook.messages.length === 50 && !hook.isStreaming"))
      #expect(try await page.run("hook.messages.at(-1).content") == "m29")
      try await page.close()
      _ = await servers.stop()
    }

    @Test("A failed answer without text is taken away, one with text stays until it is tried again, with the same key")
    func failure() async throws {
      let upstream = try ScriptedUpstream { exchange in
        switch exchange.requestCount {
        case 1: exchange.respond("500 Internal Server Error", "{}")
        case 2:
          exchange.sendHead()
          exchange.sendDelta("Hel")
          exchange.reset()
        default: exchange.stream(["Hel", "lo"])
        }
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let page = try await HookPage("useChat({ token })", at: servers)
      _ = try await page.run("hook.sendMessage('x')")
      #expect(await page.waits(for: "hook.error?.code === 'upstream_error' && !hook.isStreaming"))
      #expect(
        try await page.run("hook.messages.length + hook.messages[0].status + hook.messages[0].error.code")
          == "1failedupstream_error")
      _ = try await page.run("hook.retryLastMessage()")
      #expect(await page.waits(for: "hook.error?.code === 'upstream_truncated' && !hook.isStreaming"))
      #expect(try await page.run("hook.messages[1].content + '/' + hook.messages[1].status") == "Hel/failed")
      _ = try await page.run("hook.retryLastMessage()")
      #expect(await page.waits(for: "hook.messages.length === 2 && hook.messages[1].status === 'done'"))
      #expect(try await page.run("hook.messages[1].content + '/' + hook.error") == "Hello/undefined")
      #expect(servers.storedLines.count == 1)
      try await page.close()
      _ = await servers.stop()
    }

    @Test("An unmounted component leaves its stream, and a stopped answer is marked as cancelled")
    func stopAndUnmount() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "30ms"])
      let page = try await HookPage("useChat({ token })", at: servers)
      _ = try await page.run("hook.sendMessage('word '.repeat(500))")
      #expect(await page.waits(for: "hook.messages[1]?.content.length > 10"))
      _ = try await page.run("hook.stop()")
      #expect(await page.waits(for: "hook.messages[1].status === 'cancelled' && !hook.isStreaming"))
      _ = try await page.run("hook.retryLastMessage()")
      #expect(await page.waits(for: "hook.messages[1]?.content.length > 10 && hook.isStreaming"))
      _ = try await page.run("unmount()")
      #expect(await servers.outcomes(2) == ["stopped", "disconnected"])
      try await page.close()
      _ = await servers.stop()
    }

    @Test("A restored conversation has the stored messages, then the answer that is being streamed")
    func restore() async throws {
      let gate = Gate()
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta("Hel")
        if exchange.requestCount == 2 { gate.pass() }
        exchange.sendDelta("lo", finishReason: "length")
        exchange.sendDone()
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_RESUME": "20s"])
      _ = await servers.output(of: try servers.chat("first", more: #","sessionId":"s""#))
      let running = try servers.chat("second", more: #","sessionId":"s""#)
      #expect(await eventually { running.output.contains("Hel") })
      let page = try await HookPage("useChat({ token, sessionId: 's', restore: true })", at: servers)
      #expect(await page.waits(for: "hook.messages[3]?.status === 'streaming'"))
      #expect(
        try await page.run("JSON.stringify(hook.messages.map((m) => [m.role, m.content, m.status]))")
          == #"[["user","first","done"],["assistant","Hello","done"],["user","second","done"],["assistant","Hel","streaming"]]"#
      )
      gate.open()
      #expect(await page.waits(for: "!hook.isStreaming && hook.messages[3].content === 'Hello'"))
      #expect(try await page.run("hook.end.type + hook.messages.length") == "done4")
      // The conversation goes on in its session.
      _ = try await page.run("hook.sendMessage('third')")
      #expect(
        await page.waits(for: "hook.messages[5]?.status === 'done' && hook.messages[5].finishReason === 'length'"))
      #expect(servers.storedFiles.count == 1 && servers.storedLines.count == 3)
      try await page.close()
      _ = await servers.stop()
    }

    @Test("Text is accumulated exactly, and rendered at most once per animation frame, for texts of 30 seeds")
    func accumulation() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "0ms", "SLUICE_MESSAGES_PER_HOUR": "0"])
      let page = try await HookPage("useStream('/api/chat', { token })", at: servers)
      _ = try await page.run(
        """
        (() => { window.wrong = []; window.finished = false; (async () => {
          const alphabet = ['a', 'é', '😀', '"', '\\\\n', ' ', 'word ', '\\\\u2028', '<b>'];
          let frames = 0;
          const count = () => { frames += 1; requestAnimationFrame(count); };
          requestAnimationFrame(count);
          for (let seed = 1; seed <= 30; seed += 1) {
            let state = seed, message = 'x';
            const next = () => (state = (state * 1103515245 + 12345) % 2147483648);
            for (let i = 0; i < 100 + (next() % 400); i += 1) message += alphabet[next() % alphabet.length];
            const before = renders, framesBefore = frames;
            await hook.send({ message });
            // React renders a little later.
            for (let i = 0; i < 600 && hook.status !== 'done'; i += 1) await new Promise(requestAnimationFrame);
            if (hook.text !== message || hook.status !== 'done') wrong.push([seed, hook.status, hook.text.length, message.length]);
            // StrictMode renders twice; the start and the end are a render each.
            const most = 2 * (frames - framesBefore + 4);
            if (renders - before > most) wrong.push([seed, 'renders', renders - before, most]);
          }
          finished = true;
        })(); })()
        """)
      #expect(await page.waits(for: "finished"))
      let wrong = try await page.run("JSON.stringify(wrong)")
      #expect(wrong == "[]", "\(wrong)")
      try await page.close()
      _ = await servers.stop()
    }

    @Test("The hooks for blocks, reports and other endpoints have the members of their contract")
    func others() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.stream(exchange.request.body.contains("as JSON, please") ? ["{\"a\":", "1}"] : ["one ", "two"])
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let page = try await HookPage(
        "({ block: useAIBlockStreaming('quiz', { token }), report: useReport({ token }), any: useAIStreaming({ token }), stream: useStream('/stream/', { token }) })",
        at: servers)
      #expect(
        try await page.run("[hook.block.status, hook.report.status, hook.any.status, hook.stream.status]")
          == "idle,idle,idle,idle")
      _ = try await page.run("hook.block.start('x')")
      #expect(
        await page.waits(for: "hook.block.status === 'done' && hook.block.text === 'one two' && hook.block.seq === 2"))
      _ = try await page.run("hook.any.start('/api/chat', { message: 'x' })")
      #expect(await page.waits(for: "hook.any.status === 'done' && hook.any.text === 'one two'"))
      _ = try await page.run("hook.stream.send({ chat_id: 'c', content: 'x' })")
      #expect(await page.waits(for: "hook.stream.status === 'done' && hook.stream.text === 'one two'"))
      _ = try await page.run("hook.stream.retry()")
      #expect(await page.waits(for: "hook.stream.status === 'done' && hook.stream.text === 'one two'"))
      _ = try await page.run("hook.report.start('as JSON, please')")
      #expect(await page.waits(for: "hook.report.status === 'done' && hook.report.report.a === 1"))
      #expect(try await page.run("hook.report.text + hook.report.reportId") == #"{"a":1}undefined"#)
      _ = try await page.run("hook.report.save()")
      #expect(await page.waits(for: "hook.report.reportId?.length === 36"))
      _ = try await page.run("hook.report.start('no such thing')")
      #expect(await page.waits(for: "hook.report.status === 'failed' && hook.report.error.code === 'parse_error'"))
      try await page.close()
      _ = await servers.stop()
    }
  }
}

/// Debian's React, for pages of tests.
enum ReactFiles {
  /// Starts a web server for the files.
  static func serve() throws -> (server: Program, port: UInt16) {
    let port = try Loopback.freePort()
    let server = try Program(
      "/usr/bin/python3",
      ["-m", "http.server", "\(port)", "--bind", "127.0.0.1", "--directory", "/usr/share/nodejs"])
    return (server, port)
  }

  /// Returns statements of an asynchronous function that load React into a page.
  static func loading(from port: UInt16) -> String {
    """
    const load = (path) => new Promise((resolve, reject) => {
      const script = document.createElement('script');
      script.src = 'http://127.0.0.1:\(port)/' + path;
      script.onload = resolve;
      script.onerror = () => reject(new Error(path));
      document.head.append(script);
    });
    for (let tries = 0; ; tries += 1) {
      try { await load('react/umd/react.development.js'); break; } catch (error) { if (tries > 100) throw error; }
    }
    await load('react-dom/umd/react-dom.development.js');
    """
  }
}
