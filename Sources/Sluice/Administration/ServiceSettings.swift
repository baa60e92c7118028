/// The settings of a service, for commands on its files.
package enum ServiceSettings {
  /// Returns the tokens file that the environment, or the file of settings that it names, configures.
  ///
  /// - Throws: ``StartError`` when there is none.
  package static func tokensFile(in environment: [String: String]) throws(StartError) -> String {
    if let path = try Environment(checking: environment)["SLUICE_TOKENS_FILE"], !path.isEmpty { return path }
    throw StartError(
      message: "SLUICE_TOKENS_FILE is not set: it must name the file to which the token is appended")
  }
}
