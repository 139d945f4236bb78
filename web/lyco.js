// The pack's part of the page: cards on its nodes. Without it every node works, and says the same in its outputs.
import { app } from "./comfy.js";
import { addStyle } from "./dom.js";
import { addFileCard, listenForCached, refreshCards } from "./file_card.js";
import { foldRows } from "./rows.js";
import { TRAIN, addTrainCard, listen } from "./train_card.js";
import { restoreSize } from "./node.js";

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

app.registerExtension({
  name: "lyco",
  setup() {
    addStyle();
    listenForCached();
    listen();
  },
  loadedGraphNode: restoreSize,
  refreshComboInNodes: async () => refreshCards(),
  nodeCreated(created) {
    const node = /** @type {import("./node.js").GraphNode} */ (created);
    const kind = node.comfyClass ?? "";
    if (kind === TRAIN) addTrainCard(node);
    if (kind in FILES) addFileCard(node, FILES[kind]);
    if (kind === "LycoLoadAdapters") foldRows(node, ROWS);
  },
});
