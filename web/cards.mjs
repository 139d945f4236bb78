// What lyco.js puts onto nodes.
export { addDatasetCard } from "./dataset_card.mjs";
export { addStyle } from "./dom.mjs";
export { addFileCard, listenForAnswers, refreshCards } from "./file_card.mjs";
export { listenForFailures } from "./failure.mjs";
export { listenForRuns, lookSoon } from "./last_output.mjs";
export { listenForRenderer } from "./node.mjs";
export { addRows } from "./rows.mjs";
export { restoreSize } from "./size.mjs";
export { addTrainCard, hear, hearNeeds, listen } from "./train_card.mjs";
