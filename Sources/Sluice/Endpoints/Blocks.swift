extension Services {
  /// GET, POST /api/stream/ai-block/{block_type}: one question to a block, each of which is a prompt. Nothing is stored.
  nonisolated(nonsending) func block(_ call: Call) async throws -> Question {
    let name = call.pathParameters["block_type"] ?? ""
    guard Identifier.isValid(name), let instructions = try prompts.text("blocks/" + name) else {
      throw Failure(
        .notFound, "There is no block \"\(name.prefix(64))\"; there are: \(prompts.blocks.joined(separator: ", ")).")
    }
    let limit = call.configuration.maximumMessageBytes
    let input = try await RequestFields.parse(call, on: parsing) { (fields) throws(Failure) in
      try fields.text("input", limit: limit)
    }
    return Question(
      message: input, model: call.configuration.model, keepsText: false,
      answer: { stream in
        let answer = try self.ask(input, instructions: instructions, call, stream)
        return Finish(completion: try await stream.relay(answer))
      })
  }
}
