/// An incremental parser for the records of one request (FastCGI specification 3.3 and 5). It is a value that accepts
/// input of any size and buffers the contents of PARAMS and STDIN.
///
/// It accepts only the records that a web server sends to a responder: BEGIN_REQUEST, PARAMS up to an empty record,
/// STDIN up to an empty record, all with the same request id. Padding is discarded. GET_VALUES is accepted before a
/// request, and never reaches libfcgi, which would overflow the buffer of its response.
struct RequestRecords {
  enum Status: Equatable {
    case incomplete
    /// All records have been received, including their padding.
    case complete
    /// STDIN is longer than allowed; the rest of it has not been read.
    case bodyTooLarge
    /// PARAMS exceed the limit on their size or their number.
    case parametersTooLarge
    /// ABORT_REQUEST (specification 5.4) was received; some web servers send it instead of closing.
    case aborted
    /// GET_VALUES (specification 4.1) was received instead of a request; ``valuesResult`` is the response.
    case valuesRequested
    /// The input is not a valid request.
    case malformed
  }

  private enum Stage {
    case begin, parameters, body
    /// The content of GET_VALUES.
    case values
  }

  private enum RecordType {
    static let beginRequest: UInt8 = 1
    static let abortRequest: UInt8 = 2
    static let params: UInt8 = 4
    static let stdin: UInt8 = 5
    static let getValues: UInt8 = 9
    static let getValuesResult: UInt8 = 10
  }

  private(set) var status = Status.incomplete
  /// The concatenated name-value pairs of PARAMS or GET_VALUES (specification 3.4).
  private(set) var parameters: [UInt8] = []
  /// The concatenated content of STDIN.
  private(set) var body: [UInt8] = []

  private let maximumParameterBytes: Int
  private let maximumBodyBytes: Int
  private var stage = Stage.begin
  /// The header and the body of BEGIN_REQUEST, which are passed on to libfcgi.
  private var begin: [UInt8] = []
  /// The bytes of the current record's header that have been received.
  private var header: [UInt8] = []
  private var contentLeft = 0
  private var paddingLeft = 0
  /// Whether the current record ends its stream.
  private var isLastOfStage = false

  private static let headerBytes = 8

  init(maximumParameterBytes: Int = 256 * 1024, maximumBodyBytes: Int) {
    self.maximumParameterBytes = maximumParameterBytes
    self.maximumBodyBytes = maximumBodyBytes
  }

