import EventLoop
import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Model as a child process")
  struct CommandTests {
    private static let examples = packageRoot + "/Tests/Examples/Commands/"

    /// Sluice with a shell script as its model, which can write process ids to files.
    private final class Fixture: Sendable {
      let directory = TemporaryDirectory()
      let sluice: Sluice

      /// - Parameter script: in it, DIRECTORY stands for the directory of the files.
      init(_ script: String, _ environment: [String: String] = [:]) async throws {
        let text = "#!/bin/sh\n" + script.replacingOccurrences(of: "DIRECTORY", with: directory.path)
        let file = directory.file("model.sh", text)
        unsafe chmod(file, 0o755)
        sluice = try await Sluice(
          ["SLUICE_GENERATOR": "command", "SLUICE_COMMAND": file, "SLUICE_STREAMS_PER_USER": "0"].merging(environment) {
            $1
          })
      }

      /// The process ids in a file.
      func pids(_ name: String) -> [pid_t] {
        let text = (try? String(contentsOfFile: "\(directory.path)/\(name)", encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap { pid_t($0) }
      }

      /// Expects that none of the processes in the file "pids", of which there are `count`, is left, nor a descriptor.
      func expectNothingLeft(_ count: Int, descriptors: Int) async {
        #expect(await eventually { pids("pids").count == count && pids("pids").allSatisfy { kill($0, 0) != 0 } })
        #expect(await eventually { sluice.descriptors <= descriptors }, "\(sluice.descriptors), before \(descriptors)")
        let children = "/proc/\(sluice.program.pid)/task/\(sluice.program.pid)/children"
        #expect(await eventually { (try? String(contentsOfFile: children, encoding: .utf8)) == "" })
      }
    }

    /// Returns the text of the deltas, and the last record.
    private func text(_ response: String) -> (deltas: String, last: String?) {
      let events = response.components(separatedBy: "\r\n\r\n").dropFirst().joined(separator: "\r\n\r\n").events
      return (events.compactMap { $0.json["t"]?.string }.joined(), events.last?.type)
    }

    @Test("The examples stream their answers: a shell script, llama-cli behind a script, and a Python program")
    func examples() async throws {
      let directory = TemporaryDirectory()
      // What llama-cli writes: messages with and without line ends to standard error, tokens that split a character.
      let llama = directory.file(
        "llama-cli",
        #"""
        #!/bin/sh
        [ "$1 $2 $5 $6" = '--model m.gguf --n-predict 7' ] || exit 9
        echo 'llama_model_loader: loaded meta data with 26 key-value pairs' >&2
        printf '....................' >&2
        for token in 'Hel' 'lo ' '\360\237' '\216\247'; do printf "$token"; sleep 0.05; done
        printf '\n\nllama_print_timings: total time = 5 ms\n' >&2
        """#)
      unsafe chmod(llama, 0o755)
      let path = directory.path + ":" + (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin")
      for (command, answer) in [
        (Self.examples + "shout.sh", "TELL ME "),
        (Self.examples + "llama.sh m.gguf", "Hello 🎧"),
        ("[\"/usr/bin/python3\", \"\(Self.examples)model.py\"]", "I have read 2 words, 🎧 among them. "),
      ] {
        let servers = try await Servers([
          "SLUICE_GENERATOR": "command", "SLUICE_COMMAND": command, "PATH": path, "SLUICE_MAX_TOKENS": "7",
        ])
        let output = await servers.output(of: try servers.chat("tell me"))
        #expect(output.events.compactMap { $0.json["t"]?.string }.joined() == answer, "\(output)\(servers.demo.errors)")
        #expect(output.events.last?.type == "done" && servers.storedLines.count == 1, "\(output)")
        if command.contains("llama") {
          let lines = servers.demo.log("command output").compactMap { $0["line"] as? String }
          #expect(
            lines == [
              "llama_model_loader: loaded meta data with 26 key-value pairs", "....................",
              "llama_print_timings: total time = 5 ms",
            ], "\(lines)")
        }
        _ = await servers.stop()
      }
    }

    @Test("A command gets the prompt, few variables, and no descriptor but the standard ones")
    func input() async throws {
      let fixture = try await Fixture(
        "cat; echo; env | sed 's/=.*//' | sort | tr '\\n' ' '; ls /proc/$$/fd | tr '\\n' ' '; kill -l TERM; trap",
        ["LC_TIME": "C", "TZ": "UTC", "SECRET": "s", "SLUICE_MODEL": "m", "SLUICE_MAX_TOKENS": "9"])
      let answer = text(try fixture.sluice.chat("a \\\"b\\\"").readResponse().text)
      let lines = answer.deltas.split(separator: "\n")
      #expect(
        lines.first?.contains(#""messages":["#) == true
          && lines[0].hasSuffix(#"{"role":"user","content":"a \"b\""}],"model":"m","max_tokens":9}"#), "\(answer)")
      // dash sets PWD, and opens the script as descriptor 10.
      #expect(lines.last?.hasPrefix("HOME LANG LC_TIME PATH PWD TZ 0 1 10 2 ") == true, "\(answer)")
      // A prompt that is larger than a pipe, and not read.
      let ignoring = try await Fixture("echo done")
      let large = text(try ignoring.sluice.chat(String(repeating: "word ", count: 12_000)).readResponse().text)
      #expect(large.deltas == "done\n" && large.last == "done", "\(large)")
    }

    @Test("A name is searched for in the PATH that the command gets, and a file without an interpreter is warned of")
    func path() async throws {
      let directory = TemporaryDirectory()
      let model = directory.file("own-model", "#!/bin/sh\necho found\n")
      unsafe chmod(model, 0o755)
      let settings = directory.file(
        "env", "SLUICE_GENERATOR=command\nSLUICE_COMMAND=own-model\nPATH=\(directory.path):/usr/bin:/bin\n")
      let sluice = try await Sluice(["SLUICE_ENV_FILE": settings])
      let found = text(try sluice.chat("x").readResponse().text)
      #expect(found.deltas == "found\n" && found.last == "done", "\(found) \(sluice.program.errors)")
      let plain = directory.file("plain", "echo x\n")
      unsafe chmod(plain, 0o755)
      for (command, isWarnedOf) in [(plain, true), (model, false), ("/bin/sh", false)] {
        let check = try Program(
          releaseDirectory + "/sluice", ["--check"],
          environment: [
            "SLUICE_AUTH": "none", "SLUICE_STATE": directory.path + "/state", "SLUICE_GENERATOR": "command",
            "SLUICE_COMMAND": command,
          ])
        #expect(await check.exitCode() == 0)
        #expect((check.output + check.errors).contains("does not begin with #!") == isWarnedOf, "\(check.errors)")
      }
    }

    @Test("An exit status other than 0, a signal, and a program that cannot start fail the response with the reason")
    func failures() async throws {
      for (script, status, reason) in [
        ("echo oh no >&2; exit 3", "502", "exit status 3; last line: oh no"),
        ("kill -SEGV $$", "502", "killed by signal 11"),
        ("printf half; exit 3", "200", "exit status 3"),
        ("exec 1>&-; exit 4", "502", "exit status 4"),
      ] {
        let fixture = try await Fixture(script)
        let response = try fixture.sluice.chat("x").readResponse().text
        #expect(response.hasPrefix("Status: \(status)") && response.contains("upstream_error"), "\(response)")
        #expect(!response.contains("oh no"))
        #expect(text(response).deltas == (status == "200" ? "half" : ""))
        #expect(await eventually { fixture.sluice.program.errors.contains(reason) }, "\(fixture.sluice.program.errors)")
        #expect(!FileManager.default.fileExists(atPath: fixture.sluice.directory + "/state/users/anonymous/sessions"))
      }
      let fixture = try await Fixture("echo")
      try FileManager.default.removeItem(atPath: fixture.directory.path + "/model.sh")
      let response = try fixture.sluice.chat("x").readResponse().text
      #expect(response.hasPrefix("Status: 502"), "\(response)")
      #expect(await eventually { fixture.sluice.program.errors.contains("No such file") })
    }

    @Test("An empty answer is an answer, and half a character at the end is a replacement character")
    func unusual() async throws {
      for (script, answer) in [
        ("exit 0", ""), (#"printf 'a\342\202'"#, "a\u{FFFD}"), (#"printf '\377b'"#, "\u{FFFD}b"),
      ] {
        let fixture = try await Fixture(script)
        let result = text(try fixture.sluice.chat("x", session: "s").readResponse().text)
        #expect(result.deltas == answer && result.last == "done", "\(result)")
      }
    }

    @Test(
      "Whatever a command does, it is gone when its response has ended, and so is what it has started",
      arguments: [
        // Silent, with a child.
        "sleep 100 & echo $! >>DIRECTORY/pids; echo $$ >>DIRECTORY/pids; echo a; wait",
        // Deaf to SIGTERM.
        "trap '' TERM; sleep 100 & echo $! >>DIRECTORY/pids; echo $$ >>DIRECTORY/pids; echo a; while :; do wait; done",
        // Flooding both outputs.
        "echo $$ >>DIRECTORY/pids; yes >&2 & echo $! >>DIRECTORY/pids; exec yes",
      ])
    func ends(script: String) async throws {
      let fixture = try await Fixture(
        script, ["SLUICE_IDLE_TIMEOUT": "1s", "SLUICE_WRITE_TIMEOUT": "1s", "SLUICE_MAX_ANSWER": "256K"])
      let sluice = fixture.sluice
      let descriptors = sluice.descriptors
      var silent: FastCGIClient?
      defer { withExtendedLifetime(silent) {} }
      for way in ["leaves", "stops", "reads nothing", "limit"] {
        var client: FastCGIClient? = try sluice.chat("x")
        let head = client?.readResponse(until: "event: token").text ?? ""
        let stream = try #require(head.field("Sluice-Stream-Id"))
        switch way {
        case "leaves": client = nil
        case "stops":
          let stop = try FastCGIClient(path: sluice.socket)
          stop.send(FastCGIClient.request([("REQUEST_METHOD", "DELETE"), ("REQUEST_URI", "/api/streams/\(stream)")]))
          #expect(stop.readResponse().text.hasPrefix("Status: 204"))
          _ = client?.readResponse()
        case "reads nothing": silent = client
        default:
          let response = client?.readResponse(timeout: .seconds(20)).text ?? ""
          #expect(
            response.contains("upstream_timeout") || response.contains("exceeds the limit"), "\(response.suffix(300))")
        }
        client = nil
      }
      #expect(
        await eventually { sluice.program.log("stream ended").count == 4 }, "\(sluice.program.errors)")
      silent = nil
      await fixture.expectNothingLeft(8, descriptors: descriptors + 1)
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("The response is complete a second after a command has ended, though its child holds the output open")
    func heldOutput() async throws {
      let fixture = try await Fixture(
        "echo $$ >>DIRECTORY/pids; (trap '' TERM; echo late; sleep 100) & echo $! >>DIRECTORY/pids; echo early")
      let descriptors = fixture.sluice.descriptors
      let result = text(try fixture.sluice.chat("x").readResponse().text)
      #expect(
        Set(result.deltas.split(separator: "\n")) == ["early", "late"] && result.last == "done", "\(result)")
      await fixture.expectNothingLeft(2, descriptors: descriptors + 1)
    }

    @Test("A command is stopped by its full pipe while its reader reads nothing, and all of its text arrives")
    func backPressure() async throws {
      let fixture = try await Fixture("echo $$ >>DIRECTORY/pids; exec seq 1 200000", ["SLUICE_MAX_ANSWER": "4M"])
      let client = try fixture.sluice.chat("x")
      #expect(client.waitUntilReadable())
      let memory = fixture.sluice.memory
      // It sleeps only while it waits to write.
      var sleeping = 0
      #expect(
        await eventually {
          let state = fixture.pids("pids").first.flatMap {
            try? String(contentsOfFile: "/proc/\($0)/stat", encoding: .utf8).split(separator: " ").dropFirst(2).first
          }
          sleeping = state == "S" ? sleeping + 1 : 0
          return sleeping == 20
        })
      let result = text(client.readResponse().text)
      let expected = (1...200_000).map { "\($0)\n" }.joined()
      #expect(result.deltas == expected && result.last == "done", "\(result.deltas.count) of \(expected.count)")
      #expect(fixture.sluice.memory < memory + 30_000, "\(memory) to \(fixture.sluice.memory) KiB")
    }

    @Test("Commands beyond the limit wait in order, and are refused as overloaded when their first token is due")
    func queue() async throws {
      let fixture = try await Fixture(
        "echo a; while [ ! -e DIRECTORY/go ]; do sleep 0.02; done",
        ["SLUICE_COMMAND_PROCESSES": "1", "SLUICE_FIRST_TOKEN_TIMEOUT": "1s"])
      let sluice = fixture.sluice
      let first = try sluice.chat("x")
      #expect(first.readResponse(until: "event: token").text.contains("event: token"))
      let refused = try sluice.chat("x").readResponse().text
      #expect(
        refused.hasPrefix("Status: 503") && refused.contains("\"overloaded\"") && refused.contains("Retry-After:"),
        "\(refused)")
      let waiting = try (0..<3).map { _ in try sluice.chat("x") }
      #expect(
        await eventually {
          let metrics = try? FastCGIClient(path: sluice.socket)
          metrics?.send(FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/metrics")]))
          let text = metrics?.readResponse().text ?? ""
          return text.contains(#"sluice_commands{state="running"} 1"#)
            && text.contains(#"sluice_commands{state="waiting"} 3"#)
        })
      // One that leaves while it waits loses its turn.
      waiting[0].shutdownSending()
      _ = fixture.directory.file("go", "")
      for client in [first] + waiting.dropFirst() {
        #expect(client.readResponse().text.contains("event: done"))
      }
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("A shutdown waits until commands that ignore SIGTERM have been killed", arguments: ["1", "2"])
    func shutdown(loops: String) async throws {
      let fixture = try await Fixture(
        "trap '' TERM; echo $$ >>DIRECTORY/pids; echo a; while :; do sleep 100; done",
        ["SLUICE_DRAIN_TIMEOUT": "100ms", "SLUICE_LOOPS": loops])
      let clients = try (0..<2).map { _ in try fixture.sluice.chat("x") }
      #expect(await eventually { fixture.pids("pids").count == 2 })
      fixture.sluice.program.signal(SIGTERM)
      for client in clients { #expect(client.readResponse().text.contains("shutting_down")) }
      #expect(await fixture.sluice.program.exitCode() == 0)
      #expect(fixture.pids("pids").allSatisfy { kill($0, 0) != 0 })
    }

    @Test("As a CGI program, Sluice ends after its command, also when the web server ends it")
    func cgi() async throws {
      let directory = TemporaryDirectory()
      let script = directory.file(
        "model.sh", "#!/bin/sh\ntrap '' TERM; echo $$ >\(directory.path)/pids; echo a; while :; do sleep 100; done\n")
      unsafe chmod(script, 0o755)
      let program = try Program(
        releaseDirectory + "/sluice",
        environment: [
          "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "REQUEST_URI": "/chat/stream?message=x",
          "QUERY_STRING": "message=x", "SLUICE_AUTH": "none", "SLUICE_STATE": directory.path + "/state",
          "SLUICE_GENERATOR": "command", "SLUICE_COMMAND": script,
        ])
      #expect(await eventually { program.output.contains(#""content":"a"#) })
      program.signal(SIGTERM)
      // The web server gets the end of the response before that of the process.
      #expect(
        await eventually {
          (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(program.pid)/fd/1")) == "/dev/null"
        })
      #expect(await program.exitCode() == 0 && program.output.contains("shutting_down"), "\(program.output)")
      let pid = try #require(pid_t(try String(contentsOfFile: directory.path + "/pids", encoding: .utf8).dropLast()))
      #expect(kill(pid, 0) != 0)
      // The settings of a CGI program are its environment, so they are no mistakes.
      #expect(!program.errors.contains("parameter ignored"), "\(program.errors)")
    }
  }
}
