/// The configuration of a location, which its requests share: its values take several hundred bytes.
final class SharedConfiguration: Sendable {
  let values: Configuration
  /// The parts that belong to the configuration of all locations.
  let parts: ConfiguredParts

  init(_ values: Configuration, _ parts: ConfiguredParts) {
    self.values = values
    self.parts = parts
  }
}
