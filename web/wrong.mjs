// Why something of a file could not be had, as the error of a run says it.
import { el } from "./dom.mjs";

/** @param {string} message */
export async function wrong(message) {
  const { inWords } = await import("./messages.mjs");
  const { todo, why } = await inWords(message);
  const parts = [todo && el("div", "lyco-todo", todo), el("div", "", why)].filter(Boolean);
  return el("div", "lyco-error", ...parts);
}