  /// Returns the records of a request.
  static func encoded(_ request: Request, id: UInt16, keepsConnection: Bool) -> [UInt8] {
    var pairs: [UInt8] = []
    for (name, value) in request.parameters {
      for count in [name.utf8.count, value.utf8.count] {
        // Lengths from 128 on have four bytes, with the highest bit set (specification 3.4).
        if count < 0x80 {
          pairs.append(UInt8(count))
        } else {
          pairs += [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: UInt32(count) >> $0) | ($0 == 24 ? 0x80 : 0) }
        }
      }
      pairs += Array(name.utf8) + Array(value.utf8)
    }
    var bytes = record(RecordType.beginRequest, id, [0, 1, keepsConnection ? 1 : 0, 0, 0, 0, 0, 0])
    for (type, content) in [(RecordType.params, pairs), (RecordType.stdin, request.body)] {
      for start in stride(from: 0, to: content.count, by: 0x8000) {
        bytes += record(type, id, content[start..<min(start + 0x8000, content.count)])
      }
      // The end of the stream (specification 3.3).
      bytes += record(type, id, [])
    }
    return bytes
  }

  private static func record(_ type: UInt8, _ id: UInt16, _ content: ArraySlice<UInt8>) -> [UInt8] {
    let length = content.count
    return [1, type, UInt8(id >> 8), UInt8(id & 0xFF), UInt8(length >> 8), UInt8(length & 0xFF), 0, 0] + content
  }

  /// Returns whether `bytes` begin with ABORT_REQUEST.
  static func isAbort(_ bytes: borrowing Span<UInt8>) -> Bool {
    bytes.count >= 2 && bytes[0] == 1 && bytes[1] == RecordType.abortRequest
  }

  /// Consumes `bytes` up to the end of the request.
  ///
  /// - Returns: the number of bytes consumed. Any remaining bytes follow the request.
  mutating func feed(_ bytes: borrowing Span<UInt8>) -> Int {
    var offset = 0
    while status == .incomplete {
      if contentLeft > 0 {
        let count = min(contentLeft, bytes.count - offset)
        if count == 0 { break }
        appendContent(bytes.extracting(offset..<(offset + count)))
        contentLeft -= count
        offset += count
        if contentLeft == 0, stage == .begin, !readBegin() { break }
      } else if paddingLeft > 0 {
        let count = min(paddingLeft, bytes.count - offset)
        if count == 0 { break }
        paddingLeft -= count
        offset += count
      } else if isLastOfStage {
        endStage()
      } else {
        let count = min(Self.headerBytes - header.count, bytes.count - offset)
        if count == 0 { break }
        header.append(bytes.extracting(offset..<(offset + count)))
        offset += count
        // The version can be checked before the rest of the header has been received.
        if header[0] != 1 {
          status = .malformed
        } else if header.count == Self.headerBytes {
          readHeader()
        }
      }
    }
    return offset
  }

  private mutating func readHeader() {
    let (type, length) = (header[1], Int(header[4]) << 8 | Int(header[5]))
    let isOfThisRequest = begin.isEmpty || (header[2] == begin[2] && header[3] == begin[3])
    if type == RecordType.abortRequest, isOfThisRequest {
      status = .aborted
      return
    }
    if begin.isEmpty, type == RecordType.getValues, header[2] | header[3] == 0, length <= Self.maximumValuesBytes {
      stage = .values
      isLastOfStage = true
      return readContent(length)
    }
    // A management record has the request id 0.
    guard header[2] | header[3] != 0, isOfThisRequest, type == expectedType else {
      status = .malformed
      return
    }
    switch stage {
    case .begin:
      guard length == 8 else {
        status = .malformed
        return
      }
      begin = header
    case .parameters:
      isLastOfStage = length == 0
      if parameters.count + length > maximumParameterBytes { status = .parametersTooLarge }
    case .body:
      isLastOfStage = length == 0
      if body.count + length > maximumBodyBytes { status = .bodyTooLarge }
    case .values: break
    }
    readContent(length)
  }

  /// Starts to read the content of the record with ``header``.
  private mutating func readContent(_ length: Int) {
    contentLeft = length
    paddingLeft = Int(header[6])
    header.removeAll(keepingCapacity: true)
  }

  private var expectedType: UInt8 {
    switch stage {
    case .begin: RecordType.beginRequest
    case .parameters: RecordType.params
    case .body: RecordType.stdin
    case .values: RecordType.getValues
    }
  }

  private mutating func appendContent(_ bytes: borrowing Span<UInt8>) {
    switch stage {
    case .begin: begin.append(bytes)
    case .parameters, .values: parameters.append(bytes)
    case .body: body.append(bytes)
    }
  }

  /// Returns false unless the role is responder (specification 5.1), the only one supported.
  private mutating func readBegin() -> Bool {
    guard begin[Self.headerBytes] == 0, begin[Self.headerBytes + 1] == 1 else {
      status = .malformed
      return false
    }
    stage = .parameters
    return true
  }

  private mutating func endStage() {
    isLastOfStage = false
    switch stage {
    case .body: status = .complete
    case .values: status = .valuesRequested
    case .begin, .parameters:
      switch pairCount(parameters.span) {
      case nil: status = .malformed
      case let count? where count > Self.maximumParameters: status = .parametersTooLarge
      default: stage = .body
      }
    }
  }

  /// More than the names of the specification take.
  private static let maximumValuesBytes = 1024

  /// The record that answers GET_VALUES: a connection carries one request at a time (FCGI_MPXS_CONNS).
  var valuesResult: [UInt8] {
    let name = Array("FCGI_MPXS_CONNS".utf8)
    let isAsked = parameters.firstRange(of: name) != nil
    let pair = [UInt8(name.count), 1] + name + [UInt8(ascii: "0")]
    return Self.record(RecordType.getValuesResult, 0, isAsked ? pair[...] : [])
  }

  /// The maximum number of parameters. Web servers send a few dozen; each one costs libfcgi an allocation and every
  /// lookup a comparison.
  private static let maximumParameters = 1000

  /// Returns the number of name-value pairs in `bytes`, or nil if they are malformed. The check is necessary because
  /// libfcgi allocates the announced lengths without a limit.
  private func pairCount(_ bytes: borrowing Span<UInt8>) -> Int? {
    var offset = 0
    var count = 0
    while offset < bytes.count {
      count += 1
      var total = 0
      for _ in 0..<2 {
        guard offset < bytes.count else { return nil }
        var length = Int(bytes[offset])
        offset += 1
        if length & 0x80 != 0 {
          guard offset + 3 <= bytes.count else { return nil }
          length = (length & 0x7F) << 24 | Int(bytes[offset]) << 16 | Int(bytes[offset + 1]) << 8
          length |= Int(bytes[offset + 2])
          offset += 3
        }
        total += length
      }
      offset += total
    }
    return offset == bytes.count ? count : nil
  }

  /// The request without its body, in the form passed to libfcgi: BEGIN_REQUEST and PARAMS, without padding.
  var head: [UInt8] {
    var bytes = begin
    bytes[6] = 0
    bytes.reserveCapacity(begin.count + parameters.count + 3 * Self.headerBytes)
    for start in stride(from: 0, to: parameters.count, by: 0xFFFF) {
      let part = parameters[start..<min(parameters.count, start + 0xFFFF)]
      bytes += paramsHeader(length: part.count)
      bytes += part
    }
    return bytes + paramsHeader(length: 0)
  }

  private func paramsHeader(length: Int) -> [UInt8] {
    [1, RecordType.params, begin[2], begin[3], UInt8(length >> 8), UInt8(length & 0xFF), 0, 0]
  }
}

extension [UInt8] {
  fileprivate mutating func append(_ bytes: borrowing Span<UInt8>) {
    // Safe: the buffer is only read, and only within the closure.
    unsafe bytes.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
  }
}
