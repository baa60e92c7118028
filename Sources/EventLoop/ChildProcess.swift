import CLinux
import Glibc
import Synchronization

/// A program that this process has started, in a process group of its own, and the ends of its pipes. Thread-safe.
///
/// Owns the process: its id stays in use until ``endGroup()``, which the owner must call. Otherwise the group is killed
/// when this object is deallocated.
package final class ChildProcess: Sendable {
  package let pid: pid_t
  /// Readable when the program has ended (pidfd_open(2)).
  package let end: Descriptor
  /// The program's standard output, non-blocking.
  package let output: Descriptor
  /// The program's standard error, non-blocking.
  package let errors: Descriptor
  private let isGroupEnded = Atomic(false)

  /// The end of a program.
  package enum Result: Sendable, Equatable, CustomStringConvertible {
    /// With an exit status; 0 means success.
    case exited(Int)
    case killed(signal: Int)
    /// Other code of this process has received the status.
    case unknown

    package var description: String {
      switch self {
      case .exited(let status): "exit status \(status)"
      case .killed(let signal): "killed by signal \(signal)"
      case .unknown: "exit status unknown, because other code of this process waits for its children"
      }
    }
  }

  /// Starts a program. Blocks until it is executed.
  ///
  /// - Parameters:
  ///   - program: its path.
  ///   - arguments: the first is the name by which it was called.
  ///   - input: its standard input, complete.
  /// - Throws: `ENOENT` if there is no such program, `EACCES` if it is not executable, `EMFILE` when no descriptor is
  ///   available, `EAGAIN` when no process is.
  package init(
    _ program: String, _ arguments: [String], environment: [String: String], input: [UInt8]
  ) throws(SystemError) {
    let file = try MemoryFile().open(input)
    defer { close(file) }
    let argv = unsafe arguments.map { unsafe strdup($0) } + [nil]
    let envp = unsafe environment.map { unsafe strdup("\($0.key)=\($0.value)") } + [nil]
    defer {
      for index in unsafe argv.indices { unsafe free(argv[index]) }
      for index in unsafe envp.indices { unsafe free(envp[index]) }
    }
    var (end, output, errors): (CInt, CInt, CInt) = (-1, -1, -1)
    pid = unsafe clinux_spawn_command(program, argv, envp, file, &end, &output, &errors)
    guard pid > 0 else { throw SystemError("start \(program)") }
    self.end = Descriptor(owning: end)
    self.output = Descriptor(owning: output)
    self.errors = Descriptor(owning: errors)
  }

  /// Lets the system keep the status of programs that end. A program that ignores SIGCHLD, possibly because the one that
  /// started it did, never gets it (sigaction(2)).
  package static func keepResults() { clinux_keep_child_status() }

  /// The end of the program; nil while it runs. Others of its group may still run.
  package var result: Result? {
    var (status, signal): (CInt, CInt) = (-1, -1)
    guard unsafe clinux_has_ended(pid, &status, &signal) else { return nil }
    return status >= 0 ? .exited(Int(status)) : signal >= 0 ? .killed(signal: Int(signal)) : .unknown
  }

  /// Sends a signal to all processes of the group. Has no effect after ``endGroup()``.
  package func signalGroup(_ signal: CInt) {
    if !isGroupEnded.load(ordering: .relaxed) { kill(-pid, signal) }
  }

  /// Kills what is left of the group, and releases the process's id. Call it when the program has ended; otherwise it
  /// waits for that.
  package func endGroup() {
    guard !isGroupEnded.exchange(true, ordering: .relaxed) else { return }
    // Until the program is reaped, no other group can have its id.
    kill(-pid, SIGKILL)
    clinux_reap(pid)
  }

  deinit { endGroup() }
}
