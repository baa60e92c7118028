// Debian's React, and the hooks on it.

import "../vendor/react.js";
import "../vendor/react-dom.js";
import { createHooks, isRunning } from "../hooks.js";

export const {
  Component, createContext, createElement: h, memo, useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef,
  useState,
} = React;
export const { useAIBlockStreaming, useChat, useReport } = createHooks(React);

/** What every view uses: { token, transport, report(error) }. */
export const Page = createContext(undefined);

export { isRunning };

/** Shows what is inside of it, or says that it cannot be shown: one bad text must not take the page away. */
export class Boundary extends Component {
  state = { hasFailed: false };

  static getDerivedStateFromError() { return { hasFailed: true }; }

  render() {
    return this.state.hasFailed ? h("p", { className: "note" }, "This cannot be shown.") : this.props.children;
  }
}
