import EventLoop

/// Decodes the body of an exchange for its delegate, as fast as the delegate takes it. Confined to its loop.
///
/// A turn of the loop decodes a limited part, so that a small body that becomes a large one does not keep the loop from
/// its other work.
final class BodyDecoder: HTTPExchangeDelegate {
  private let inflater: Inflater
  /// The exchange, until it has ended.
  private var exchange: (any HTTPExchange)?
  private var delegate: (any HTTPExchangeDelegate)?
  private let reactor: Reactor
  /// The part of the body that has not been decoded.
  private var encoded: [UInt8] = []
  private var decodedBytes = 0
  /// Whether there can be more without further input.
  private var hasMore = false
  private var isPausedByDelegate = false
  private var isExchangePaused = false
  private var isDecoding = false
  private var nextTurn: Timer?
  /// Whether the exchange has ended, and how.
  private var completion: (hasEnded: Bool, failure: String?) = (false, nil)

  private static let maximumPartsInTurn = 16

  init(
    _ inflater: Inflater, of exchange: (any HTTPExchange)?, for delegate: (any HTTPExchangeDelegate)?,
    on reactor: Reactor
  ) {
    self.inflater = inflater
    self.exchange = exchange
    self.delegate = delegate
    self.reactor = reactor
  }

  func resume() {
    isPausedByDelegate = false
    decode()
  }

  func cancel() {
    delegate = nil
    exchange = nil
    nextTurn?.cancel()
  }

  func didReceiveHead(_ head: HTTPResponseHead) -> Bool { delegate?.didReceiveHead(head) ?? false }

  func didReceiveBody(_ body: borrowing Span<UInt8>) -> Bool {
    encoded.append(body)
    decode()
    // What waits is small, but it can become large: a connection of its own waits with it.
    isExchangePaused = !encoded.isEmpty && exchange?.isMultiplexed == false
    return !isExchangePaused
  }

  func didComplete(_ failure: String?) {
    completion = (true, failure)
    exchange = nil
    decode()
  }

  /// Decodes what is possible now.
  private func decode() {
    guard !isDecoding else { return }
    isDecoding = true
    let isDrained = decodeParts()
    isDecoding = false
    guard isDrained else { return }
    (encoded, decodedBytes) = ([], 0)
    if completion.hasEnded {
      delegate.take()?.didComplete(completion.failure)
    } else if isExchangePaused {
      isExchangePaused = false
      // Can deliver more during the call.
      exchange?.resume()
    }
  }

  /// Decodes as many parts as one turn of the loop allows. Returns whether the delegate has received all of them.
  private func decodeParts() -> Bool {
    nextTurn?.cancel()
    var parts = 0
    while delegate != nil, !isPausedByDelegate, hasMore || decodedBytes < encoded.count {
      guard parts < Self.maximumPartsInTurn else {
        // Retains this object, because the exchange may have ended.
        nextTurn = reactor.schedule(after: .zero) { self.decode() }
        return false
      }
      parts += 1
      do throws(Inflater.Malformed) {
        let result = try inflater.decode(encoded.span.extracting(decodedBytes...)) { part in
          if delegate?.didReceiveBody(part) == false { isPausedByDelegate = true }
        }
        decodedBytes += result.used
        hasMore = result.hasMore
      } catch {
        fail()
        return false
      }
    }
    return !isPausedByDelegate
  }

  private func fail() {
    encoded = []
    delegate.take()?.didComplete("The body is not valid gzip.")
    // Deferred, because the exchange may be on the call stack.
    _ = reactor.schedule(after: .zero) { self.exchange.take()?.cancel() }
  }
}
