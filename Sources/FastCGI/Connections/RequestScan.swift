/// What the bytes at the front of a connection are, judged by their record headers alone (FastCGI specification 3.3).
///
/// libfcgi reads a request with blocking calls. A request of which every byte has arrived cannot make it block, so
/// it is read on the loop itself; for the rest there are threads.
enum RequestScan: Equatable {
  /// One whole request: BEGIN_REQUEST, PARAMS to their end, STDIN to its end.
  case whole
  /// The beginning of one.
  case incomplete
  /// Something else that the protocol allows here, such as a record of another request.
  case unusual
  /// ABORT_REQUEST (specification 5.4), which some web servers send instead of closing.
  case abort
  /// Not FastCGI.
  case junk

  private enum RecordType {
    static let beginRequest: UInt8 = 1
    static let abortRequest: UInt8 = 2
    static let params: UInt8 = 4
    static let stdin: UInt8 = 5
  }

  init(_ bytes: borrowing Span<UInt8>) {
    var offset = 0
    var requestID: UInt16 = 0
    var expected = RecordType.beginRequest
    while true {
      // The version can be judged before the rest of the header is there.
      if offset < bytes.count, bytes[offset] != 1 {
        self = .junk
        return
      }
      guard offset + 8 <= bytes.count else { break }
      let type = bytes[offset + 1]
      let id = UInt16(bytes[offset + 2]) << 8 | UInt16(bytes[offset + 3])
      let length = Int(bytes[offset + 4]) << 8 | Int(bytes[offset + 5])
      guard type >= 1, type <= 11 else {
        self = .junk
        return
      }
      // libfcgi writes its answer to GET_VALUES into a buffer that is too small for some questions. Web servers do not
      // ask, so management records, whose id is 0, are refused.
      guard id != 0 else {
        self = .junk
        return
      }
      if expected == RecordType.beginRequest { requestID = id }
      if type == RecordType.abortRequest, offset == 0 {
        self = .abort
        return
      }
      guard type == expected, id == requestID else {
        self = .unusual
        return
      }
      if type == RecordType.beginRequest {
        guard length == 8 else {
          self = .junk
          return
        }
        expected = RecordType.params
      } else if length == 0 {
        if type == RecordType.stdin {
          self = offset + 8 + Int(bytes[offset + 6]) <= bytes.count ? .whole : .incomplete
          return
        }
        expected = RecordType.stdin
      }
      offset += 8 + length + Int(bytes[offset + 6])
    }
    self = .incomplete
  }

}
