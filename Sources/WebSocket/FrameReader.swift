import Bytes
import CLazyLibraries
import CWslay

/// Reads the frames of one client with libwslay: joins fragments, removes masks, validates UTF-8, and responds to control
/// frames and violations of the protocol. Not thread-safe.
@safe
package final class FrameReader {
  /// A message or a control frame of a client.
  package enum Event: Equatable, Sendable {
    /// A text message, in valid UTF-8.
    case text([UInt8])
    /// A binary message.
    case binary
    case pong
    /// The client closes the connection.
    case close
    /// The client has violated the protocol or a limit.
    case violation
  }

  private var context: wslay_event_context_ptr?
  private var input = unsafe UnsafeBufferPointer<UInt8>(start: nil, count: 0)
  private var events: [Event] = []
  private var replies: [UInt8] = []
  /// A violation that libwslay accepts: a close frame with a single byte, although a code has two, or with a reason that
  /// is not UTF-8 and arrived in a part of its own; too many fragments.
  private var violation: CloseCode?
  /// The number of fragments of the current message. libwslay stores each one separately.
  private var fragments = 0

  private static let maximumFragments = 4096

  /// Whether the connection must be closed: after ``Event/close`` or ``Event/violation``. No more input is read.
  package private(set) var isFinished = false

  /// Creates a reader.
  ///
  /// - Parameter maximumMessageBytes: the maximum size of a message; a longer one is a violation (1009).
  /// - Returns: nil if libwslay cannot be loaded, or if there is no memory.
  package init?(maximumMessageBytes: Int) {
    guard unsafe clazy_load_wslay() == nil else { return nil }
    var callbacks = wslay_event_callbacks()
    unsafe callbacks.recv_callback = receiveCallback
    unsafe callbacks.send_callback = sendCallback
    unsafe callbacks.on_frame_recv_start_callback = frameCallback
    unsafe callbacks.on_msg_recv_callback = messageCallback
    let owner = unsafe Unmanaged.passUnretained(self).toOpaque()
    guard unsafe wslay_event_context_server_init(&context, &callbacks, owner) == 0 else { return nil }
    unsafe wslay_event_config_set_max_recv_msg_length(context, UInt64(maximumMessageBytes))
  }

  deinit { unsafe wslay_event_context_free(context) }

  /// Reads bytes that the client has sent.
  ///
  /// - Parameter output: the bytes to send; responses to control frames and violations are appended.
  package func read(_ bytes: borrowing Span<UInt8>, output: inout [UInt8]) -> [Event] {
    guard !isFinished else { return [] }
    // Safe: libwslay reads the buffer only within this call.
    let result = unsafe bytes.withUnsafeBufferPointer { buffer in
      unsafe input = buffer
      defer { unsafe input = UnsafeBufferPointer(start: nil, count: 0) }
      return unsafe wslay_event_recv(context)
    }
    let violation = self.violation ?? (result == 0 ? nil : .protocolError)
    if violation == nil { unsafe wslay_event_send(context) }
    if let violation {
      isFinished = true
      events.removeAll { $0 == .close }
      events.append(.violation)
      Frame.appendClose(violation, to: &replies)
    } else if unsafe wslay_event_get_read_enabled(context) == 0 {
      isFinished = true
      if !events.contains(.close) { events.append(.violation) }
    }
    output += replies
    replies = []
    return exchange(&events, with: [])
  }

  // MARK: Callbacks

  fileprivate func receive(_ buffer: UnsafeMutablePointer<UInt8>?, _ count: Int) -> Int {
    let count = violation == nil ? unsafe min(count, input.count) : 0
    guard count > 0, let source = unsafe input.baseAddress, let buffer = unsafe buffer else {
      unsafe wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK.rawValue)
      return -1
    }
    unsafe buffer.update(from: source, count: count)
    unsafe input = UnsafeBufferPointer(rebasing: input[count...])
    return count
  }

  fileprivate func send(_ bytes: UnsafeBufferPointer<UInt8>) { unsafe replies.append(contentsOf: bytes) }

  fileprivate func didStart(_ opcode: UInt8) {
    switch UInt32(opcode) {
    case WSLAY_CONTINUATION_FRAME.rawValue:
      fragments += 1
      if fragments > Self.maximumFragments { violation = .tooLarge }
    case WSLAY_TEXT_FRAME.rawValue, WSLAY_BINARY_FRAME.rawValue: fragments = 0
    default: break
    }
  }

  fileprivate func didReceive(_ opcode: UInt8, _ message: UnsafeBufferPointer<UInt8>) {
    // libwslay still handles what it has buffered.
    guard violation == nil else { return }
    switch UInt32(opcode) {
    case WSLAY_TEXT_FRAME.rawValue: unsafe events.append(.text(Array(message)))
    case WSLAY_BINARY_FRAME.rawValue: events.append(.binary)
    case WSLAY_PONG.rawValue: events.append(.pong)
    case WSLAY_CONNECTION_CLOSE.rawValue:
      if message.count == 1 { violation = .protocolError }
      if unsafe String(validating: message.dropFirst(2), as: UTF8.self) == nil { violation = .invalidPayload }
      events.append(.close)
    default: break
    }
  }
}

@unsafe private func reader(_ owner: UnsafeMutableRawPointer?) -> FrameReader? {
  unsafe owner.map { unsafe Unmanaged<FrameReader>.fromOpaque($0).takeUnretainedValue() }
}

@unsafe private func receiveCallback(
  _ context: wslay_event_context_ptr?, _ buffer: UnsafeMutablePointer<UInt8>?, _ count: Int, _ flags: CInt,
  _ owner: UnsafeMutableRawPointer?
) -> Int {
  unsafe reader(owner)?.receive(buffer, count) ?? -1
}

@unsafe private func sendCallback(
  _ context: wslay_event_context_ptr?, _ bytes: UnsafePointer<UInt8>?, _ count: Int, _ flags: CInt,
  _ owner: UnsafeMutableRawPointer?
) -> Int {
  unsafe reader(owner)?.send(UnsafeBufferPointer(start: bytes, count: count))
  return count
}

@unsafe private func frameCallback(
  _ context: wslay_event_context_ptr?, _ frame: UnsafePointer<wslay_event_on_frame_recv_start_arg>?,
  _ owner: UnsafeMutableRawPointer?
) {
  if let frame = unsafe frame { unsafe reader(owner)?.didStart(frame.pointee.opcode) }
}

@unsafe private func messageCallback(
  _ context: wslay_event_context_ptr?, _ message: UnsafePointer<wslay_event_on_msg_recv_arg>?,
  _ owner: UnsafeMutableRawPointer?
) {
  guard let message = unsafe message else { return }
  unsafe reader(owner)?.didReceive(
    message.pointee.opcode, UnsafeBufferPointer(start: message.pointee.msg, count: message.pointee.msg_length))
}
