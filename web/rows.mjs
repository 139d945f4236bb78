// The card of the stack loader: a row for each file, and one that is empty. The widgets hold the values, and show where a
// link leads to one.
import { after } from "./comfy.mjs";
import { el, toggle } from "./dom.mjs";
import { addFailure } from "./failure.mjs";
import { onRefresh } from "./file_card.mjs";
import { followRuns } from "./last_output.mjs";
import { NONE, addCard } from "./node.mjs";
import { Row, menuBelow } from "./row.mjs";
import { arrange, free, listenForMoves, move } from "./row_moves.mjs";
import { fitRows } from "./size.mjs";
import { record, setValue, widgetOf } from "./widgets.mjs";
import { t } from "./words.mjs";

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {string[]} adapters names of the widgets that choose the files, one a row
 */
export function addRows(node, adapters) {
  const content = addCard(node);
  /** @type {Set<Row>} whose widgets are shown, to draw links to */
  const bare = new Set();
  const menu = (/** @type {string} */ name) => () => openMenu(node, row(name), rows, bare, update);
  const rows = adapters.map((name) => new Row(node, name, menu(name), () => update()));
  const row = (/** @type {string} */ name) => rows[adapters.indexOf(name)];
  const all = toggle(t("all_rows"), (state) => {
    for (const { used, names } of rows) if (used) setValue(node, names[2], state);
    record();
  });
  const head = el("div", "lyco-row-line lyco-all-rows", all, el("span", "", t("all_rows")));
  content.append(head, ...rows.map(({ root }) => root));

  let parts = 0; // how many there are, one below the other

  function update() {
    const before = node.computeSize()[1];
    const more = parts;
    const empty = rows.find(({ used }) => !used);
    const used = rows.filter((row) => row.used);
    for (const row of rows) {
      row.root.hidden = !row.used && row !== empty;
      for (const name of row.names) hide(node, name, !row.links.has(name) && !bare.has(row));
      row.update();
    }
    head.hidden = used.length < 2;
    all.show(used.some(({ values }) => values[2] !== false), false);
    parts = content.querySelectorAll(".lyco-row:not([hidden]), .lyco-row-card:not([hidden])").length;
    fitRows(node, parts < more ? before + 1 : before); // the card's own height comes later
  }

  /** @param {boolean} [again] */
  function look(again) {
    update();
    for (const row of rows) row.look(again);
  }

  /** @param {{lyco_match?: import("./parts.mjs").Match[]} | null} output a match for each row that was on, in their order */
  function show(output) {
    const matches = [...(output?.lyco_match ?? [])];
    const ran = rows.filter(({ used, values: [file, , on] }) => used && file !== NONE && on !== false);
    const each = ran.length === matches.length; // else a row of which the page does not know the file may have had none
    for (const row of rows) {
      const [file] = row.values;
      const index = ran.includes(row) ? matches.findIndex((found) => (file === undefined ? each : found.file === file)) : -1;
      row.show(index < 0 ? null : matches.splice(index, 1)[0]);
    }
  }

  for (const { names } of rows) {
    for (const name of names) after(widgetOf(node, name) ?? {}, "callback", update);
    after(widgetOf(node, names[0]) ?? {}, "callback", () => look(true));
  }
  // Before the link is there: a subgraph's node takes over whether the widget is hidden.
  after(node, "onConnectInput", (/** @type {number} */ slot) => {
    hide(node, node.inputs[slot]?.widget?.name ?? "", false);
  });
  after(node, "onConnectionsChange", update);
  // At once: what is read from a file has the size of its rows, and ComfyUI makes room for all that shows by then.
  after(node, "onConfigure", update);
  listenForMoves(rows);
  followRuns(node, { look, show });
  addFailure(node, content);
  onRefresh(node, () => look(true));
  update();
}

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {string} name of a widget
 * @param {boolean} hidden
 */
function hide(node, name, hidden) {
  const widget = widgetOf(node, name);
  if (!widget || widget.options.hidden === hidden) return;
  widget.hidden = widget.options.hidden = hidden;
  if (!LiteGraph.vueNodesMode || "visibility" in widget) return;
  const all = [...(node.widgets ?? [])]; // the nodes of 1.49 hear of it only by another list
  node.widgets = [];
  node.widgets = all;
}

/**
 * @param {import("./node.mjs").GraphNode} node
 * @param {Row} row
 * @param {Row[]} rows
 * @param {Set<Row>} bare
 * @param {() => void} update
 */
function openMenu(node, row, rows, bare, update) {
  const all = free(rows);
  const at = all.indexOf(row);
  const copy = /** @type {HTMLElement | null} */ (row.file.querySelector(".lyco-copy"));
  /** @type {[string, unknown, () => void][]} */
  const entries = [
    [t("copy_words"), copy, () => copy?.click()],
    [t("move_up"), at > 0, () => move(rows, row, at - 1)],
    [t("move_down"), at >= 0 && at < all.length - 1, () => move(rows, row, at + 1)],
    [t("remove"), row.used && !row.linked, () => remove(node, row, rows)],
    [t(bare.has(row) ? "hide_inputs" : "show_inputs"), true, () => (bare.delete(row) || bare.add(row), update())],
  ];
  const possible = entries.filter(([, whether]) => whether);
  menuBelow(row.more, possible.map(([name]) => name), (chosen) => {
    possible.find(([name]) => name === chosen)?.[2]();
    record();
  });
}

/**
 * Empty a row, and let those below it move up, as far as no link holds one where it is.
 * @param {import("./node.mjs").GraphNode} node
 * @param {Row} row
 * @param {Row[]} rows
 */
function remove(node, row, rows) {
  const below = rows.slice(rows.indexOf(row) + 1);
  for (const next of below) {
    if (next.linked || !next.used) break;
    arrange([row, next], [next, row]);
    row = next;
  }
  setValue(node, row.names[0], NONE);
  setValue(node, row.names[1], 1);
  setValue(node, row.names[2], true);
  row.unfolded = null;
}
