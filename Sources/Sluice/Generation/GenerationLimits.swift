/// What a generation is allowed in time and size.
struct GenerationLimits: Sendable {
  /// How long the first delta may take.
  var firstToken: Duration = .seconds(60)
  /// The longest time between two signs of the model's life.
  var idle: Duration = .seconds(30)
  var total: Duration = .seconds(600)
  var maximumTextBytes = 4 << 20
}
