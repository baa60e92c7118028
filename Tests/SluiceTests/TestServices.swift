import EventLoop
import SluiceTesting

@testable import Sluice

extension Services {
  /// All that a server has, its model at `url`, its store in `folder`, and no limit of messages. Nobody is asked who asks.
  convenience init(asking url: String, in folder: TemporaryFolder) {
    var configuration = Configuration(state: folder.path + "/state")
    configuration.isAuthenticationDisabled = true
    configuration[UpstreamSettings.self].url = url
    configuration.messagesPerHour = 0
    let pool = BlockingPool()
    self.init(configuration, log: Log(level: .error), pool: pool, environment: [:])
  }
}
