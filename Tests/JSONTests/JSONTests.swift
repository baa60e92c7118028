import JSON
import SluiceTesting
import Testing

@Suite("JSON")
struct JSONTests {
  @Test("An encoded string can contain any text, and has no raw line endings", arguments: 0..<200)
  func strings(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let scalars: [Unicode.Scalar] = ["a", "\"", "\\", "\n", "\r", "\0", "\u{1F}", "\u{7F}", "\u{2028}", "é", "🎧", "/"]
    var text = ""
    for _ in 0..<Int.random(in: 0...50, using: &random) {
      text.unicodeScalars.append(scalars.randomElement(using: &random) ?? "a")
    }
    let encoded = JSON.array([.string(text)]).encoded
    #expect(!encoded.contains(0x0A) && !encoded.contains(0x0D), "seed \(seed)")
    #expect(try JSON(parsing: encoded) == [.string(text)], "seed \(seed)")
  }

  @Test("A parsed document is encoded unchanged, including member order and every digit of a number")
  func values() throws {
    for text in [
      #"{"z":[1,-2.5,true,false,null,"x"],"a":{},"é":[]}"#, "[]", "{}", #"{"a":{"b":{"c":[[[{}]]]}}}"#,
      "[123456789012345678901234567890,1e400,-0,0.10000000000000000000001,1E+2]", #"["\u0000","\\",""]"#,
    ] {
      #expect(String(decoding: try JSON(parsing: Array(text.utf8)).encoded, as: UTF8.self) == text)
    }
    #expect(try JSON(parsing: Array(" \n{ \"a\" : [ 1 , 2 ] }\r\n".utf8)) == ["a": [.integer(1), .integer(2)]])
  }

  @Test("A lone surrogate is read as U+FFFD, in member names too")
  func surrogates() throws {
    #expect(try JSON(parsing: Array(#"{"a\ud800":"\udc00x\ud83c\udfa7"}"#.utf8)) == ["a\u{FFFD}": "\u{FFFD}x🎧"])
  }

  @Test(
    "Everything except a valid JSON object or array is rejected",
    arguments: [
      "", "{", "nul", "null", "1", "\"a\"", "{\"a\" 1}", "\u{0}", "[1] x", "[1,]", "[,1]", "[1 2]", "{\"a\":1,}",
      "{a:1}",
      "{'a':1}", "[01]", "[1.]", "[.5]", "[+1]", "[1e]", "[--1]", "[0x1]", "[nan]", "[Infinity]", "[tru]", "[truee]",
      "[nul]", "[\"\\x\"]", "[\"\\u12\"]", "[\"a\nb\"]", "[\"a]", "{\"a\":}", "{\"a\"}", "{1:2}", "[1}", "{\"a\":1]",
      "[]]",
      "{}{}", "[1]// c", "[1\u{0}]", "{\"a\":1\u{0}}", "/**/[1]", "[1;2]", "{\"a\":1 \"b\":2}", "{\"a\\x\":1}",
    ])
  func malformed(text: String) {
    #expect(throws: JSONError.self) { try JSON(parsing: Array(text.utf8)) }
  }

  @Test("JSON that is not UTF-8 or is nested too deeply is rejected")
  func limits() throws {
    #expect(throws: JSONError.self) { try JSON(parsing: [UInt8(ascii: "["), 0x22, 0xFF, 0x22, UInt8(ascii: "]")]) }
    func nested(_ depth: Int) -> [UInt8] {
      Array((String(repeating: "[", count: depth) + String(repeating: "]", count: depth)).utf8)
    }
    #expect(throws: Never.self) { try JSON(parsing: nested(JSON.maximumDepth)) }
    #expect(throws: JSONError.self) { try JSON(parsing: nested(JSON.maximumDepth + 1)) }
    #expect(throws: JSONError.self) { try JSON(parsing: nested(100_000)) }
    #expect(throws: JSONError.self) { try JSON(parsing: Array(String(repeating: "[", count: 100_000).utf8)) }
  }

  @Test("JSON that is cut anywhere or has any byte changed never traps")
  func broken() {
    let text = Array(#"{"a":[1,-2.5e3,true,null,"x\n\u00e9é"],"b":{"c":"\ud83c\udfa7"}}"#.utf8)
    for cut in 0..<text.count { #expect(throws: JSONError.self) { try JSON(parsing: Array(text[..<cut])) } }
    for index in text.indices {
      for byte in UInt8.min...UInt8.max {
        var changed = text
        changed[index] = byte
        _ = try? JSON(parsing: changed)
      }
    }
  }

  @Test("A megabyte of minimal arrays is parsed completely")
  func many() throws {
    let text = Array("[".utf8) + Array(repeatElement(Array("[0],".utf8), count: 250_000).joined()) + Array("0]".utf8)
    guard case .array(let values) = try JSON(parsing: text) else { return }
    #expect(values.count == 250_001)
  }
}
