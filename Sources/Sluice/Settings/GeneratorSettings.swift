/// The settings of one kind of generator. `init()` sets the defaults; a ``Configuration`` stores the value by its type.
protocol GeneratorSettings: Sendable {
  init()
}

extension Configuration {
  subscript<Settings: GeneratorSettings>(_ type: Settings.Type) -> Settings {
    get { generatorSettings[ObjectIdentifier(type)] as? Settings ?? Settings() }
    set { generatorSettings[ObjectIdentifier(type)] = newValue }
  }
}
