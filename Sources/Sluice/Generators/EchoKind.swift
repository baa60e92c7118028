import Upstream

extension GeneratorKind {
  /// A generator that repeats the message word by word, for demonstrations and tests.
  static let echo = GeneratorKind(
    name: "echo",
    settings: [
      .perLocation("SLUICE_ECHO_GAP", "delay before each word of the echo (default 30ms)") {
        (c, text) throws(SettingError) in c[EchoSettings.self].gap = try SettingValue.duration(text)
      }
    ],
    isDefault: { _ in true },
    description: { _ in "echo, which repeats the message" },
    source: { _, _ in { EchoGenerator(gap: $0[EchoSettings.self].gap) } })
}

private struct EchoSettings: GeneratorSettings {
  var gap: Duration = .milliseconds(30)
}
