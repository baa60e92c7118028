/// The table of endpoints.
struct RouteTable: Sendable {
  private(set) var routes: [Route]

  /// The most segments that a row's path has.
  private var maximumSegments = 0

  init(_ routes: [Route] = []) {
    self.routes = []
    for route in routes { add(route) }
  }

  mutating func add(_ route: Route) {
    routes.append(route)
    maximumSegments = max(maximumSegments, route.path.count)
  }

  private func split(_ path: String) -> RequestPath { RequestPath(path, maximumSegments: maximumSegments) }

  /// The row for a request, which also answers HEAD where it answers GET.
  func find(_ method: String, _ path: String) throws(Failure) -> (route: Route, parameters: [String: String]) {
    let segments = split(path)
    for route in routes where route.methods.contains(method == "HEAD" ? "GET" : method) {
      if let parameters = route.path.match(segments) { return (route, parameters) }
    }
    let methods = try self.methods(at: segments)
    var failure = Failure(
      .methodNotAllowed,
      "\(method.prefix(20)) is not allowed for \(path.prefix(200)); allowed: \(methods.joined(separator: ", ")).")
    failure.allowedMethods = methods
    throw failure
  }

  /// The methods that a path has, HEAD and OPTIONS among them.
  ///
  /// - Throws: ``Failure/Code/notFound`` when no row has the path.
  func methods(at path: String) throws(Failure) -> [String] { try methods(at: split(path)) }

  private func methods(at path: RequestPath) throws(Failure) -> [String] {
    var methods: [String] = []
    for route in routes where route.path.match(path) != nil {
      methods += route.methods + (route.methods.contains("GET") ? ["HEAD"] : [])
    }
    guard !methods.isEmpty else { throw Failure(.notFound, "No endpoint matches \(path.text.prefix(200)).") }
    return methods + ["OPTIONS"]
  }
}
