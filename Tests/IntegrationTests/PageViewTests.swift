import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("The page's other views in a browser")
  struct PageViewTests {
    private static let report = """
      {"title":"Readiness","summary":"The pilot is *ready*.","sections":[{"heading":"Cost","text":"Low."}],\
      "recommendations":["Launch.","Measure."],"score":7,"details":{"risk":"small"}}
      """
    private static let quiz = """
      **1. Which planet is nearest to the sun?**

      A) Venus
      B) Mercury
      C) Mars
      D) Earth

      Answer: B — it takes 88 days for one orbit.

      2. What is light measured in?
      A. Lumen
      B. Newton
      C. Pascal
      D. Joule
      Answer: A. A lumen is a unit of flux.
      """
    private static let flowchart = """
      ```mermaid
      flowchart TD
          A["Browser (any)"] -->|request| B(nginx)
          B --> C{Token valid?}
          C -- no --> D["401"] & E([Log])
          C -- yes --> F[[Sluice]]
          F -.-> G((Model)) --> F
      ```
      """

    /// Sends deltas of eight characters.
    private static func stream(_ text: String, in exchange: ScriptedUpstream.Exchange) {
      let characters = Array(text)
      exchange.stream(
        stride(from: 0, to: characters.count, by: 8).map { String(characters[$0..<min($0 + 8, characters.count)]) })
    }

    @Test("Onboarding shows its progress to the end, also after a reload")
    func onboarding() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "1ms"])
      let page = try await Page(at: servers, "onboarding")
      for (step, answer) in ["Ada", "to learn", "some", "short"].enumerated() {
        try await page.send(answer)
        try await page.expect(
          "seen('progress')[0]?.value === \(step + 1) && seen('.message').length === \(2 * step + 2)")
      }
      try await page.expect("seen('.progress')[0].textContent.includes('All questions are answered')")
      try await page.browser.reload()
      try await page.expect("seen('progress')[0]?.value === 4 && seen('.message').length === 8")
      // It is no conversation of the chat.
      try await page.click(".progress a")
      try await page.expect("location.hash.startsWith('#chat/') && seen('.side').length === 1")
      try await page.expect("seen('.side li').length === 0")
      await page.close()
    }

    @Test("A report is shown while it is written, then as a document beside its JSON; saved, it can be opened again")
    func report() async throws {
      let upstream = try ScriptedUpstream { exchange in
        Self.stream(exchange.requestCount == 1 ? "no object" : Self.report, in: exchange)
      }
      let page = try await Page(at: try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL]), "reports")
      try await page.send("the pilot")
      try await page.expect(
        "seen('.note')[0]?.textContent === 'No report. The model did not write a valid report.' && seen('.raw')[0].textContent === 'no object'"
      )
      try await page.click(".retry")
      try await page.expect("seen('.report article h2')[0]?.textContent === 'Readiness' && seen('.note').length === 0")
      try await page.expect("seen('.report em')[0].textContent === 'ready' && seen('.report li').length === 2")
      let headings = try await page.run("seen('.report h3').map((e) => e.textContent).join()")
      #expect(headings == "Cost,Recommendations,Score,Details,Risk")
      #expect(try await page.run("JSON.parse(document.querySelector('.json pre').textContent).score") == "7")
      // Once, however often the button is pressed.
      try await page.run(
        "(seen('.report .primary')[0].focus(), seen('.report .primary')[0].click(), seen('.report .primary')[0].click())"
      )
      try await page.expect(
        "seen('.side .label')[0]?.textContent === 'Readiness' && document.activeElement.textContent === 'Saved'")
      #expect(try await page.servers.get("/api/reports").json["reports"]?.count == 1)
      try await page.click(".side a")
      try await page.expect("location.hash.startsWith('#reports/') && seen('form').length === 0")
      try await page.browser.reload()
      try await page.expect("seen('.report article h2')[0]?.textContent === 'Readiness'")
      try await page.click(".side .new")
      try await page.expect("seen('textarea').length === 1 && seen('.report').length === 0")
      await page.close()
    }

    @Test(
      "Each block is shown in its own way: an answer, a quiz that can be answered, a diagram as a picture and as text")
    func blocks() async throws {
      let upstream = try ScriptedUpstream { exchange in
        let body = exchange.request.body
        if body.contains("a picture") {
          Self.stream(
            "<svg viewBox=\"0 0 9 9\" width=\"9\" height=\"9\"><circle r=\"4\"/><script>window.hacked = 1</script></svg>",
            in: exchange)
        } else if body.contains("a sequence") {
          Self.stream("```mermaid\nsequenceDiagram\nA->>B: hi\n```", in: exchange)
        } else if body.contains("quiz of five") {
          Self.stream(Self.quiz, in: exchange)
        } else if body.contains("as Mermaid source") {
          Self.stream(Self.flowchart, in: exchange)
        } else {
          Self.stream("**An** answer.\n\nx\n\n3. three", in: exchange)
        }
      }
      let page = try await Page(at: try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL]), "blocks")
      // By keyboard: the focus stays on the button, which cannot be pressed in the meantime.
      try await page.fill("textarea", "x")
      try await page.run("seen('.request .primary')[0].focus()")
      try await page.browser.type(Browser.Key.enter)
      try await page.expect(
        "seen('.block-answer.done').length === 1 && document.activeElement === seen('.request .primary')[0]")
      try await page.expect("seen('.block-answer.done strong')[0]?.textContent === 'An' && seen('ol')[0].start === 3")
      try await page.open("blocks/explain-like-i-am-10")
      try await page.send("x")
      try await page.expect("seen('.block-answer.done strong')[0]?.textContent === 'An'")

      try await page.open("blocks/quiz")
      try await page.send("space")
      try await page.expect(
        "seen('.block-answer.done fieldset').length === 2 && seen('.verdict').every((e) => e.textContent === '')")
      try await page.click(".quiz .choice", containing: "Mercury")
      try await page.expect("seen('.verdict.right')[0].textContent === 'Right. It takes 88 days for one orbit.'")
      try await page.click(".quiz .choice", containing: "Newton")
      try await page.expect("seen('.verdict.wrong')[0].textContent === 'No: A is right. A lumen is a unit of flux.'")
      try await page.expect("seen('.score')[0].textContent === '1 of 2 are right.'")

      try await page.open("blocks/diagram")
      try await page.send("the path of a request")
      try await page.expect("seen('.picture .node').length === 7 && seen('.picture .edge').length === 7")
      #expect(
        try await page.run("seen('.picture svg')[0].getAttribute('aria-label')")
          == "Flowchart: Browser (any) to nginx (request); nginx to Token valid?; Token valid? to 401 (no); Token valid? to Log (no); Token valid? to Sluice (yes); Sluice to Model; Model to Sluice"
      )
      try await page.send("a picture")
      try await page.expect("seen('.diagram img').length === 1")
      let picture = try await page.run("[seen('.diagram img')[0].naturalWidth, window.hacked]")
      #expect(picture == "9,")
      try await page.send("a sequence")
      try await page.expect(
        "seen('.diagram pre')[0]?.textContent.includes('sequenceDiagram') && seen('.picture, img').length === 0")
      await page.close()
    }

    /// Text that would do something if any of it was taken as HTML, or as an address.
    private static let hostile = """
      <script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2"> <style>body { display: none }</style>
      [link](javascript:window.hacked=3) [data](data:text/html,x) ![pixel](http://127.0.0.1:1/pixel.png) <svg onload=window.hacked=4>
      [good](https://example.com/) <iframe src="/"></iframe> <a href="javascript:window.hacked=5">x</a> <base href="http://127.0.0.1:1/">

      ```html
      <script>window.hacked = 6</script>
      ```
      """

    @Test(
      "Neither what a model says nor what a person writes runs a script, sets a style or loads anything, in any view")
    func injection() async throws {
      let json = String(
        decoding: try JSONEncoder().encode(["title": Self.hostile, "summary": Self.hostile, "<b>x": Self.hostile]),
        as: UTF8.self)
      let diagram = "flowchart TD\nA[\"<img src=x onerror=window.hacked=7>\"] -->|<b>x</b>| B"
      let quiz =
        "1. <img src=x onerror=window.hacked=8>\nA) <b>x</b>\nB) y\nAnswer: A <script>window.hacked = 9</script>"
      let upstream = try ScriptedUpstream { exchange in
        let body = exchange.request.body
        let text =
          body.contains("assessment reports")
          ? json
          : body.contains("quiz of five")
            ? quiz
            : body.contains("as Mermaid source") ? diagram : Self.hostile
        Self.stream(text, in: exchange)
      }
      let page = try await Page(at: try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL]))
      try await page.run(
        "document.addEventListener('securitypolicyviolation', (e) => { (window.violated ??= []).push(e.violatedDirective + ' ' + e.blockedURI); })"
      )
      for (view, shown) in [
        ("chat", ".message.done.assistant"), ("onboarding", ".message.done.assistant"), ("reports", ".report article"),
        ("blocks/ask-question", ".block-answer.done"), ("blocks/quiz", ".quiz fieldset"),
        ("blocks/diagram", ".picture svg"),
      ] {
        try await page.open(view)
        try await page.send(Self.hostile)
        try await page.expect("seen('\(shown)').length > 0")
        if !view.contains("/") {
          try await page.expect("seen('\(shown)')[0].innerText.includes('<script>window.hacked = 1</script>')")
        }
      }
      let elements =
        "document.querySelectorAll('#page :is(script, style, iframe, base, img, [onerror], [onload], [style])').length"
      #expect(try await page.run(elements) == "0")
      let links = try await page.run(
        "[...new Set([...document.querySelectorAll('#page .markdown a[href]')].map((a) => a.href + ' ' + a.rel + ' ' + a.target))].sort().join()"
      )
      #expect(
        links
          == "http://127.0.0.1:1/pixel.png noopener noreferrer _blank,https://example.com/ noopener noreferrer _blank")
      #expect(try await page.run("String(window.hacked) + String(window.violated)") == "undefinedundefined")
      // The policy would stop what the page does not.
      try await page.run(
        """
        (() => {
          const image = document.createElement('img');
          image.src = 'http://127.0.0.1:1/x.png';
          document.body.append(image);
          try { document.body.innerHTML = '<p>x</p>'; } catch (error) { window.refused = error.name; }
        })()
        """)
      try await page.expect("window.refused === 'TypeError' && violated.join().includes('img-src')")
      await page.close()
    }

    @Test(
      "No state of the page has a serious violation of the rules for accessible pages", arguments: ["light", "dark"])
    func accessibility(scheme: String) async throws {
      let upstream = try ScriptedUpstream { exchange in
        let body = exchange.request.body
        if body.contains("silent") {
          _ = exchange.waitUntilClosed(within: .seconds(60))
          return
        }
        if body.contains("assessment reports") { return Self.stream(Self.report, in: exchange) }
        if body.contains("quiz of five") { return Self.stream(Self.quiz, in: exchange) }
        if body.contains("as Mermaid source") { return Self.stream(Self.flowchart, in: exchange) }
        exchange.sendHead()
        exchange.sendDelta(
          "# Title\n\nA [link](https://example.com/), `code`:\n\n```\nlong\n```\n\n1. one\n\n| a | b |\n|---|---|\n| c | d |\n"
        )
        if body.contains("slow") {
          _ = exchange.waitUntilClosed(within: .seconds(60))
          return
        }
        if body.contains("broken") { return }
        exchange.sendDelta("", finishReason: body.contains("too long") ? "length" : "stop")
        exchange.sendDone()
      }
      let page = try await Page(at: try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL]))
      _ = try await page.browser.command(
        "Emulation.setEmulatedMedia", ["features": [["name": "prefers-color-scheme", "value": scheme]]])
      for (width, height) in [(390, 780), (1280, 800)] {
        func check(_ state: String) async throws { try await page.expectAccessible("\(state), \(width) pixels") }
        try await page.browser.resize(width: width, height: height)
        try await page.open("chat")
        try await page.click(".side .new")
        try await page.expect("seen('.invitation').length === 1")
        try await check("nothing")
        for (message, state) in [
          ("silent", "waiting"), ("slow", "streaming"), ("fine", "done"), ("too long", "done"), ("broken", "failed"),
        ] {
          try await page.click(".side .new")
          try await page.send(message)
          try await page.expect("seen('.message').at(-1)?.dataset.status === '\(state)'")
          try await check(message)
          guard state == "waiting" || state == "streaming" else { continue }
          try await page.click(".stop")
          try await page.expect("seen('.message').at(-1)?.dataset.status === 'cancelled'")
          try await check("stopped")
        }
        // On a phone the list has to be opened first.
        try await page.run("seen('.side .toggle')[0]?.click()")
        try await page.click(".side .remove")
        try await check("confirmation")
        try await page.click("dialog button", containing: "Keep")
        try await page.open("onboarding")
        try await page.send("Ada")
        try await page.expect("seen('progress').length === 1")
        try await check("onboarding")
        try await page.open("reports")
        try await page.send("x")
        try await page.expect("seen('.report').length === 1")
        try await check("report")
        for (block, shown) in [("quiz", "fieldset"), ("diagram", ".picture svg")] {
          try await page.open("blocks/\(block)")
          try await page.send("x")
          try await page.expect("seen('.block-answer.done \(shown)').length > 0")
          if block == "quiz" {
            for choice in ["Mercury", "Newton"] { try await page.click(".quiz .choice", containing: choice) }
          }
          try await check(block)
        }
        try await page.run("document.querySelector('.access').open = true")
        try await check("access")
        try await page.run("document.querySelector('.access').open = false")
      }
      await page.close()
    }

    @Test(
      "Markdown is split into blocks that are shown as the whole would be, and flowcharts are read as Mermaid reads them"
    )
    func parsers() async throws {
      let page = try await Page(at: try await Servers())
      try await page.run(
        #"""
        (() => { window.result = ''; (async () => {
          const { blocks } = await import('/page/markdown.js');
          const { flowchart } = await import('/page/flowchart.js');
          const { questions } = await import('/page/quiz.js');
          const wrong = [];
          for (const [text, count] of [
            ['', 0], ['a', 1], ['a\n\nb\n\n\nc', 3], ['- a\n\n- b\n\n  c\n\nd', 2], ['1. a\n\n   ```\n   x\n\n   y\n   ```\n\n2. b\n\ne', 2],
            ['```\na\n\nb\n```\n\nc', 2], ['~~~~\n```\n\n~~~\n\n~~~~\n\nb', 2], ['```\nopen\n\nstill', 1], ['> a\n\n> b\n\nc', 2],
            ['# a\n\n\tcode\n\nb', 3], ['a\r\n\r\nb', 2],
          ]) {
            // However much of it has arrived, nothing is lost and nothing is changed that was complete.
            for (let end = 0; end <= text.length; end += 1) {
              const part = text.slice(0, end), found = blocks(part);
              if (found.join('') !== part) wrong.push([part, found]);
            }
            if (blocks(text).length !== count) wrong.push([text, blocks(text)]);
          }
          const read = (text) => {
            const graph = flowchart(text);
            return graph && graph.nodes.map(({ id, label, shape }) => `${id}:${label}:${shape}`).join(' ') + ' | '
              + graph.edges.map(({ from, to, label = '', isDotted, hasArrow }) => `${from}${isDotted ? '.' : '-'}${label}${hasArrow ? '>' : '-'}${to}`).join(' ');
          };
          for (const [text, expected] of [
            ['flowchart LR\nA-->B', 'A:A:box B:B:box | A->B'],
            ['graph TD; A[x]-->|yes| B{"y; ok"}', undefined],
            ['graph TD\nA[x] -->|yes| B{"y > z"}; B --- C', 'A:x:box B:y > z:diamond C:C:box | A-yes>B B--C'],
            ['flowchart TB\n%% note\nA -- a text --> B\nA -. d .-> C\nA == e ==> D', 'A:A:box B:B:box C:C:box D:D:box | A-a text>B A.d>C A-e>D'],
            ['flowchart TD\nsubgraph one\nA & B --> C:::big\nend\nclassDef big fill:#f00', 'A:A:box B:B:box C:C:box | A->C B->C'],
            ['flowchart TD\nA["#quot;q#quot; #35;"] -.-> A', 'A:"q" #:box | A.>A'],
            ['%%{init: {}}%%\nflowchart TD\nA--text-->B', 'A:A:box B:B:box | A-text>B'],
            ['flowchart TD\nA --x B', 'A:A:box B:B:box | A->B'],
            ['flowchart TD\nÄ_1 --> b-2 --> c', 'Ä_1:Ä_1:box b-2:b-2:box c:c:box | Ä_1->b-2 b-2->c'],
            ['flowchart TD\nA --> ', undefined], ['flowchart TD\nA -> B', undefined], ['flowchart TD', undefined],
            ['sequenceDiagram\nA->>B: x', undefined], ['flowchart XX\nA', undefined], ['flowchart TD\nA[open', undefined],
          ]) if (read(text) !== expected) wrong.push([text, read(text)]);
          const quiz = '2) Why?\nmore\n- **A)** x\n- B) y\n\n**Answer:** (b), since so\n\n3. No choices\nAnswer: A\n4. Half\nA) x';
          const found = JSON.stringify(questions(quiz).found);
          if (questions(quiz).isUnderstood) wrong.push('not all of it is understood');
          const bold = questions('**1. What is 2**3?**\n(A) 6\n(B) **8**\n**Correct answer: B**');
          if (JSON.stringify(bold) !== '{"found":[{"question":"What is 2**3?","choices":[{"letter":"A","text":"6"},{"letter":"B","text":"**8**"}],"answer":"B","reason":""}],"isUnderstood":true}') wrong.push(bold);
          if (found !== '[{"question":"Why? more","choices":[{"letter":"A","text":"x"},{"letter":"B","text":"y"}],"answer":"B","reason":"Since so"}]') wrong.push(found);
          result = JSON.stringify(wrong);
        })().catch((error) => { result = String(error); }); })()
        """#)
      try await page.expect("window.result !== ''")
      let result = try await page.run("result")
      #expect(result == "[]")
      await page.close()
    }
  }
}
