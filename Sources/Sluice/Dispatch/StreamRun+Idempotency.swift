import FastCGI
import JSON

/// Handling of the Idempotency-Key.
extension StreamRun {
  /// Returns the Idempotency-Key of a POST request, if there is one and the endpoint supports it.
  func idempotencyKey() throws(Failure) -> String? {
    guard endpoint.supportsIdempotencyKey, context.method == "POST", let key = context.head.header("Idempotency-Key")
    else {
      return nil
    }
    guard (1...255).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw Failure(.badRequest, "An Idempotency-Key must be 1 to 255 visible ASCII characters.")
    }
    return key
  }

  /// Sets ``requestDigest``.
  func digestRequest() async throws {
    // Parsing and hashing a large body takes milliseconds.
    let (body, path) = (context.body, context.head.path)
    requestDigest = await services.pool.run {
      // White space and escapes make no difference: a client does not know how a WebSocket passes the body on.
      let canonical = (try? JSON(parsing: body.bytes))?.encoded ?? body.bytes
      return Digest(of: Array("\(path)\n".utf8) + canonical).hex
    }
  }

  /// Tries to acquire an Idempotency-Key for this run.
  func acquire(_ key: String) async throws -> IdempotencyState {
    try await digestRequest()
    // A complete response to an earlier request can still be waiting to be stored; it must be stored before it can be
    // replayed.
    let (unsaved, user) = (services.unsaved, context.user)
    guard await services.pool.run({ unsaved.store(key: key, of: user) }) else {
      throw Failure(.storeFailed, "The response is complete but could not be stored.")
    }
    guard let unit = services.descriptors.acquireUnit() else {
      throw Failure(.overloaded, "The server has no file descriptor left for another stream.", retryAfter: .seconds(5))
    }
    do {
      return try await services.store.acquireIdempotencyKey(
        of: key, request: requestDigest, by: id, context.user, unit: unit)
    } catch {
      throw Failure(.storeFailed, "The Idempotency-Key could not be looked up.", detail: "\(error)")
    }
  }

  static func conflict(_ stream: String) -> Failure {
    var failure = Failure(
      .conflict, "A request with this Idempotency-Key is already in progress (stream \(stream)).",
      retryAfter: .seconds(1))
    failure.streamID = stream
    return failure
  }
}
