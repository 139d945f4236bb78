// The pack's part of the page: cards on its nodes. Without it every node works, and says the same in its outputs.
//
// ComfyUI waits for every .js file of a pack before it asks what nodes there are. This one is small, and lets the others
// come meanwhile: they are .mjs, which ComfyUI leaves alone.
const { app } = window.comfyAPI.app;
const { api } = window.comfyAPI.api;

/** As the server has it: what this file's address and its nodes' `python_module` say of the pack. */
const PACK = `custom_nodes.${decodeURIComponent(new URL(import.meta.url).pathname.split("/").at(-2) ?? "")}`;

/**
 * What a node of the pack shows, as its schema says it.
 * @typedef {object} Kind
 * @property {string[]} adapters its widgets that hold adapter files
 * @property {boolean} trains whether it gives the loss of a training
 * @property {boolean} collects whether it gives a dataset
 */

/** @type {Map<string, Kind>} */
const kinds = new Map();

/** @param {Record<string, any>} def @returns {Kind} */
function kindOf({ input, output }) {
  const inputs = Object.entries({ ...input?.required, ...input?.optional });
  const adapters = inputs.filter(([, spec]) => spec[1]?.lyco_adapter).map(([name]) => name);
  return { adapters, trains: output.includes("LOSS_MAP"), collects: output.includes("LYCO_DATASET") };
}

const loading = import("./cards.mjs");
/** @type {Awaited<typeof loading>} */
let cards;

// Before the page hears of anything: 1.58 logs a message that nobody listens to as an error.
api.addEventListener(/** @type {any} */ ("lyco.train"), (/** @type {any} */ { detail }) => cards?.hear(detail));
api.addEventListener(/** @type {any} */ ("lyco.needs"), (/** @type {any} */ { detail }) => cards?.hearNeeds(detail));

app.registerExtension({
  name: "comfyui-lyco.cards",
  async addCustomNodeDefs(defs) {
    for (const [name, def] of Object.entries(defs)) {
      if (def.python_module === PACK) kinds.set(name, kindOf(def));
    }
    cards = await loading; // before there is any node
  },
  setup() {
    cards.addStyle();
    cards.listenForAnswers();
    cards.listenForRuns();
    cards.listenForFailures();
    cards.listenForRenderer();
    cards.listen();
  },
  afterConfigureGraph: () => cards.lookSoon(),
  loadedGraphNode: (node) => cards.restoreSize(node),
  refreshComboInNodes: async () => cards.refreshCards(),
  nodeCreated(created) {
    const node = /** @type {import("./node.mjs").GraphNode} */ (created);
    const kind = kinds.get(node.comfyClass ?? "");
    if (!kind) return;
    if (kind.trains) cards.addTrainCard(node);
    else if (kind.collects) cards.addDatasetCard(node);
    else if (kind.adapters.length > 1) cards.addRows(node, kind.adapters);
    else cards.addFileCard(node, kind.adapters[0]);
  },
});
