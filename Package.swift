// swift-tools-version: 6.2
import PackageDescription

// What every Swift target of this package is built with. A warning is an error: the code is meant to have none.
let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  .enableUpcomingFeature("ExistentialAny"),
]

let package = Package(
  name: "Sluice",
  products: [
    .library(name: "Sluice", targets: ["Sluice"]),
    .library(name: "SluiceTesting", targets: ["SluiceTesting"]),
    .executable(name: "sluice", targets: ["SluiceCommand"]),
    .executable(name: "sluice-bench", targets: ["SluiceBench"]),
  ],
  targets: [
    // Debian's libraries: a module map and a thin shim header each.
    .systemLibrary(name: "CFastCGI", pkgConfig: "fcgi", providers: [.apt(["libfcgi-dev"])]),
    .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    // Those that few configurations need: CLazyLibraries loads them on demand, so they are not linked.
    .systemLibrary(name: "CCurl", providers: [.apt(["libcurl4-openssl-dev"])]),
    .systemLibrary(name: "CJOSE", providers: [.apt(["libcjose-dev", "libjansson-dev"])]),
    .systemLibrary(name: "CPCRE2", providers: [.apt(["libpcre2-dev"])]),
    .systemLibrary(name: "CSystemd", providers: [.apt(["libsystemd-dev"])]),
    .systemLibrary(name: "CWslay", providers: [.apt(["libwslay-dev"])]),
    .systemLibrary(name: "CZlib", providers: [.apt(["zlib1g-dev"])]),
    // Ours, in C and C++.
    .target(name: "CLinux"),
    .target(name: "CLazyLibraries"),
    .target(
      name: "CSimdJSON", cxxSettings: [.define("SIMDJSON_EXCEPTIONS", to: "0")],
      linkerSettings: [.linkedLibrary("simdjson")]),

    // From the bottom up; an arrow points one way.
    .target(name: "EventLoop", dependencies: ["CLinux"], swiftSettings: strict),
    .target(name: "Bytes", swiftSettings: strict),
    .target(name: "EventStream", dependencies: ["Bytes"], swiftSettings: strict),
    .target(name: "JSON", dependencies: ["Bytes", "CSimdJSON"], swiftSettings: strict),
    .target(name: "FastCGI", dependencies: ["Bytes", "CFastCGI", "EventLoop"], swiftSettings: strict),
    .target(
      name: "WebSocket", dependencies: ["Bytes", "CCrypto", "CLazyLibraries", "CWslay", "EventLoop"],
      swiftSettings: strict),
    .target(
      name: "Upstream",
      dependencies: ["Bytes", "CCurl", "CLazyLibraries", "CSimdJSON", "CZlib", "EventLoop", "EventStream", "JSON"],
      swiftSettings: strict),
    .target(
      name: "Sluice",
      dependencies: [
        "Bytes", "CCrypto", "CCurl", "CJOSE", "CLazyLibraries", "CLinux", "CPCRE2", "CSimdJSON", "CSystemd",
        "EventLoop", "EventStream", "FastCGI", "JSON", "Upstream", "WebSocket",
      ],
      // Prompts and the contract, compiled in: one file to install.
      resources: [.embedInCode("Resources")],
      swiftSettings: strict),
    .executableTarget(name: "SluiceCommand", dependencies: ["Sluice"], swiftSettings: strict),

    // For tests, ours and embedders', and for measurements.
    .target(
      name: "SluiceTesting", dependencies: ["Bytes", "Sluice", "EventLoop", "EventStream", "FastCGI"],
      swiftSettings: strict),
    .executableTarget(
      name: "SluiceBench", dependencies: ["SluiceTesting", "EventLoop", "FastCGI", "JSON"], swiftSettings: strict),
    // Programs of embedders, compiled as theirs would be: without this package's settings.
    .executableTarget(name: "sluice-countdown", dependencies: ["Sluice"], path: "Tests/Examples/Countdown"),
    .executableTarget(name: "sluice-relay", dependencies: ["Sluice"], path: "Tests/Examples/Relay"),
    .executableTarget(name: "sluice-log-tail", dependencies: ["Sluice"], path: "Tests/Examples/LogTail"),
    .testTarget(
      name: "EventLoopTests", dependencies: ["EventLoop", "SluiceTesting"], swiftSettings: strict),
    .testTarget(
      name: "FastCGITests", dependencies: ["FastCGI", "SluiceTesting"], swiftSettings: strict),
    .testTarget(
      name: "EventStreamTests", dependencies: ["EventStream", "SluiceTesting"],
      swiftSettings: strict),
    .testTarget(
      name: "UpstreamTests", dependencies: ["Upstream", "SluiceTesting"], swiftSettings: strict),
    .testTarget(
      name: "WebSocketTests", dependencies: ["Bytes", "WebSocket", "SluiceTesting"], swiftSettings: strict),
    .testTarget(name: "JSONTests", dependencies: ["JSON", "SluiceTesting"], swiftSettings: strict),
    .testTarget(
      name: "SluiceTests", dependencies: ["EventStream", "JSON", "Sluice", "SluiceTesting"], swiftSettings: strict),
    .testTarget(
      name: "IntegrationTests", dependencies: ["EventLoop", "EventStream", "JSON", "Sluice", "SluiceTesting"],
      swiftSettings: strict),
  ],
  cxxLanguageStandard: .cxx17
)

// A program for libFuzzer has no main of ours, so it is there only when it is asked for: Tests/run --fuzz.
if Context.environment["SLUICE_FUZZ"] != nil {
  let instrument = ["-sanitize=fuzzer", "-enable-testing"]
  for target in package.targets where target.type == .regular || target.type == .executable {
    target.swiftSettings = (target.swiftSettings ?? []) + [.unsafeFlags(instrument)]
  }
  package.targets.append(
    .executableTarget(
      name: "sluice-fuzz", dependencies: ["EventStream", "FastCGI", "JSON", "Sluice", "Upstream", "WebSocket"],
      path: "Tests/Fuzz",
      swiftSettings: strict + [.unsafeFlags(instrument + ["-parse-as-library"])],
      linkerSettings: [.unsafeFlags(["-sanitize=fuzzer", "-use-ld=lld"])]))
}
