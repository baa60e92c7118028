import EventLoop
import Foundation
import SluiceTesting
import Synchronization
import Testing

@testable import Upstream

@Suite("Command")
struct CommandTests {
  @Test(
    "A command is words, of which quotes group parts, or a JSON array of strings",
    arguments: [
      ("llama-cli -m /models/m.gguf", ["llama-cli", "-m", "/models/m.gguf"]),
      ("  a   b\t c ", ["a", "b", "c"]),
      (#"a "b c" 'd "e" f' --name="g h"i"#, ["a", "b c", #"d "e" f"#, "--name=g hi"]),
      (#"a "" ''"#, ["a", "", ""]),
      (#"a \n $HOME *"#, ["a", #"\n"#, "$HOME", "*"]),
      (#" ["a b", "c\"d", ""]"#, ["a b", #"c"d"#, ""]),
    ])
  func words(text: String, expected: [String]) throws {
    #expect(try CommandWords.parse(text) == expected)
  }

  @Test(
    "A text that is no command is refused with the reason",
    arguments: [
      ("", "must name a program"), ("  ", "must name a program"), ("\"\" a", "must name a program"),
      ("[]", "must name a program"), ("[1]", "must be a JSON array of strings"), ("[\"a\"", "JSON array"),
      ("a 'b", "has a quote (') that is not closed"), (#"["a\u0000b"]"#, "must not contain a NUL"),
    ])
  func issues(text: String, reason: String) {
    do {
      Issue.record("\(try CommandWords.parse(text))")
    } catch { #expect(error.reason.contains(reason), "\(error.reason)") }
  }

  @Test("Text is the same however it is split, and invalid bytes become replacement characters")
  func splits() {
    let texts: [[UInt8]] = [
      Array("aé€🎧z".utf8), [0x61, 0xFF, 0x62], [0xE2, 0x82, 0x61], [0xF0, 0x9F, 0x8E], [0xC0, 0x80],
      [0xED, 0xA0, 0x80],
      [0xF4, 0x90, 0x80, 0x80], [0x80, 0xBF, 0xBF, 0xBF, 0xBF], [0xE2, 0x82, 0xE2, 0x82, 0xAC],
    ]
    for bytes in texts {
      let expected = String(decoding: bytes, as: UTF8.self)
      for first in 0...bytes.count {
        for second in first...bytes.count {
          var decoder = TextDecoder()
          let pieces = [Array(bytes[..<first]), Array(bytes[first..<second]), Array(bytes[second...])]
          let text = pieces.map { piece in decoder.decode(piece.span) }.joined() + decoder.finish()
          #expect(text == expected, "\(bytes) split at \(first) and \(second)")
        }
      }
    }
  }

  @Test("A character that is complete is not delayed")
  func promptness() {
    var decoder = TextDecoder()
    let texts = [Array("a€".utf8), [0xE2, 0x82], [0xAC]].map { (bytes: [UInt8]) in decoder.decode(bytes.span) }
    #expect(texts == ["a€", "", "€"] && decoder.finish() == "")
  }

  @Test("Commands beyond the limit wait in order, and one that is withdrawn loses its turn")
  func slots() throws {
    let slots = CommandSlots()
    let started = Mutex<[Int]>([])
    let held = Mutex<[CommandSlot]>([])
    func request(_ number: Int, limit: Int) -> CommandSlots.Admission {
      slots.request(limit: limit) { slot in
        started.withLock { $0.append(number) }
        held.withLock { $0.append(slot) }
      }
    }
    if case .admitted(let slot) = request(1, limit: 1) { held.withLock { $0 = [slot] } }
    #expect(slots.running == 1)
    guard case .waiting = request(2, limit: 1), case .waiting(let third) = request(3, limit: 1),
      // One with a higher limit does not overtake the others.
      case .waiting = request(4, limit: 2)
    else { throw Unexpected() }
    slots.withdraw(third)
    #expect(started.withLock(\.self) == [])
    // Outside the lock, because releasing a slot starts the next commands.
    let first = held.withLock { exchange(&$0, with: []) }
    withExtendedLifetime(first) {}
    _ = consume first
    #expect(started.withLock(\.self) == [2, 4] && slots.running == 2)
    let rest = held.withLock { exchange(&$0, with: []) }
    _ = consume rest
    #expect(slots.running == 0)
  }

  private struct Unexpected: Error {}

  @Test("A program that has ended and been reaped gives its result; its group is killed with its owner")
  func process() async throws {
    for (script, result) in [("exit 3", ChildProcess.Result.exited(3)), ("kill -9 $$", .killed(signal: 9))] {
      let process = try ChildProcess("/bin/sh", ["sh", "-c", script], environment: [:], input: [])
      #expect(await eventually { process.result == result }, "\(String(describing: process.result))")
      process.endGroup()
    }
    #expect(throws: SystemError.self) { try ChildProcess("/nowhere", ["nowhere"], environment: [:], input: []) }
    var process: ChildProcess? = try ChildProcess(
      "/bin/sh", ["sh", "-c", "sleep 100 & sleep 100"], environment: [:], input: [])
    let pid = try #require(process?.pid)
    process = nil
    #expect(await eventually { kill(-pid, 0) != 0 })
  }
}
