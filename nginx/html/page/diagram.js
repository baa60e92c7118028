// A diagram: its source as text, and a picture if it is a flowchart in Mermaid, or SVG.

import DOMPurify from "../vendor/purify.js";
import "../vendor/dagre.js";
import { flowchart } from "./flowchart.js";
import { copy } from "./markdown.js";
import { h, useMemo, useState } from "./react.js";

/**
 * Returns the source of a diagram in a text: what is in its first fence, or all of it.
 *
 * @param {string} text
 */
export function source(text) {
  return (/^ *```[^\n]*\n([^]*?)(?:\n *```|$(?![^]))/m.exec(text)?.[1] ?? text).trim();
}

export function Diagram({ text, status }) {
  const code = source(text), isComplete = status === "done";
  const picture = useMemo(() => (isComplete ? draw(code) : undefined), [code, isComplete]);
  return h("div", { className: "diagram" },
    picture,
    isComplete && !picture && h("p", { className: "muted" }, "This diagram can only be shown as text."),
    h("details", { open: !picture },
      h("summary", null, "Source"),
      h("pre", { tabIndex: 0 }, code)));
}

function draw(code) {
  if (/^(?:<\?xml[^>]*>\s*)?<svg[\s>]/.test(code)) return h(Image, { code });
  try {
    const graph = flowchart(code);
    return graph && h(Flowchart, { layout: laidOut(graph), description: described(graph) });
  } catch {
    // dagre has no layout for it.
    return undefined;
  }
}

/** SVG as an image, in which a browser runs no script and loads nothing. */
function Image({ code }) {
  const [isBroken, setBroken] = useState(false);
  const safe = DOMPurify.sanitize(code, { USE_PROFILES: { svg: true } })
    .replace(/^<svg(?![^>]*\sxmlns=)/, '<svg xmlns="http://www.w3.org/2000/svg"');
  if (isBroken || safe === "") return h("p", { className: "muted" }, "This picture is not valid.");
  const src = `data:image/svg+xml,${encodeURIComponent(safe)}`;
  return h("img", { src, alt: "The diagram", onError: () => setBroken(true) });
}

// MARK: Flowcharts

const lineHeight = 20, padding = 16;

const ruler = document.createElement("canvas").getContext("2d");

/** Breaks a label into lines of at most 24 characters. */
function lines(label) {
  const found = [""];
  for (const word of label.split(/(?:<br ?\/?>|\\n|\s)+/)) {
    const line = `${found.at(-1)} ${word}`.trim();
    if (line.length > 24 && found.at(-1)) found.push(word);
    else found[found.length - 1] = line;
  }
  return found;
}

function width(line) {
  // As the style sheet has it.
  ruler.font = "14px system-ui, sans-serif";
  return Math.ceil(ruler.measureText(line).width * 1.05);
}

const size = (lines) => ({
  width: Math.max(...lines.map(width)) + 2 * padding,
  height: lines.length * lineHeight + 2 * padding - 8,
});

function Flowchart({ layout: { nodes, edges, width, height }, description }) {
  return h("div", { className: "picture", tabIndex: 0, role: "region", "aria-label": "Picture of the diagram" },
    h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": description },
      h("defs", null, h("marker", {
        id: "arrow", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse",
      }, h("path", { d: "M0 0 8 4 0 8z" }))),
      edges.map(({ points, isDotted, hasArrow, labelLines, x, y, width, height }, index) => h("g", { key: `edge${index}` },
        h("path", {
          className: `edge${isDotted ? " dotted" : ""}`, d: curve(points), markerEnd: hasArrow ? "url(#arrow)" : undefined,
        }),
        labelLines && h("rect", { className: "edge-label", x: x - width / 2, y: y - height / 2, width, height }),
        labelLines && h(Text, { lines: labelLines, x, y }))),
      nodes.map(({ id, shape, lines, x, y, width, height }) => h("g", { key: id, className: "node" },
        h(Shape, { shape, x, y, width, height }), h(Text, { lines, x, y })))));
}

function Text({ lines, x, y }) {
  const top = y - ((lines.length - 1) * lineHeight) / 2;
  return h("text", { textAnchor: "middle", dominantBaseline: "central" },
    lines.map((line, index) => h("tspan", { key: index, x, y: top + index * lineHeight }, line)));
}

function Shape({ shape, x, y, width, height }) {
  if (shape === "diamond") {
    const [a, b] = [width / 2, height / 2];
    return h("polygon", { points: `${x - a},${y} ${x},${y - b} ${x + a},${y} ${x},${y + b}` });
  }
  const radius = { round: 10, stadium: height / 2, circle: Math.min(width, height) / 2 }[shape] ?? 3;
  return h("rect", { x: x - width / 2, y: y - height / 2, width, height, rx: radius });
}

/** Returns a smooth path through points. */
function curve([first, ...rest]) {
  let path = `M${first.x} ${first.y}`;
  rest.forEach((point, index) => {
    const next = rest[index + 1];
    path += next ? `Q${point.x} ${point.y} ${(point.x + next.x) / 2} ${(point.y + next.y) / 2}` : `L${point.x} ${point.y}`;
  });
  return path;
}

/** Returns a flowchart with the places of its nodes and edges, as dagre chooses them. */
function laidOut({ direction, nodes, edges }) {
  const layout = new dagre.graphlib.Graph({ multigraph: true });
  layout.setGraph({ rankdir: direction, nodesep: 30, ranksep: 45, marginx: 8, marginy: 8 });
  for (const { id, label, shape } of nodes) {
    const found = lines(label), box = size(found);
    // Half of a diamond's area is outside of its text.
    const factor = shape === "diamond" ? 1.5 : 1;
    layout.setNode(`n:${id}`, { id, shape, lines: found, width: box.width * factor, height: box.height * factor });
  }
  edges.forEach(({ from, to, label, isDotted, hasArrow }, index) => {
    const found = label ? lines(label) : undefined;
    const box = found ? { width: size(found).width - padding, height: found.length * lineHeight } : { width: 0, height: 0 };
    layout.setEdge(`n:${from}`, `n:${to}`, { labelLines: found, isDotted, hasArrow, labelpos: "c", ...box }, String(index));
  });
  dagre.layout(layout);
  const { width, height } = layout.graph();
  for (const edge of layout.edges()) {
    // dagre ends edges at the box around a diamond; the diamond covers what is inside of it.
    const from = layout.node(edge.v);
    if (from.shape === "diamond") layout.edge(edge).points.unshift({ x: from.x, y: from.y });
  }
  return {
    nodes: layout.nodes().map((id) => layout.node(id)), edges: layout.edges().map((edge) => layout.edge(edge)), width, height,
  };
}

/** Returns a flowchart in words. */
function described({ nodes, edges }) {
  const labels = new Map(nodes.map(({ id, label }) => [id, label]));
  return `Flowchart: ${edges.map(({ from, to, label }) =>
    `${labels.get(from)} to ${labels.get(to)}${label ? ` (${label})` : ""}`).join("; ")}`;
}
