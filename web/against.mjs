// How large the change is beside the weights of the model that is connected: asked for, since all of its file is read.
import { api } from "./comfy.mjs";
import { button, el } from "./dom.mjs";
import { modelFile } from "./model_file.mjs";
import { t } from "./words.mjs";
import { wrong } from "./wrong.mjs";

/**
 * @typedef {object} Shares what `/lyco/against` answers: norms as shares of the model's, null where it has no weight
 * @property {number | null} whole
 * @property {number} unplaced
 * @property {(number | null)[][]} blocks
 * @property {(number | null)[]} kinds
 */

export class Against {
  /**
   * @param {import("./node.mjs").GraphNode} node
   * @param {string} file
   * @param {(shares: Shares | null) => void} show
   */
  constructor(node, file, show) {
    this.node = node;
    this.file = file;
    this.show = show;
    this.model = "";
    /** @type {AbortController | null} of what is being asked */
    this.asking = null;
    this.button = button("lyco-chip", t("against"), "", () => void this.ask());
    this.told = el("div", "lyco-hint");
    this.root = el("div", "lyco-against", this.button, this.told);
  }

  /** Another model may be connected. */
  update() {
    const model = modelFile(this.node);
    if (model !== this.model) {
      this.stop();
      this.model = model;
      this.show(null);
      this.told.replaceChildren();
      this.button.title = t("against_tip", nameOf(model));
    }
    this.button.hidden = !model || this.told.hasChildNodes();
    this.root.hidden = !model;
  }

  stop() {
    this.asking?.abort();
    this.asking = null;
  }

  async ask() {
    this.stop();
    const [{ signal }, name] = [(this.asking = new AbortController()), nameOf(this.model)];
    const told = (/** @type {(string | Node)[]} */ ...parts) => {
      if (signal.aborted) return;
      this.told.replaceChildren(...parts);
      this.update();
    };
    told(t("reading", name, ""));
    try {
      const query = new URLSearchParams({ adapter: this.file, model: this.model });
      const answer = await api.fetchApi(`/lyco/against?${query}`, { signal });
      /** @type {any} */
      let last = {};
      for await (const line of lines(answer)) {
        last = JSON.parse(line);
        if (last.total) told(t("reading", name, `${Math.floor((100 * last.done) / last.total)} %`));
      }
      if (signal.aborted) return;
      if (!("whole" in last)) return told(last.error ? await wrong(last.error) : t("unreachable"));
      this.show(last);
      const whole = last.whole === null ? [] : [t("of_model", percentOf(last.whole), name)];
      told(...whole, ...(last.unplaced ? [` ${t("unplaced", last.unplaced)}`] : []));
    } catch {
      told(el("div", "lyco-error", t("unreachable")));
    }
  }
}

/** @param {string} model */
function nameOf(model) {
  return model.slice(model.indexOf("/") + 1);
}

/** @param {number} share */
export function percentOf(share) {
  const value = 100 * share;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value >= 0.001 ? value.toPrecision(2) : value.toExponential(0)} %`;
}

/** @param {Response} answer @returns {AsyncGenerator<string>} its lines, as they come */
async function* lines(answer) {
  const decoder = new TextDecoder();
  let text = "";
  for (const reader = answer.body?.getReader(); reader; ) {
    const { done, value } = await reader.read();
    text += decoder.decode(value, { stream: !done });
    const whole = text.split("\n");
    text = whole.pop() ?? "";
    yield* whole.filter(Boolean);
    if (done) return text ? yield text : undefined;
  }
}
