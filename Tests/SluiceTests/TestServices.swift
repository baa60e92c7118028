import SluiceTesting

@testable import Sluice

extension Services {
  /// Creates services with the upstream at `url`, the store in `directory`, no message limit and no authentication.
  convenience init(upstream url: String, in directory: TemporaryDirectory) throws {
    try self.init(
      environment: [
        "SLUICE_STATE": directory.path + "/state", "SLUICE_AUTH": "none", "SLUICE_UPSTREAM_URL": url,
        "SLUICE_MESSAGES_PER_HOUR": "0", "SLUICE_LOG": "error",
      ], custom: CustomParts())
  }
}
