import EventLoop
import SluiceTesting

@testable import Sluice

extension Services {
  /// Creates services with the upstream at `url`, the store in `directory`, no message limit and no authentication.
  convenience init(upstream url: String, in directory: TemporaryDirectory) {
    var configuration = Configuration(state: directory.path + "/state")
    configuration.isAuthenticationDisabled = true
    configuration[UpstreamSettings.self].url = url
    configuration.messagesPerHour = 0
    let pool = BlockingPool()
    self.init(configuration, log: Log(level: .error), pool: pool, environment: [:])
  }
}
