import Testing
import WebSocket

@Suite("Frames")
struct FrameReaderTests {}
