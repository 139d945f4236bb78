// The pack's part of the page: cards on its nodes. Without it every node works, and says the same in its outputs.
//
// ComfyUI waits for every .js file of a pack before it asks what nodes there are. This one is small, and lets the others
// come meanwhile: they are .mjs, which ComfyUI leaves alone.
const { app } = window.comfyAPI.app;
const { api } = window.comfyAPI.api;

const TRAIN = "LycoTrainAdapter";
const ROWS = [1, 2, 3, 4, 5, 6].map((row) => `adapter_${row}`);

/** Node -> its widgets that hold adapter files. @type {Record<string, string[]>} */
const FILES = {
  LycoLoadAdapter: ["adapter"],
  LycoLoadAdapters: ROWS,
  LycoMergeAdapter: ["adapter"],
  LycoMergeCheckpoint: ["adapter"],
  LycoConvertAdapter: ["adapter"],
  LycoResizeAdapter: ["adapter"],
  LycoInspectAdapter: ["adapter"],
  LycoExtractAdapter: [],
};

const loading = import("./cards.mjs");
/** @type {Awaited<typeof loading>} */
let cards;

// Before the page hears of anything: 1.58 logs a message that nobody listens to as an error.
api.addEventListener(/** @type {any} */ ("lyco.train"), (/** @type {any} */ { detail }) => cards?.hear(detail));

app.registerExtension({
  name: "lyco",
  async addCustomNodeDefs() {
    cards = await loading; // before there is any node
  },
  setup() {
    cards.addStyle();
    cards.listenForCached();
    cards.listen();
  },
  loadedGraphNode: (node) => cards.restoreSize(node),
  refreshComboInNodes: async () => cards.refreshCards(),
  nodeCreated(created) {
    const node = /** @type {import("./node.mjs").GraphNode} */ (created);
    const kind = node.comfyClass ?? "";
    if (kind === TRAIN) cards.addTrainCard(node);
    if (kind in FILES) cards.addFileCard(node, FILES[kind]);
    if (kind === "LycoLoadAdapters") cards.foldRows(node, ROWS);
  },
});
