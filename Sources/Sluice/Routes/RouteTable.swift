/// The endpoint table.
struct RouteTable: Sendable {
  private(set) var routes: [Route]

  /// The indices of the rows without placeholders, by path: most requests are for one of these. A row is missing if an
  /// earlier one matches its path too.
  private var constantPaths: [String: Int] = [:]
  /// The largest number of segments in the path of any row.
  private var maximumSegments = 0

  init(_ routes: [Route] = []) {
    self.routes = []
    for route in routes { add(route) }
  }

  mutating func add(_ route: Route) {
    let segments = RequestPath(route.path.text, maximumSegments: .max)
    // Another route can serve the path too. The first one added has precedence.
    if route.path.isConstant, !routes.contains(where: { $0.path.match(segments) != nil }) {
      constantPaths[route.path.text] = routes.count
    }
    routes.append(route)
    maximumSegments = max(maximumSegments, route.path.count)
  }

  /// Whether a row matches a path.
  func matches(_ path: String) -> Bool {
    let segments = split(path)
    return routes.contains { $0.path.match(segments) != nil }
  }

  private func split(_ path: String) -> RequestPath { RequestPath(path, maximumSegments: maximumSegments) }

  /// Returns the row for a request, and the values of its path parameters. A row for GET also serves HEAD.
  ///
  /// - Throws: ``Failure/Code/notFound`` or ``Failure/Code/methodNotAllowed``.
  ///
  /// Clients of OpenAI's API can put a slash at the end of a path.
  func find(_ method: String, _ path: String) throws(Failure) -> (route: Route, parameters: [String: String]) {
    let path = path.hasSuffix("/") && path.hasPrefix("/v1/") ? String(path.dropLast()) : path
    if let index = constantPaths[path], routes[index].methods.contains(method) { return (routes[index], [:]) }
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

  /// Returns the row of the streaming endpoint at a path, for any method.
  ///
  /// - Throws: ``Failure/Code/notFound``.
  func findStream(at path: String) throws(Failure) -> (
    route: Route, endpoint: StreamingEndpoint, parameters: [String: String]
  ) {
    let segments = split(path)
    for route in routes {
      guard case .stream(let endpoint) = route.action, endpoint.dialect != nil else { continue }
      if let parameters = route.path.match(segments) { return (route, endpoint, parameters) }
    }
    throw Failure(.notFound, "No streaming endpoint matches \(path.prefix(200)).")
  }

  /// Returns the methods allowed for a path, including OPTIONS and, with GET, HEAD.
  ///
  /// - Throws: ``Failure/Code/notFound`` when no row matches the path.
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
