import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("EventSource and other origins in a browser")
  struct BrowserTests {
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
      // A document without the page's Content-Security-Policy, which forbids connections to other origins.
      try await browser.open("\(page.url)/healthz")
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
