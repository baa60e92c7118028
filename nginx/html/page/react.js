// Debian's React, and the hooks on it.

import "../vendor/react.js";
import "../vendor/react-dom.js";
import { createHooks } from "../hooks.js";

export const {
  createContext, createElement: h, memo, useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
} = React;
export const { useAIBlockStreaming, useChat, useReport } = createHooks(React);

/** What every view uses: { token, report(error), announce(text) }. */
export const Page = createContext(undefined);
