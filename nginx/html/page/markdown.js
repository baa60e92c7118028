// Markdown of a model, as elements. What it says is never HTML of its own: marked escapes it here, DOMPurify checks the
// result, and the page's Content-Security-Policy allows neither inline scripts nor other origins.

import { marked } from "../vendor/marked.js";
import DOMPurify from "../vendor/purify.js";
import { h, memo, useLayoutEffect, useRef } from "./react.js";

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escaped = (text) => text.replace(/[&<>"]/g, (character) => escapes[character]);

marked.use({
  gfm: true, breaks: true, headerIds: false, mangle: false,
  renderer: {
    html: escaped,
    checkbox: (isChecked) => (isChecked ? "☑ " : "☐ "),
    // An image would tell another server what is read here.
    image: (address, title, text) => `<a href="${escaped(address ?? "")}">${escaped(text || address || "image")}</a>`,
    // Below the headings of the page.
    heading: (text, level) => `<h${Math.min(level + 2, 6)}>${text}</h${Math.min(level + 2, 6)}>`,
  },
});

const allowed = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong", "table",
    "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "href", "title", "start"],
  // Of every attribute: these schemes, or none. DOMPurify keeps it for later calls.
  ALLOWED_URI_REGEXP: /^(?:(?:https?|mailto):|[^a-z]|[a-z+.-]+(?:[^a-z+.:-]|$))/i,
  RETURN_DOM_FRAGMENT: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (element) => {
  if (!element.hasAttribute("href")) return;
  // A relative link of a model leads nowhere, and `#token=…` would change the reader's token.
  if (!/^(?:https?|mailto):/i.test(element.getAttribute("href"))) return element.removeAttribute("href");
  element.setAttribute("target", "_blank");
  element.setAttribute("rel", "noopener noreferrer");
});

/** The length from which a block is shown as plain text: marked takes seconds for some texts. */
const maximumBlock = 10_000;

/**
 * Returns Markdown as a document fragment, in which each block of code has a button that copies it.
 *
 * @param {string} text
 */
function fragment(text) {
  if (text.length > maximumBlock) return plain(text);
  let content;
  try {
    // marked takes an open block of code for one only after a line end.
    content = DOMPurify.sanitize(marked.parse(`${text}\n`), allowed);
  } catch {
    // Nested too deeply, for example.
    return plain(text);
  }
  for (const code of content.querySelectorAll("pre")) {
    // It can be scrolled by keyboard.
    code.tabIndex = 0;
    const box = document.createElement("div"), button = document.createElement("button");
    box.className = "code";
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(code.textContent, button));
    code.replaceWith(box);
    box.append(button, code);
  }
  return content;
}

function plain(text) {
  const paragraph = document.createElement("p");
  paragraph.className = "text";
  paragraph.textContent = text;
  return paragraph;
}

/**
 * Copies a text, and says so on the button.
 *
 * @param {string} text
 * @param {HTMLButtonElement} button
 */
export async function copy(text, button) {
  const done = await navigator.clipboard?.writeText(text).then(() => "Copied", () => "Not allowed");
  button.textContent = done ?? "Not possible without HTTPS";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

/** The length from which a list begins a new block. */
const maximumList = 2000;

/**
 * Splits Markdown where a new block begins, outside of code, lists and quotes. Joined, the parts are the text.
 *
 * @param {string} text
 */
export function blocks(text) {
  const found = [];
  let start = 0, fence = "", isAfterBlank = false, isIndented = false;
  for (let at = 0; at < text.length;) {
    const end = text.indexOf("\n", at) + 1 || text.length;
    const line = text.slice(at, end);
    const marker = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1] ?? "";
    if (fence) {
      if (marker.startsWith(fence) && line.trim() === marker) fence = "";
      isAfterBlank = false;
    } else if (line.trim() === "") {
      isAfterBlank = true;
    } else {
      const isItem = /^(?:[-*+]|\d+[.)])/.test(line);
      const continues = isIndented && (isItem || /^[\s>]/.test(line));
      // A long list is split too, between its items.
      if ((isAfterBlank && !continues) || (isIndented && isItem && at - start > maximumList)) {
        found.push(text.slice(start, at));
        [start, isIndented] = [at, false];
      }
      if (/^\s{0,3}(?:[-*+>]|\d+[.)])/.test(line)) isIndented = true;
      fence = marker;
      isAfterBlank = false;
    }
    at = end;
  }
  if (start < text.length) found.push(text.slice(start));
  return found;
}

const Block = memo(function Block({ text }) {
  const place = useRef();
  useLayoutEffect(() => {
    // What has the focus is replaced by what is in its place.
    const focused = focusable(place.current).indexOf(document.activeElement);
    place.current.replaceChildren(fragment(text));
    focusable(place.current)[focused]?.focus({ preventScroll: true });
  }, [text]);
  return h("div", { ref: place, className: "block", dir: "auto" });
});

const focusable = (element) => [...element.querySelectorAll("a[href], button, [tabindex]")];

/** Shows Markdown. As text arrives, only its last block is parsed again. */
export const Markdown = memo(function Markdown({ text }) {
  // Links of the form [text][name] are defined anywhere.
  const definitions = text.match(/^ {0,3}\[[^\]\n]+\]: +\S.*$/gm)?.join("\n");
  return h("div", { className: "markdown" }, blocks(text).map((block, index) => h(Block, {
    key: index, text: definitions && block.includes("][") ? `${block}\n\n${definitions}` : block,
  })));
});
