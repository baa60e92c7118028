extension Services {
  /// GET, POST /api/stream/ai-block/{block_type}: sends one input to a block; each block is a prompt. No turn is
  /// stored.
  nonisolated(nonsending) func streamBlock(_ context: RequestContext) async throws -> GenerationRequest {
    let instructions = try blockInstructions(context.pathParameters)
    let limit = context.configuration.maximumMessageBytes
    let input = try await RequestFields.parse(context, on: parsing) { (fields) throws(Failure) in
      try fields.string("input", limit: limit)
    }
    return GenerationRequest(
      message: input, model: context.configuration.model, retainsText: false,
      produce: { generation, _ in
        let output = try self.startGeneration(
          input, instructions: instructions, context, on: generation.reactor)
        return GenerationResult(completion: try await generation.relay(output))
      })
  }

  func checkBlock(_ parameters: [String: String]) throws(Failure) { _ = try blockInstructions(parameters) }

  /// Returns the prompt of the block that a path names.
  private func blockInstructions(_ parameters: [String: String]) throws(Failure) -> String {
    let name = parameters["block_type"] ?? ""
    guard Identifier.isValid(name), let instructions = try prompts.text("blocks/" + name) else {
      throw Failure(
        .notFound,
        "Unknown block type \"\(name.prefix(64))\"; available types: \(prompts.blocks.joined(separator: ", ")).")
    }
    return instructions
  }
}
