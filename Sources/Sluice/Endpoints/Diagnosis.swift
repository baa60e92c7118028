import EventLoop
import FastCGI
import Glibc
import JSON
import Upstream

/// The endpoints of `sluice doctor`.
extension Services {
  /// GET /api/doctor: checks the model server, the store and the process.
  ///
  /// It asks the model for a few tokens, so it counts as a message, and as one of the user's streams while it runs.
  nonisolated(nonsending) func diagnose(_ context: RequestContext) async throws -> Response {
    let slot = try await streamLimiter.acquireSlot(for: context.user, context.configuration)
    defer { withExtendedLifetime(slot) {} }
    _ = try await streamLimiter.countMessage(of: context.user, context.configuration)
    let store = store
    let findings = await upstreamFindings(context) + pool.run { store.findings() } + descriptorFindings()
    return .json(findings.json)
  }

  private nonisolated(nonsending) func upstreamFindings(_ context: RequestContext) async -> [Finding] {
    var timeout: GeneratorError?
    do {
      let prompt = Prompt(
        messages: [Message(.user, "Reply with OK.")], model: context.configuration.model, maximumTokens: 16)
      let output = try context.parts.generator(for: context.configuration).start(prompt, on: context.reactor)
      let timer = context.reactor.schedule(after: context.configuration.firstTokenTimeout) {
        timeout = output.refusalWhileWaiting ?? GeneratorError(.timedOut, "The model server did not respond.")
        output.cancel()
      }
      defer {
        timer.cancel()
        output.cancel()
      }
      try await output.waitUntilAccepted()
      _ = try await output.next()
      return []
    } catch {
      let error = timeout ?? error
      let failure = Failure(cause: error)
      log.warning(
        "model server check failed",
        ["error": .string(failure.code.name), "detail": failure.detail.map(JSON.string) ?? .null])
      return [Finding(upstream: error, failure)]
    }
  }

  private func descriptorFindings() -> [Finding] {
    guard descriptors.isShort else { return [] }
    return [
      Finding(
        .descriptors, "The process has few file descriptors left: new requests may be refused.",
        fix:
          "Raise LimitNOFILE= with \"systemctl edit sluice\", to twice the number of streams and 1000."
      )
    ]
  }

  /// GET /api/doctor/stream: streams words 250 ms apart for `?seconds=`, then nothing but heartbeats for `?silence=`
  /// seconds. It calls no model.
  nonisolated(nonsending) func streamWords(_ context: RequestContext) async throws -> GenerationRequest {
    let seconds = try context.head.integer("seconds", in: 1...120) ?? 3
    let silence = try context.head.integer("silence", in: 0...120) ?? 0
    return GenerationRequest(
      message: "", retainsText: false,
      produce: { generation, _ in
        for number in 1...4 * seconds {
          if number > 1 { try await generation.reactor.sleep(for: .milliseconds(250)) }
          try await generation.send("\(number) ")
        }
        // The idle timeout applies only to models.
        try await generation.reactor.sleep(for: .seconds(silence))
        return GenerationResult(completion: Completion())
      })
  }
}

extension Finding {
  /// Creates the finding for a failed request to the model server.
  fileprivate init(upstream error: any Error, _ failure: Failure) {
    let cause = (error as? GeneratorError)?.cause
    switch cause {
    case .unauthorized:
      self.init(
        .upstreamUnauthorized, "The model server refused the API key.",
        fix: "Correct the file that SLUICE_UPSTREAM_KEY_FILE names, or the credential upstream-key and restart.")
    case .model:
      self.init(
        .upstreamModel, "The model server does not know the model, or the path of the URL.",
        fix:
          "Correct SLUICE_MODEL and SLUICE_UPSTREAM_URL, which usually ends with /v1; curl URL/models lists the models."
      )
    case .notStreaming:
      self.init(
        .upstreamNotStreaming, failure.message,
        fix: "Correct SLUICE_UPSTREAM_URL: it must be an OpenAI-compatible API that streams.")
    case .unreachable, .connectTimeout, nil:
      self.init(
        .upstreamUnreachable, failure.message,
        fix:
          "See the log for the reason (journalctl -u sluice), and correct SLUICE_UPSTREAM_URL, SLUICE_COMMAND or the model."
      )
    }
  }
}
