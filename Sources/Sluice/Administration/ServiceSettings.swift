/// The settings of a service, for commands on its files.
package enum ServiceSettings {
  /// Returns the tokens file that the environment, or the file of settings that it names, configures.
  ///
  /// - Throws: ``StartError`` when there is none.
  package static func tokensFile(in environment: [String: String]) throws(StartError) -> String {
    let environment = Environment(environment)
    if let path = environment["SLUICE_TOKENS_FILE"], !path.isEmpty { return path }
    if let issue = environment.issues.first { throw StartError(message: "\(issue)") }
    throw StartError(
      message: "SLUICE_TOKENS_FILE is not set: it must name the file to which the token is appended")
  }
}
