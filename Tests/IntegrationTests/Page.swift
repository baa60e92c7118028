import Foundation
import SluiceTesting
import Testing

/// The page that nginx serves, in a browser. Expressions are JavaScript, in which `seen(selector)` is the list of the
/// elements that are displayed.
struct Page {
  let browser: Browser
  let servers: Servers

  /// - Parameter path: the fragment, such as `reports`; the token is already in the tab.
  init(at servers: Servers, query: String = "", _ fragment: String = "chat") async throws {
    browser = try await Browser()
    self.servers = servers
    try await browser.open("\(servers.url)/\(query)#token=\(servers.token)")
    try await expect("seen('h1').length === 1")
    if fragment != "chat" { try await open(fragment) }
  }

  func open(_ fragment: String) async throws {
    _ = try await browser.run("location.hash = '\(fragment)'")
  }

  @discardableResult
  func run(_ expression: String) async throws -> String {
    try await browser.run(
      """
      (() => {
        const seen = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility());
        return \(expression);
      })()
      """)
  }

  /// Waits until an expression is true, and records an issue with what the page shows if it does not become so.
  func expect(
    _ expression: String, within limit: Duration = .seconds(20), _ location: SourceLocation = #_sourceLocation
  ) async throws {
    if await eventually(within: limit, { (try? await run(expression)) == "true" }) { return }
    let value = (try? await run(expression)) ?? "an exception"
    let shown = ((try? await browser.run("document.body.innerText")) ?? "").replacing("\n", with: " ")
    Issue.record("\(expression) is \(value). The page shows: \(shown)", sourceLocation: location)
  }

  /// Enters a message and sends it.
  func send(_ message: String) async throws {
    try await fill("textarea", message)
    try await run("seen('.send, form .primary')[0].click()")
  }

  /// Replaces the text of a field, as if it was pasted.
  func fill(_ selector: String, _ text: String) async throws {
    let json = String(decoding: try JSONEncoder().encode(text), as: UTF8.self)
    try await expect("seen('\(selector)').length > 0")
    try await run(
      """
      (() => {
        const field = seen('\(selector)')[0];
        Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, \(json));
        field.dispatchEvent(new Event('input', { bubbles: true }));
      })()
      """)
  }

  func click(_ selector: String, containing text: String = "") async throws {
    let found = "seen('\(selector)').find((e) => e.textContent.includes('\(text)') && !e.disabled)"
    try await expect("\(found) !== undefined")
    try await run("\(found).click()")
  }

  /// Records an issue for each serious violation of the rules for accessible pages (axe-core).
  func expectAccessible(_ state: String, _ location: SourceLocation = #_sourceLocation) async throws {
    _ = try await browser.run(Self.axe)
    _ = try await browser.run(
      "(window.violations = undefined, axe.run().then((result) => { violations = result.violations; }))")
    try await expect("window.violations !== undefined", location)
    let serious = try await browser.run(
      """
      JSON.stringify(violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
        .map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))
      """)
    #expect(serious == "[]", "\(state)", sourceLocation: location)
  }

  /// axe-core, as an expression.
  private static let axe: String = {
    let directory = packageRoot + "/.build/python/lib"
    let path = FileManager.default.enumerator(atPath: directory)?.compactMap { $0 as? String }
      .first { $0.hasSuffix("axe_core_python/axe.min.js") }
    let text = path.flatMap { try? String(contentsOfFile: directory + "/" + $0, encoding: .utf8) } ?? ""
    return "(() => { \(text); })()"
  }()

  func close() async {
    await browser.close()
    _ = await servers.stop()
  }
}
