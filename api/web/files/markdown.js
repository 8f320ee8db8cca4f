// Markdown as DOM nodes: headings, paragraphs, lists, quotes, code, emphasis, and links to http(s) pages. Nothing else
// means anything: HTML and pictures are shown as the text that they are.

import { el } from "/web/dom.js";

const BLOCK = /^(#{1,6} |[-*+] |\d{1,9}[.)] |>|```)/;
const INLINE = /(`+)(.+?)\1|\*\*(?=\S)(.+?)\*\*|__(?=\S)(.+?)__|\*(?=\S)(.+?)\*|\b_(?=\S)(.+?)_\b|!?\[([^\]]+)\]\(([^)\s]+)\)/;
const DEPTH_MAX = 8;

/** Return the nodes of a text in Markdown. Its first heading is one of `level`. */
export function render(text, level = 3) {
  return blocksOf(text.replaceAll("\r\n", "\n").split("\n"), level, 0);
}

function blocksOf(lines, level, depth) {
  const blocks = [];
  for (let n = 0; n < lines.length;) {
    const [block, next] = lines[n].trim() ? blockAt(lines, n, level, depth) : [null, n + 1];
    if (block) blocks.push(block);
    n = next;
  }
  return blocks;
}

/** Return the block that begins with line n, and where the next one begins. */
function blockAt(lines, n, level, depth) {
  const line = lines[n];
  if (line.startsWith("```")) return code(lines, n);
  const heading = /^(#{1,6}) +(.+?)(?: +#+)?\s*$/.exec(line);
  if (heading) return [el(`h${Math.min(heading[1].length + level - 1, 6)}`, {}, inline(heading[2])), n + 1];
  if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) return [el("hr"), n + 1];
  if (depth < DEPTH_MAX && line.startsWith(">")) return quote(lines, n, level, depth);
  if (depth < DEPTH_MAX && /^ {0,3}([-*+]|\d{1,9}[.)]) +\S/.test(line)) return list(lines, n, level, depth);
  return paragraph(lines, n);
}

function code(lines, n) {
  let end = n + 1;
  while (end < lines.length && !lines[end].startsWith("```")) end += 1;
  return [el("pre", {}, el("code", {}, lines.slice(n + 1, end).join("\n"))), end + 1];
}

function quote(lines, n, level, depth) {
  let end = n;
  while (end < lines.length && lines[end].startsWith(">")) end += 1;
  const inner = lines.slice(n, end).map((line) => line.replace(/^> ?/, ""));
  return [el("blockquote", {}, blocksOf(inner, level, depth + 1)), end];
}

function list(lines, n, level, depth) {
  const [, indent, number] = /^( {0,3})(?:(\d+)[.)]|[-*+])/.exec(lines[n]);
  const mark = new RegExp(`^${indent}${number ? "\\d{1,9}[.)]" : "[-*+]"} +(?=\\S)`);
  const items = [];
  let end = n;
  for (; end < lines.length; end += 1) {
    const begins = mark.exec(lines[end]);
    if (begins) items.push([lines[end].slice(begins[0].length)]);
    else if (/^(\t| {2,})\S/.test(lines[end])) items.at(-1).push(lines[end].replace(/^(\t| {2,4})/, ""));
    else if (lines[end].trim() || !mark.test(lines[end + 1] ?? "")) break;
  }
  const made = el(number ? "ol" : "ul", {}, items.map((item) => el("li", {}, contentOf(item, level, depth))));
  if (number && number !== "1") made.start = Number(number);
  return [made, end];
}

/** Return what is in an item: its text without a paragraph around it, and blocks below. */
function contentOf(lines, level, depth) {
  const below = lines.findIndex((line, n) => n && BLOCK.test(line));
  const own = below < 0 ? lines : lines.slice(0, below);
  return [...inline(own.join(" ")), ...(below < 0 ? [] : blocksOf(lines.slice(below), level, depth + 1))];
}

function paragraph(lines, n) {
  let end = n + 1;
  while (end < lines.length && lines[end].trim() && !BLOCK.test(lines[end])) end += 1;
  return [el("p", {}, inline(lines.slice(n, end).map((line) => line.trim()).join(" "))), end];
}

/** Return the nodes of a text that has no blocks. */
function inline(text) {
  const nodes = [];
  let rest = text;
  for (let found = INLINE.exec(rest); found; found = INLINE.exec(rest)) {
    nodes.push(rest.slice(0, found.index), marked(found));
    rest = rest.slice(found.index + found[0].length);
  }
  return [...nodes, rest].filter((node) => node !== "");
}

function marked([all, , code, strong, strong_, em, em_, label, address]) {
  if (code !== undefined) return el("code", {}, code.trim());
  if (strong ?? strong_) return el("strong", {}, inline(strong ?? strong_));
  if (em ?? em_) return el("em", {}, inline(em ?? em_));
  return link(all, label, address);
}

/** Return a link that opens beside the page, where it goes to a page of the web; else its text as it was written. */
function link(all, label, address) {
  if (all.startsWith("!") || !/^https?:\/\/[^/]/i.test(address)) return all;
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, inline(label));
}
