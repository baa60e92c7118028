import Upstream

/// An embedder's replacements for built-in parts.
struct CustomParts: Sendable {
  var generator: (any Generator)?
  var authenticator: (any Authenticator)?
  var turnStore: (any TurnStore)?
}
