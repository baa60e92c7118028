import Bytes
import FastCGI
import Upstream

/// A wire format of streams. Each stream has its own value, which encodes the stream's events as records.
///
///     struct LinesDialect: Dialect {
///       static let name = "lines"
///       private static let line = RecordTemplate(#"{"line":"#, "}")
///
///       init(_ stream: StreamMetadata) {}
///
///       mutating func encode(_ event: StreamEvent, into records: inout Records) {
///         switch event {
///         case .started: break
///         case .delta(let text): records.append(Self.line, text)
///         case .part: break  // reasoning, tool calls, a refusal, a source
///         case .heartbeat: records.appendHeartbeat()
///         case .completed: records.append(event: "end", ["ok": true])
///         case .failed(let failure): records.append(event: "error", failure.json)
///         case .cancelled(let reason): records.append(event: "cancelled", ["reason": .string(reason)])
///         }
///       }
///     }
///
/// Exactly one of `completed`, `failed` and `cancelled` is the last event. Encode each so that a client can distinguish
/// them. A stream that ends without such a record has failed.
public protocol Dialect: Sendable {
  /// The dialect's name in `?dialect=`; must match `[a-z0-9-]+`.
  static var name: String { get }

  /// Whether a record can carry an event id, which makes some clients of a format fail. The default is true.
  static var allowsEventID: Bool { get }

  /// Creates the encoder of one stream. Called before the first event, on the stream's event loop.
  init(_ stream: StreamMetadata)

  /// Sets header fields in addition to those of every stream. The default implementation sets none.
  func addFields(to head: inout ResponseHead)

  /// Appends the records of `event` to `records`: none, one or several. Called on the stream's event loop for every
  /// delta, so it must not block.
  mutating func encode(_ event: StreamEvent, into records: inout Records)

  /// Appends the records of a delta that is given as UTF-8. Called on the stream's event loop for every delta, instead
  /// of ``encode(_:into:)`` with a `delta` event.
  ///
  /// The default implementation creates a string and passes it to ``encode(_:into:)``. A dialect that implements this
  /// method with ``Records/append(_:utf8:)`` spares that cost.
  ///
  /// - Parameters:
  ///   - delta: the text, never empty. Valid only during the call.
  ///   - records: the records of the stream that have not been sent.
  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records)
}

/// A dialect that passes on a delta as the model server sent it, instead of what this means.
protocol ChunkDialect: Dialect {
  func encode(chunk: OutputChunk, into records: inout Records)
}

extension Dialect {
  /// Appends the records of a delta that is more than text.
  mutating func encode(_ chunk: OutputChunk, into records: inout Records) {
    if let dialect = self as? any ChunkDialect { return dialect.encode(chunk: chunk, into: &records) }
    let parts = chunk.parts
    // A model reasons before it answers.
    for case .reasoning(let text) in parts { encode(.part(.reasoning(text)), into: &records) }
    let text = chunk.text
    if !text.isEmpty { encode(delta: text.utf8Span.span, into: &records) }
    for part in parts {
      if case .reasoning = part { continue }
      encode(.part(part), into: &records)
    }
  }

  public mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    encode(.delta(String(decodingUTF8: delta)), into: &records)
  }

  public static var allowsEventID: Bool { true }
  public func addFields(to head: inout ResponseHead) {}
}
