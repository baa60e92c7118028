/// The settings of one kind of generator: a value with the defaults, kept in a ``Configuration`` under its type.
protocol GeneratorSettings: Sendable {
  init()
}

extension Configuration {
  subscript<Settings: GeneratorSettings>(_ type: Settings.Type) -> Settings {
    get { generatorSettings[ObjectIdentifier(type)] as? Settings ?? Settings() }
    set { generatorSettings[ObjectIdentifier(type)] = newValue }
  }
}
