// Flowcharts in Mermaid's notation: `flowchart TD`, nodes, edges with labels. Styles and subgraphs are left out.

const directions = { TD: "TB", TB: "TB", BT: "BT", LR: "LR", RL: "RL" };

/** How each opening bracket is closed, and the shape that it means; the longest first. */
const shapes = [
  ["([", "])", "stadium"], ["[[", "]]", "box"], ["[(", ")]", "round"], ["((", "))", "circle"], ["{{", "}}", "diamond"],
  ["[/", "/]", "box"], ["[\\", "\\]", "box"], ["[", "]", "box"], ["(", ")", "round"], ["{", "}", "diamond"], [">", "]", "box"],
];

const edgeBefore = /^\s*<?(--|==|-\.)(?![-=.>|]|[ox]\s)\s*("[^"]*"|[^-=.|]+?)\s*(?:-->|---|==>|===|\.->|\.-)\s*/;
const edgePlain = /^\s*<?(-{2,}|={2,}|-\.+-)([>ox])?\s*(?:\|\s*("[^"]*"|[^|]*?)\s*\|)?\s*/;

const maximumNodes = 100, maximumEdges = 300, maximumLine = 500;

/** Stands for the `;` of an entity, such as `#quot;`, while the text is split at others. */
const entityEnd = "\u{E000}";

/**
 * Returns the graph of a flowchart; undefined if the text is none, or has a line that is not understood.
 *
 * @param {string} text
 */
export function flowchart(text) {
  const [head, ...rest] = text.replace(/%%.*/g, "").trim().replace(/(#\w+);/g, `$1${entityEnd}`).split(/[\n;]/);
  const direction = directions[/^\s*(?:flowchart|graph)\s+(\w\w)\s*$/.exec(head)?.[1]];
  if (!direction) return undefined;
  const nodes = new Map(), edges = [];
  for (const line of rest) {
    if (/^\s*(?:(?:subgraph|end|direction|classDef|class|style|linkStyle|click)\b.*)?$/.test(line)) continue;
    if (line.length > maximumLine || !readStatement(line, nodes, edges)) return undefined;
    if (nodes.size > maximumNodes || edges.length > maximumEdges) return undefined;
  }
  return nodes.size > 0 ? { direction, nodes: [...nodes.values()], edges } : undefined;
}

/** Reads nodes that edges join, such as `A --> B & C -->|text| D`. Returns whether it understands all of it. */
function readStatement(line, nodes, edges) {
  let rest = line, from = [];
  for (let edge; ;) {
    const to = [];
    do {
      rest = rest.replace(/^\s*&\s*/, "");
      const node = readNode(rest);
      if (!node) return false;
      rest = rest.slice(node.length);
      if (!nodes.has(node.id) || node.label !== undefined) {
        nodes.set(node.id, { id: node.id, label: node.label ?? node.id, shape: node.shape ?? "box" });
      }
      to.push(node.id);
    } while (/^\s*&/.test(rest));
    for (const source of from) for (const target of to) edges.push({ from: source, to: target, ...edge });
    if (rest.trim() === "") return true;
    const before = edgeBefore.exec(rest), found = before ?? edgePlain.exec(rest);
    if (!found) return false;
    edge = {
      label: unquoted(before ? found[2] : found[3]), isDotted: found[1].includes("."),
      hasArrow: before ? />\s*$/.test(found[0]) : found[2] !== undefined,
    };
    rest = rest.slice(found[0].length);
    from = to;
  }
}

function readNode(text) {
  const id = /^\s*([\p{L}\p{N}_]+(?:-[\p{L}\p{N}_]+)*)/u.exec(text);
  if (!id) return undefined;
  const rest = text.slice(id[0].length);
  const shape = shapes.find(([open]) => rest.startsWith(open));
  if (!shape) return { id: id[1], length: id[0].length + (/^:::\w+/.exec(rest)?.[0].length ?? 0) };
  const [open, close, name] = shape;
  const isQuoted = rest[open.length] === '"';
  const end = rest.indexOf(isQuoted ? `"${close}` : close, open.length + (isQuoted ? 1 : 0));
  if (end < 0) return undefined;
  const after = end + close.length + (isQuoted ? 1 : 0);
  const length = id[0].length + after + (/^:::\w+/.exec(rest.slice(after))?.[0].length ?? 0);
  return { id: id[1], label: unquoted(rest.slice(open.length, end + (isQuoted ? 1 : 0))), shape: name, length };
}

/** Returns a label without its quotes and entities. */
const unquoted = (text) => text?.trim().replace(/^"([^]*)"$/, "$1").replaceAll(`#quot${entityEnd}`, '"')
  .replace(/#(\d+)\u{E000}/gu, (_, code) => String.fromCodePoint(Math.min(Number(code), 0x10FFFF)));
