import JSON
import SluiceTesting
import Testing
import Upstream

@testable import Sluice

@Suite("Prompts")
struct PromptTests {
  @Test("A prompt file replaces the built-in prompt as soon as it exists")
  func files() throws {
    let directory = TemporaryDirectory()
    let prompts = Prompts(directory: directory.path)
    #expect(try prompts.text("report")?.hasPrefix("You write assessment reports.") == true)
    #expect(try prompts.text("chat") == nil)
    #expect(prompts.blocks == ["ask-question", "diagram", "explain-like-i-am-10", "quiz"])
    _ = directory.file("report.txt", "  Mine.\n")
    #expect(try prompts.text("report") == "Mine.")
    _ = directory.file("report.txt", "Another.")
    #expect(try prompts.text("report") == "Another.")
    for name in ["report", "onboarding"] + prompts.blocks.map({ "blocks/" + $0 }) {
      #expect((Prompts.builtIn[name]?.count ?? 0) > 200, "\(name)")
    }
  }

  @Test("An onboarding prompt consists of an introduction and steps, with any line endings")
  func script() throws {
    let script = try #require(
      OnboardingScript(parsing: "Be kind.\r\n\r\n# name\r\nAsk it.\r\nAll.\r\n## goal\r\n# last\r\nx"))
    #expect(script.introduction == "Be kind.")
    #expect(script.steps.map(\.name) == ["name", "goal", "last"] && script.steps[0].text == "Ask it.\nAll.")
    #expect(OnboardingScript(parsing: "no steps") == nil && OnboardingScript(parsing: "") == nil)
    let first = script.instructions(after: [])
    #expect(first.contains("step 1 of 3") && first.contains("Then go on to step 2") && !first.contains("so far"))
    let done = script.instructions(after: (0..<5).map { .init(step: "\($0)", answer: "a") })
    #expect(done.contains("All 3 steps are done"))
    #expect(OnboardingScript(parsing: try Prompts(directory: nil).text("onboarding") ?? "")?.steps.count == 4)
  }

  @Test("A report is the first JSON object in the output, and is never repaired")
  func reports() {
    let object = #"{"a":"}{","b":[{}]}"#
    for text in [
      object, "\u{FEFF}\n" + object, "```json\n\(object)\n```", "I say [1]: \(object) and {more}", "\(object)}",
    ] {
      #expect(
        (try? ReportText.object(in: text, finishReason: .stop)).map { String(decoding: $0.encoded, as: UTF8.self) }
          == object, "\(text)")
    }
    for text in [
      "", "x", "{", "}", "[\(object)]", "[1,\(object)]", "{a:1}", #"{"a":1,}"#, #"{"a":"}"#, "{{}}", #"{"a":1 /*x*/}"#,
    ] {
      #expect(throws: Failure.self, "\(text)") { try ReportText.object(in: text, finishReason: .stop) }
    }
    #expect(throws: Failure.self) { try ReportText.object(in: object, finishReason: .length) }
  }
}
