/// The time and size limits of a generation.
struct GenerationLimits: Sendable {
  /// The maximum time until the model's first delta or other activity.
  var firstToken: Duration = .seconds(60)
  /// The maximum time between two activities of the model.
  var idle: Duration = .seconds(30)
  var total: Duration = .seconds(600)
  var maximumTextBytes = 4 << 20
}
