import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("JavaScript client in a browser")
  struct ClientTests {
    /// Returns what an asynchronous function body returns in a page of `servers`, as JSON; its exception as a text.
    private func run(_ body: String, in browser: Browser, at servers: Servers) async throws -> String {
      try await browser.open("\(servers.url)/")
      _ = try await browser.run(
        """
        (() => { window.result = ''; (async () => {
          try {
            const client = await import('/sluice.js');
            const token = '\(servers.token)';
            const all = async (run) => { let text = ''; for await (const piece of run) text += piece; return text; };
            result = JSON.stringify(await (async () => { \(body) })());
          } catch (error) { result = String(error) + ' ' + (error.code ?? '') + ' ' + (error.status ?? ''); }
        })(); })()
        """)
      _ = await eventually(within: .seconds(60)) { (try? await browser.run("result")) != "" }
      return try await browser.run("result")
    }

    @Test("Each dialect over each transport gives the same text and a terminal record")
    func dialects() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "1ms", "SLUICE_STREAMS_PER_USER": "0"])
      let browser = try await Browser()
      let result = try await run(
        """
        const found = [];
        for (const dialect of ['events', 'deltas', 'chunks', 'chat', 'openai', 'ui']) {
          for (const transport of ['http', 'websocket', 'eventsource']) {
            const run = client.stream('/chat/stream', { query: { message: 'é 😀 "x"' }, token, dialect, transport });
            const text = await all(run);
            const end = await run.done;
            if (text !== 'é 😀 "x"' || end.type !== 'done') found.push([dialect, transport, text, end]);
            if (dialect !== 'openai' && dialect !== 'ui' && !run.id) found.push([dialect, transport, 'no id']);
          }
        }
        return found;
        """, in: browser, at: servers)
      #expect(result == "[]")
      await browser.close()
      _ = await servers.stop()
    }

    @Test("Reasoning, refusals and tool calls arrive in each dialect, once, over connections that are lost")
    func parts() async throws {
      @Sendable func chunk(_ delta: String, _ finish: String = "null") -> String {
        #"data: {"choices":[{"index":0,"delta":\#(delta),"finish_reason":\#(finish)}]}"# + "\n\n"
      }
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        for (delta, pause) in [
          (#"{"reasoning_content":"I "}"#, 0), (#"{"reasoning_content":"think. "}"#, 0), (#"{"content":"One "}"#, 0),
          (
            #"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":"}}]}"#, 0
          ), (#"{"content":"two "}"#, 1500), (#"{"reasoning_content":"So."}"#, 0),
          (#"{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}"#, 0), (#"{"refusal":"but no."}"#, 0),
        ] {
          exchange.send(chunk(delta))
          exchange.pause(.milliseconds(pause))
        }
        exchange.send(chunk("{}", "\"tool_calls\""))
        exchange.sendDone()
      }
      let servers = try await Servers([
        "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_STREAMS_PER_USER": "0", "SLUICE_RESUME": "20s",
      ])
      let browser = try await Browser()
      async let found = run(
        """
        const runs = [];
        for (const dialect of ['events', 'deltas', 'chunks', 'chat', 'openai', 'ui']) {
          for (const transport of ['http', 'websocket']) {
            runs.push((async () => {
              const run = client.stream('/chat/stream', { query: { message: 'a' }, token, dialect, transport });
              let thoughts = '';
              run.onReasoning = (text) => { thoughts += text; };
              const text = await all(run);
              const { refusal, toolCalls } = await run.done;
              const hasThoughts = ['events', 'openai', 'ui'].includes(dialect);
              const isRight = text === 'One two but no.' && refusal === 'but no.'
                && thoughts === (hasThoughts ? 'I think. So.' : '')
                && toolCalls?.length === 1 && toolCalls[0].id + toolCalls[0].name === 'cf'
                && toolCalls[0].arguments === '{"a":1}';
              return isRight ? [] : [[dialect, transport, text, thoughts, refusal ?? '-', toolCalls ?? '-']];
            })());
          }
        }
        window.haveBegun = true;
        return (await Promise.all(runs)).flat();
        """, in: browser, at: servers)
      #expect(await eventually { upstream.requests.count == 12 })
      usleep(500_000)
      try servers.cutConnections()
      let result = try await found
      #expect(result == "[]")
      #expect(upstream.requests.count == 12)
      await browser.close()
      _ = await servers.stop()
    }

    @Test("The endpoints have functions of their own")
    func endpoints() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.stream(exchange.request.body.contains("report") ? ["{\"a\":", "1}"] : ["one ", "two"])
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let browser = try await Browser()
      let result = try await run(
        """
        const chat = client.chat('x', { token, sessionId: 's' });
        const report = client.report('a report', { token, save: true });
        const block = client.block('quiz', 'x', { token });
        const onboarding = client.onboarding('Ada', { token });
        const ends = [];
        for (const run of [chat, report, block, onboarding]) { await all(run); ends.push(await run.done); }
        return [ends[0].sessionId, ends[1].report, typeof ends[1].reportId, ends[2].seq, ends[3].step !== undefined];
        """, in: browser, at: servers)
      #expect(result == #"["s",{"a":1},"string",2,true]"#)
      await browser.close()
      _ = await servers.stop()
    }

    @Test("If streaming is disabled, the endpoint's twin responds; a block has none")
    func twins() async throws {
      let servers = try await Servers([
        "SLUICE_ECHO_GAP": "1ms", "SLUICE_STREAM_CHAT": "off", "FEATURE_STREAMING": "off", "ENABLE_STREAMING": "off",
        "AI_STREAMING_ENABLED": "off",
      ])
      let browser = try await Browser()
      let result = try await run(
        """
        const found = [];
        for (const [path, options] of [
          ['/api/chat', { body: { message: 'a b' } }], ['/stream/', { body: { chat_id: 'c', content: 'a b' } }],
          ['/chat/stream', { query: { message: 'a b' } }], ['/chat/stream', { query: { message: 'a b' }, transport: 'websocket' }],
        ]) {
          const run = client.stream(path, { ...options, token });
          found.push(await all(run), (await run.done).type);
        }
        found.push(await client.block('quiz', 'x', { token }).done.catch((error) => [error.code, error.status]));
        return found;
        """, in: browser, at: servers)
      #expect(result == #"["a b","done","a b","done","a b","done","a b","done",["streaming_disabled",404]]"#)
      await browser.close()
      _ = await servers.stop()
    }

    @Test("A stream that is left, aborted, refused or fails in its own handler says so")
    func ends() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "20ms"])
      let browser = try await Browser()
      let result = try await run(
        """
        const words = 'word '.repeat(500), found = [];
        for (const transport of ['http', 'websocket']) {
          const left = client.chat(words, { token, transport });
          for await (const text of left) left.close();
          found.push(await left.done);
          const stopped = client.chat(words, { token, transport });
          stopped.stop();
          found.push((await stopped.done).type);
          const abort = new AbortController();
          const aborted = client.chat(words, { token, transport, signal: abort.signal });
          aborted.onToken = () => abort.abort();
          found.push(await aborted.done.catch((error) => error.name));
          const early = client.chat(words, { token, transport, signal: AbortSignal.abort() });
          found.push(await early.done.catch((error) => error.name));
          const failing = client.chat(words, { token, transport });
          failing.onToken = () => { throw new TypeError('mine'); };
          found.push(await failing.done.catch((error) => error.message));
          found.push(await client.chat('x', { token: 'wrong', transport }).done.catch((e) => [e.code, e.status, e.retriable]));
        }
        return found;
        """, in: browser, at: servers)
      let each = #"{"type":"closed"},"cancelled","AbortError","AbortError","mine",["unauthorized",401,false]"#
      #expect(result == "[\(each),\(each)]")
      // A run that has ended in any way leaves no connection behind.
      #expect(try await eventually { try await servers.metric("sluice_streams_open") == 0 })
      await browser.close()
      _ = await servers.stop()
    }

    @Test("A connection on which nothing arrives is lost, and a limit says how long to wait")
    func silence() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta("one")
        exchange.waitUntilClosed(within: .seconds(60))
      }
      let servers = try await Servers([
        "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_HEARTBEAT": "0", "SLUICE_MESSAGES_PER_HOUR": "1",
      ])
      let browser = try await Browser()
      let result = try await run(
        """
        const run = client.chat('x', { token, timeout: 0.5 });
        const lost = await run.done.catch((error) => [error.code, error.retriable]);
        const limited = await client.chat('x', { token }).done.catch((error) => [error.code, error.retryAfter > 3000]);
        return [lost, limited];
        """, in: browser, at: servers)
      #expect(result == #"[["connection_lost",true],["rate_limited",true]]"#)
      await browser.close()
      _ = await servers.stop()
    }

    @Test("Heartbeats of every dialect keep a connection alive")
    func heartbeats() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta("one ")
        exchange.waitUntilClosed(within: .seconds(3))
        exchange.sendDelta("two", finishReason: "stop")
        exchange.sendDone()
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_HEARTBEAT": "300ms"])
      let browser = try await Browser()
      let result = try await run(
        """
        const runs = ['events', 'deltas', 'chunks', 'chat', 'openai', 'ui'].map((dialect) =>
          client.stream('/api/chat', { token, dialect, timeout: 1, body: { message: 'x' } }));
        return Promise.all(runs.map(async (run) => [await all(run), (await run.done).type]));
        """, in: browser, at: servers)
      #expect(result == "[" + Array(repeating: #"["one two","done"]"#, count: 6).joined(separator: ",") + "]")
      #expect(upstream.requests.count == 6)
      await browser.close()
      _ = await servers.stop()
    }

    @Test("The types in the comments of the client and of the hooks hold, by TypeScript's strict rules")
    func types() async throws {
      let compiler = try Program(
        "/usr/bin/tsc",
        [
          "--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2022", "--module", "es2022", "--lib",
          "es2022,dom,dom.iterable", packageRoot + "/nginx/html/sluice.js", packageRoot + "/nginx/html/hooks.js",
        ])
      #expect(await compiler.exitCode(within: .seconds(60)) == 0, "\(compiler.output)")
    }

    @Test("Events are parsed as the HTML standard says, at every split")
    func parser() async throws {
      let servers = try await Servers()
      let browser = try await Browser()
      let result = try await run(
        #"""
        const table = [
          ['data: a\n\n', [['message', 'a', '']]],
          ['\uFEFFdata: a\n\n', [['message', 'a', '']]],
          ['data: a\r\rdata: b\r\n\r\ndata: c\n\n', [['message', 'a', ''], ['message', 'b', ''], ['message', 'c', '']]],
          ['event: x\ndata: a\ndata: b\nid: 7\n\n: comment\n\ndata:c\n\n', [['x', 'a\nb', '7'], ['message', 'c', '7']]],
          ['data\n\ndata:  two\n\n', [['message', '', ''], ['message', ' two', '']]],
          ['event: x\n\ndata: a\n\n', [['message', 'a', '']]],
          ['id: a\0b\ndata: x\n\nid\ndata: y\n\n', [['message', 'x', ''], ['message', 'y', '']]],
          ['nothing: x\ndata: é😀\u2028\n\ndata: cut', [['message', 'é😀\u2028', '']]],
        ];
        const wrong = [];
        const read = async (parts) => {
          const stream = new ReadableStream({ start(c) { for (const part of parts) c.enqueue(part); c.close(); } });
          const found = [];
          for await (const { type, data, id } of client.events(stream)) found.push([type, data, id]);
          return JSON.stringify(found);
        };
        for (const [text, expected] of table) {
          const bytes = new TextEncoder().encode(text);
          for (let split = 0; split <= bytes.length; split += 1) {
            const found = await read([bytes.slice(0, split), bytes.slice(split)]);
            if (found !== JSON.stringify(expected)) wrong.push([text, split, found]);
          }
          const single = await read(Array.from(bytes, (byte) => Uint8Array.of(byte)));
          if (single !== JSON.stringify(expected)) wrong.push([text, 'single', single]);
        }
        return wrong;
        """#.replacingOccurrences(of: "`", with: "\\`"), in: browser, at: servers)
      #expect(result == "[]")
      await browser.close()
      _ = await servers.stop()
    }
  }
}
