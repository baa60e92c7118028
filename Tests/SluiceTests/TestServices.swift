import EventLoop
import SluiceTesting

@testable import Sluice

extension Services {
  /// All that a server has, its model at `url`, its store in `directory`, and no limit of messages. Nobody is asked who asks.
  convenience init(asking url: String, in directory: TemporaryDirectory) {
    var configuration = Configuration(state: directory.path + "/state")
    configuration.isAuthenticationDisabled = true
    configuration[UpstreamSettings.self].url = url
    configuration.messagesPerHour = 0
    let pool = BlockingPool()
    self.init(configuration, log: Log(level: .error), pool: pool, environment: [:])
  }
}
