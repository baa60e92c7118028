/// The records of one request on their way from the web server (FastCGI specification 3.3 and 5): a value that is fed
/// bytes in pieces of any size and keeps what PARAMS and STDIN contain.
///
/// It accepts what a web server sends to a responder and nothing else: BEGIN_REQUEST, PARAMS up to an empty record,
/// STDIN up to an empty record, all of one request id. Padding is dropped. Management records are refused: libfcgi
/// writes its answer to GET_VALUES into a buffer that is too small for some questions.
struct RequestRecords {
  enum Status: Equatable {
    case incomplete
    /// All records have come, their padding included.
    case complete
    /// STDIN is longer than allowed; the rest of it has not been read.
    case bodyTooLarge
    /// PARAMS are longer, or more, than allowed.
    case parametersTooLarge
    /// ABORT_REQUEST (specification 5.4), which some web servers send instead of closing.
    case aborted
    /// Anything else that is no request.
    case malformed
  }

  private enum Stage {
    case begin, parameters, body
  }

  private enum RecordType {
    static let beginRequest: UInt8 = 1
    static let abortRequest: UInt8 = 2
    static let params: UInt8 = 4
    static let stdin: UInt8 = 5
  }

  private(set) var status = Status.incomplete
  /// The name-value pairs of PARAMS (specification 3.4), joined.
  private(set) var parameters: [UInt8] = []
  /// The content of STDIN, joined.
  private(set) var body: [UInt8] = []

  private let maximumParameterBytes: Int
  private let maximumBodyBytes: Int
  private var stage = Stage.begin
  /// The header of BEGIN_REQUEST and its body: what libfcgi is given again.
  private var begin: [UInt8] = []
  /// The part of the present record's header that has come.
  private var header: [UInt8] = []
  private var contentLeft = 0
  private var paddingLeft = 0
  /// Whether the present record ends its stream.
  private var isLastOfStage = false

  private static let headerBytes = 8

  init(maximumParameterBytes: Int = 256 * 1024, maximumBodyBytes: Int) {
    self.maximumParameterBytes = maximumParameterBytes
    self.maximumBodyBytes = maximumBodyBytes
  }

  /// Whether `bytes` begin with ABORT_REQUEST.
  static func isAbort(_ bytes: borrowing Span<UInt8>) -> Bool {
    bytes.count >= 2 && bytes[0] == 1 && bytes[1] == RecordType.abortRequest
  }

  /// Takes in `bytes` as far as they belong to the request.
  ///
  /// - Returns: the number of bytes taken. The rest, if any, follows the request.
  mutating func feed(_ bytes: borrowing Span<UInt8>) -> Int {
    var offset = 0
    while status == .incomplete {
      if contentLeft > 0 {
        let count = min(contentLeft, bytes.count - offset)
        if count == 0 { break }
        takeContent(bytes.extracting(offset..<(offset + count)))
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
        // The version can be judged before the rest is there.
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
    // A management record has the id 0.
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
    }
    contentLeft = length
    paddingLeft = Int(header[6])
    header.removeAll(keepingCapacity: true)
  }

  private var expectedType: UInt8 {
    switch stage {
    case .begin: RecordType.beginRequest
    case .parameters: RecordType.params
    case .body: RecordType.stdin
    }
  }

  private mutating func takeContent(_ bytes: borrowing Span<UInt8>) {
    switch stage {
    case .begin: begin.append(bytes)
    case .parameters: parameters.append(bytes)
    case .body: body.append(bytes)
    }
  }

  /// False when the role is not that of a responder (specification 5.1), which is all that there is here.
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
    if stage == .body {
      status = .complete
    } else {
      switch pairCount(parameters.span) {
      case nil: status = .malformed
      case let count? where count > Self.maximumParameters: status = .parametersTooLarge
      default: stage = .body
      }
    }
  }

  /// Web servers send some dozens. Each costs libfcgi an allocation, and every look-up a comparison.
  private static let maximumParameters = 1000

  /// How many name-value pairs `bytes` are; nil when they are none: libfcgi allocates what their lengths announce, however
  /// much that is.
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

  /// The request without its body, as libfcgi is given it: BEGIN_REQUEST and PARAMS, none of them padded.
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
    // Safe: the buffer is only read, within the closure.
    unsafe bytes.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
  }
}
