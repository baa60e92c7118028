import FastCGI
import JSON
import Upstream

extension Services {
  /// POST /api/ai/stream-report and /api/ai/report: `{"input","title"?,"save"?}`. Streams the model's text; the
  /// terminal record contains the JSON object parsed strictly from it.
  nonisolated(nonsending) func createReport(_ context: RequestContext) async throws -> GenerationRequest {
    let limit = context.configuration.maximumMessageBytes
    let body = try await RequestFields.parse(context, on: parsing) { (fields) throws(Failure) in
      (
        input: try fields.string("input", limit: limit), title: try fields.title(),
        isSaved: try fields.bool("save", default: false)
      )
    }
    return GenerationRequest(
      message: body.input, model: context.configuration.model,
      produce: { generation, idempotencyLock in
        let output = try self.startGeneration(
          body.input, instructions: try context.parts.prompts.text("report"), context, on: generation.reactor)
        let completion = try await generation.relay(output, isLast: true)
        if generation.more?.first?.refusal.isEmpty == false {
          throw Failure(.parseError, "The model refused to write the report.")
        }
        let (text, rules) = (generation.text, generation.redactionRules)
        let report = try await self.pool.run { () throws(Failure) in
          try Redactor.redact(try ReportText.object(in: text, finishReason: completion.finishReason), by: rules)
        }
        guard body.isSaved else { return GenerationResult(completion: completion, extraMembers: ["report": report]) }
        return try await self.save(report, title: body.title, generation, completion, idempotencyLock, context)
      },
      jsonBody: { result, _ in
        var members: JSON.Members = ["report": result.extraMembers["report"] ?? .null]
        members["reportId"] = result.extraMembers["reportId"]
        return .object(members)
      })
  }

  /// POST /api/reports: `{"report","title"?}`. Stores the report unchanged.
  nonisolated(nonsending) func saveReport(_ context: RequestContext) async throws -> Response {
    // The request calls no model but uses disk space, so it counts as a message.
    let stored = try await parseCounted(context) { (fields) throws(Failure) in
      guard let report = fields["report"], case .object = report else {
        throw Failure(.badRequest, "\"report\" must be a JSON object.")
      }
      return StoredReport(id: Identifier.make(), title: try fields.title(), at: Timestamp.now, report: report)
    }
    try await writingStore("The report could not be stored.") { try await store.save(stored, of: context.user) }
    return .json(["id": .string(stored.id)], status: 201)
  }

  /// Parses the fields of a request that counts as a message. It is counted first, because a user without any left must
  /// not cause the work; one that is not valid does not count.
  nonisolated(nonsending) func parseCounted<Value: Sendable>(
    _ context: RequestContext, _ make: @escaping @Sendable (RequestFields) throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    let message = try await streamLimiter.countMessage(of: context.user, context.configuration)
    do throws(Failure) { return try await RequestFields.parse(context, on: parsing, make) } catch {
      await streamLimiter.removeMessage(message, of: context.user)
      throw error
    }
  }

  /// GET /api/reports: lists the user's reports, newest first, without their content.
  nonisolated(nonsending) func listReports(_ context: RequestContext) async throws -> Response {
    let page = try Page(context.request)
    let reports = try await readingStore { try await store.reports(of: context.user, page) }
    return .json(["reports": .array(reports)])
  }

  /// GET /api/reports/{id}: returns a report, redacted by the current rules.
  nonisolated(nonsending) func readReport(_ context: RequestContext) async throws -> Response {
    let id = context.pathParameters["id"] ?? ""
    guard Identifier.isValid(id), let report = try await readingStore({ try await store.report(id, of: context.user) })
    else {
      throw Failure(.notFound, "Report not found.")
    }
    let rules = try await redactionRules(for: context.configuration)
    return try await pool.run { () throws(Failure) in .json(try report.redacted(by: rules).json) }
  }

  /// Stores the report of a stream under the stream's id, so that a repetition of the same request stores it only once.
  private nonisolated(nonsending) func save(
    _ report: JSON, title: String?, _ generation: Generation, _ completion: Completion,
    _ idempotencyLock: IdempotencyLock?, _ context: RequestContext
  ) async throws -> GenerationResult {
    let stored = StoredReport(id: generation.messageID, title: title, at: Timestamp.now, report: report)
    let result = GenerationResult(
      messageID: nil, sessionID: nil, completedAt: stored.at, completion: completion,
      extraMembers: ["report": report, "reportId": .string(stored.id)])
    let replay = idempotencyLock.map {
      Replay(request: $0.request, messageID: generation.messageID, text: generation.text, result: result, title: title)
    }
    do throws(Failure) {
      try await writingStore("The report could not be stored.") {
        if let idempotencyLock, let replay { try await store.complete(idempotencyLock, with: replay) }
        try await store.save(stored, of: context.user)
      }
    } catch {
      unsaved.add(.report(stored), of: context.user, replay: replay, idempotencyLock: idempotencyLock)
      throw error
    }
    return result
  }
}

/// The JSON object in a model's output.
enum ReportText {
  /// Returns the object, parsed strictly. What surrounds it is dropped: a byte order mark, white space, a code fence or
  /// prose. Nothing inside it is repaired, so the object is exactly the model's output.
  static func object(in text: String, finishReason: FinishReason) throws(Failure) -> JSON {
    guard finishReason != .length else {
      throw Failure(.parseError, "The report was truncated by the token limit.")
    }
    let bytes = Array(text.utf8)
    guard let start = bytes.firstIndex(of: UInt8(ascii: "{")), let end = end(ofObjectAt: start, in: bytes),
      !isInsideArray(bytes[..<start]), let object = try? JSON(parsing: Array(bytes[start..<end]))
    else { throw Failure(.parseError, "The model's output is not a JSON object.") }
    return object
  }

  /// Whether the first object is only an element of an array: the text before it ends with `[`, or with `,` after
  /// a `[`.
  private static func isInsideArray(_ prefix: ArraySlice<UInt8>) -> Bool {
    let last = String(decoding: prefix, as: UTF8.self).trimmed.last
    return last == "[" || (last == "," && prefix.contains(UInt8(ascii: "[")))
  }

  /// Returns the index after the brace that matches the one at `start`; nil if there is none.
  private static func end(ofObjectAt start: Int, in bytes: [UInt8]) -> Int? {
    var depth = 0
    var isInString = false
    var isEscaped = false
    for index in start..<bytes.count {
      switch bytes[index] {
      case _ where isEscaped: isEscaped = false
      case UInt8(ascii: "\\") where isInString: isEscaped = true
      case UInt8(ascii: "\""): isInString.toggle()
      case UInt8(ascii: "{") where !isInString: depth += 1
      case UInt8(ascii: "}") where !isInString:
        depth -= 1
        if depth == 0 { return index + 1 }
      default: break
      }
    }
    return nil
  }
}
