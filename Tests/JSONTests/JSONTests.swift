import JSON
import SluiceTesting
import Testing

@Suite("JSON")
struct JSONTests {
  @Test("strings hold any text and no line end", arguments: 0..<200)
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

  @Test("values are read and written alike, in their order, numbers to the last digit")
  func values() throws {
    for text in [
      #"{"z":[1,-2.5,true,false,null,"x"],"a":{},"é":[]}"#, "[]", "{}", #"{"a":{"b":{"c":[[[{}]]]}}}"#,
      "[123456789012345678901234567890,1e400,-0,0.10000000000000000000001,1E+2]", #"["\u0000","\\",""]"#,
    ] {
      #expect(String(decoding: try JSON(parsing: Array(text.utf8)).encoded, as: UTF8.self) == text)
    }
    #expect(try JSON(parsing: Array(" \n{ \"a\" : [ 1 , 2 ] }\r\n".utf8)) == ["a": [.integer(1), .integer(2)]])
  }

  @Test("half of a surrogate pair is read as U+FFFD, in names too")
  func surrogates() throws {
    #expect(try JSON(parsing: Array(#"{"a\ud800":"\udc00x\ud83c\udfa7"}"#.utf8)) == ["a\u{FFFD}": "\u{FFFD}x🎧"])
  }

  @Test(
    "that is none is refused, however nearly it is one",
    arguments: [
      "", "{", "nul", "null", "1", "\"a\"", "{\"a\" 1}", "\u{0}", "[1] x", "[1,]", "[,1]", "[1 2]", "{\"a\":1,}",
      "{a:1}",
      "{'a':1}", "[01]", "[1.]", "[.5]", "[+1]", "[1e]", "[--1]", "[0x1]", "[nan]", "[Infinity]", "[tru]", "[truee]",
      "[nul]", "[\"\\x\"]", "[\"\\u12\"]", "[\"a\nb\"]", "[\"a]", "{\"a\":}", "{\"a\"}", "{1:2}", "[1}", "{\"a\":1]",
      "[]]",
      "{}{}", "[1]// c", "[1\u{0}]", "{\"a\":1\u{0}}", "/**/[1]", "[1;2]", "{\"a\":1 \"b\":2}", "{\"a\\x\":1}",
    ])
  func junk(text: String) {
    #expect(throws: JSONError.self) { try JSON(parsing: Array(text.utf8)) }
  }

  @Test("that is not UTF-8, or nested too deep, is refused")
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

  @Test("cut anywhere, or with any byte changed, it is read or refused, and never traps")
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

  @Test("a megabyte of the smallest values is read in a moment's memory, not in the cube of its depth")
  func many() throws {
    let text = Array("[".utf8) + Array(repeatElement(Array("[0],".utf8), count: 250_000).joined()) + Array("0]".utf8)
    guard case .array(let values) = try JSON(parsing: text) else { return }
    #expect(values.count == 250_001)
  }
}
