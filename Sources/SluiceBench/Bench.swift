import EventLoop
import FoundationEssentials
import Glibc
import SluiceTesting

/// The load of one leg of `Tests/bench`: it is the model server and the clients of a backend that runs already, and
/// prints what it measured as one line of JSON.
///
///     sluice-bench SCENARIO --port PORT --upstream-port PORT --pids nginx=PID,backend=PID [--name NUMBER …]
///
/// `Tests/bench` starts the servers; run that instead.
@main
struct Bench {
  static func main() async {
    do {
      let options = try Options(CommandLine.arguments)
      print(try await Run(options).result())
    } catch {
      print("sluice-bench: \(error)")
      exit(1)
    }
  }
}

struct Options: Sendable {
  enum Scenario: String, CaseIterable, Sendable {
    /// Streams at a fixed rate; a stream that ends is replaced.
    case steady
    /// Requests for one token, one after the other.
    case requests
    /// One stream, as fast as possible.
    case flat
    /// All clients disconnect at once.
    case disconnect
  }

  var scenario = Scenario.steady
  var path = "/api/chat"
  var body = #"{"message":"Go on."}"#
  var token = "any"
  /// Whether each stream has a WebSocket of its own.
  var usesWebSocket = false
  var port: UInt16 = 0
  var upstreamPort: UInt16 = 0
  var streams = 1000
  var rate = 20.0
  /// The length of the measurement, in seconds.
  var seconds = 10.0
  /// The number of tokens per stream; 0 means as many as are needed.
  var tokens = 0
  var requests = 500
  /// The processes to measure, by name. Child processes count too.
  var processes: [(name: String, pid: Int)] = []

  init(_ arguments: [String]) throws {
    var words = arguments.dropFirst()
    guard let name = words.popFirst(), let scenario = Scenario(rawValue: name) else {
      throw Issue(
        description: "the first argument must be one of: \(Scenario.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    self.scenario = scenario
    while let name = words.popFirst() {
      guard let value = words.popFirst() else { throw Issue(description: "\(name) needs a value") }
      switch name {
      case "--path": path = value
      case "--body": body = value
      case "--token": token = value
      case "--transport":
        guard value == "http" || value == "websocket" else {
          throw Issue(description: "--transport takes http or websocket")
        }
        usesWebSocket = value == "websocket"
      case "--pids":
        for pair in value.split(separator: ",") {
          let parts = pair.split(separator: "=")
          guard parts.count == 2, let pid = Int(parts[1]) else { throw Issue(description: "--pids takes NAME=PID,…") }
          processes.append((String(parts[0]), pid))
        }
      default:
        guard let number = Double(value), number >= 0 else { throw Issue(description: "\(name) needs a number") }
        switch name {
        case "--port": port = UInt16(clamping: Int(number))
        case "--upstream-port": upstreamPort = UInt16(clamping: Int(number))
        case "--streams": streams = Int(number)
        case "--rate": rate = number
        case "--seconds": seconds = number
        case "--tokens": tokens = Int(number)
        case "--requests": requests = Int(number)
        default: throw Issue(description: "unknown option \(name)")
        }
      }
    }
  }

  struct Issue: Error, CustomStringConvertible {
    let description: String
  }
}
