import Foundation
import SluiceTesting
import Testing

/// A real browser that curl controls through the WebDriver protocol (W3C WebDriver, level 2).
final class Browser: Sendable {
  private let driver: Program
  private let base: String
  private let session: String

  init() async throws {
    let port = try Loopback.freePort()
    base = "http://127.0.0.1:\(port)"
    driver = try Program("/usr/bin/chromedriver", ["--port=\(port)"])
    let (driver, base) = (driver, base)
    let isUp = await eventually(within: .seconds(30)) { (try? await Self.call("GET", base + "/status", nil)) != nil }
    try #require(isUp, "\(driver.output) \(driver.errors)")
    let options = [
      "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"]
    ]
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
    _ = try await call("/element/\(try await element(selector))/click", [String: String]())
  }

  /// Types into an element, as a person does.
  func type(_ text: String, into selector: String) async throws {
    _ = try await call("/element/\(try await element(selector))/value", ["text": text])
  }

  /// Types into the element that has the focus. ``Key`` has the names of other keys.
  func type(_ text: String) async throws {
    let found = try await Self.call("GET", "\(base)/session/\(session)/element/active", nil) as? [String: String]
    _ = try await call("/element/\(try #require(found?.values.first))/value", ["text": text])
  }

  /// Keys by their code points in the WebDriver protocol (W3C WebDriver, 17.4.2).
  enum Key {
    static let tab = "\u{E004}"
    static let enter = "\u{E007}"
  }

  func resize(width: Int, height: Int) async throws {
    _ = try await call("/window/rect", ["width": width, "height": height])
  }

  /// Sends a command of Chromium's DevTools protocol, and returns its result.
  func command(_ name: String, _ parameters: [String: Any] = [:]) async throws -> [String: Any] {
    try await call("/goog/cdp/execute", ["cmd": name, "params": parameters]) as? [String: Any] ?? [:]
  }

  private func element(_ selector: String) async throws -> String {
    let found = try await call("/element", ["using": "css selector", "value": selector]) as? [String: String]
    return try #require(found?.values.first)
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
    var input: String?
    if let body {
      let json = try JSONSerialization.data(withJSONObject: body)
      // An argument of a program is at most 128 KiB long.
      arguments += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
      input = String(decoding: json, as: UTF8.self)
    }
    let curl = try Program("/usr/bin/curl", arguments, input: input)
    let code = await curl.exitCode(within: .seconds(60))
    guard code == 0 else { throw BrowserError(message: curl.errors) }
    let value = (try JSONSerialization.jsonObject(with: Data(curl.output.utf8)) as? [String: Any])?["value"]
    if let failure = value as? [String: Any], failure["error"] is String, let message = failure["message"] as? String {
      throw BrowserError(message: message)
    }
    return value
  }
}
