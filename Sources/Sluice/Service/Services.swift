import EventLoop
import FastCGI
import JSON
import Synchronization
import Upstream

/// What all requests on all loops share.
final class Services: Sendable {
  let configuration: Configuration
  let log: Log
  let pool: BlockingPool
  /// Where large bodies are parsed, few at a time: what one becomes is many times as large.
  let parsing = BlockingPool(maximumThreads: 2)
  let authenticator: Authenticator
  let store: Store
  let streams = StreamRegistry()
  let unsaved: UnsavedTurns
  let metrics = Metrics()
  let limiter: Limiter
  /// Answers in one piece that ask no model: as many may be on their way at once as streams.
  let answers: Limiter
  let prompts: Prompts
  let cors: CORS
  let redactions = WatchedFiles { Redactions(parsing: $0) }
  private let echo = EchoGenerator()
  private let upstream: OpenAIGenerator?
  private let draining = Atomic(false)
  let activity = RequestActivity()
  let freedMemory = FreedMemory()
  let descriptors: DescriptorBudget

  init(
    _ configuration: Configuration, log: Log, pool: BlockingPool, environment: [String: String],
    descriptors: DescriptorPlan = .forProcess(loops: 1)
  ) {
    self.descriptors = DescriptorBudget(units: descriptors.connections)
    self.configuration = configuration
    self.log = log
    self.pool = pool
    self.authenticator = Authenticator(configuration, log: log, pool: pool)
    self.store = Store(root: configuration.state, pool: pool)
    let runtime = environment["RUNTIME_DIRECTORY"].flatMap { $0.split(separator: ":").first }
    self.unsaved = UnsavedTurns(store, folder: runtime.map { $0 + "/unsaved" }, log: log)
    self.answers = Limiter(store, countsProcesses: false, log: log)
    self.limiter = Limiter(store, countsProcesses: CGIExchange.isStarted(in: environment), log: log)
    let budget = self.descriptors
    let prompts = Prompts(folder: configuration.prompts)
    self.prompts = prompts
    self.cors = CORS(origins: configuration.corsOrigins)
    let keyFile = configuration.upstreamKeyFile
    self.upstream = configuration.upstreamURL.map { url in
      OpenAIGenerator(
        baseURL: url, certificateFile: environment["CURL_CA_BUNDLE"] ?? environment["SSL_CERT_FILE"],
        maximumIdleConnections: descriptors.idleUpstreamConnections,
        isShortOfDescriptors: { budget.isShort },
        key: {
          do throws(Failure) { return try keyFile.map(prompts.upstreamKey) } catch {
            throw GeneratorError(.misconfigured, error.message, detail: error.detail)
          }
        })
    }
  }

  /// The generator that a configuration asks for. Reading the configuration has made sure that it is there.
  func generator(for configuration: Configuration) -> any Generator {
    switch configuration.effectiveGenerator {
    case .echo: echo
    case .upstream: upstream ?? echo
    }
  }

  /// Logs and counts that a request was refused, whoever refuses it.
  ///
  /// - Parameter request: what the line is to say of the request.
  func recordRefusal(_ failure: Failure, fields request: JSON.Members) {
    var fields = request
    fields["status"] = .integer(failure.code.status)
    fields["error"] = .string(failure.code.rawValue)
    fields["detail"] = failure.detail.map(JSON.string) ?? .null
    log.write(failure.code.logLevel, "refused", fields)
    metrics.refused(failure.code)
  }

  /// Whether the server takes no further streams, because it is about to end.
  var isDraining: Bool { draining.load(ordering: .relaxed) }

  func beginDraining() { draining.store(true, ordering: .relaxed) }
}
