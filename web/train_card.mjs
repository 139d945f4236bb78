// The card of Train Adapter: the loss while it trains, and after it, also on a page that was loaded meanwhile.
import { api } from "./comfy.mjs";
import { Series, draw } from "./curve.mjs";
import { clock, el } from "./dom.mjs";
import { addFailure } from "./failure.mjs";
import { addCard, after, executionId, lastOutput, nodeOf } from "./node.mjs";
import { t } from "./words.mjs";

const CORE_TEXT = "$$node-text-preview"; // ComfyUI's own line of progress, which says the same

/**
 * @typedef {{node: string, total: number, seconds_left: number | null, steps: import("./curve.mjs").Step[]}} News
 */

/** @type {WeakMap<object, TrainCard>} */
const cards = new WeakMap();

class TrainCard {
  /** @param {import("./node.mjs").GraphNode} node */
  constructor(node) {
    this.node = node;
    this.series = new Series();
    this.total = 0;
    /** @type {number | null} */
    this.left = null;
    this.smoothing = 0.9;
    this.drawing = false;
    this.canvas = /** @type {HTMLCanvasElement} */ (el("canvas", "lyco-curve"));
    this.canvas.role = "img";
    this.line = el("div", "lyco-line", t("waiting"));
    this.content = addCard(node);
    this.content.append(this.line);
    addFailure(node, this.content, () => {});
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  /** @param {News} news */
  hear(news) {
    // A training that begins anew, or goes on from a state, replaces what was drawn from there on.
    const first = news.steps[0]?.step ?? Infinity;
    if (first <= (this.series.last?.step ?? -1)) this.series.cut(first);
    this.series.add(news.steps);
    [this.total, this.left] = [news.total, news.seconds_left];
    this.show();
  }

  /** @param {News} news everything so far of a training of which the latest has perhaps been heard */
  takeUp(news) {
    const heard = this.series.steps;
    this.series = new Series();
    this.hear(news);
    this.series.add(heard);
  }

  /** Nothing more comes: it was stopped, or failed. */
  stopped() {
    this.left = null;
    this.draw();
  }

  /** @param {import("./curve.mjs").Step[]} steps of a whole training */
  finish(steps) {
    this.series = new Series();
    this.series.add(steps);
    [this.total, this.left] = [this.series.last?.step ?? 0, null];
    this.show();
  }

  show() {
    if (!this.canvas.isConnected) this.content.replaceChildren(this.canvas, this.line, this.slider());
    this.node.hideOutputImages = true; // the same curve, as a picture for pages without this extension
    this.draw();
  }

  slider() {
    const slider = /** @type {HTMLInputElement} */ (el("input"));
    Object.assign(slider, { type: "range", min: "0", max: "0.99", step: "0.01", value: String(this.smoothing) });
    slider.addEventListener("input", () => {
      this.smoothing = Number(slider.value);
      this.draw();
    });
    slider.addEventListener("pointerdown", (event) => event.stopPropagation());
    return el("label", "lyco-smoothing", t("smoothing"), slider);
  }

  /** Draw once before the next frame, however much has been heard by then. */
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.describe();
      draw(this.canvas, this.series, this.total, this.smoothing);
    });
  }

  describe() {
    const last = this.series.last;
    if (!last) return;
    // For those who cannot see it.
    this.canvas.setAttribute("aria-label", `${t("loss")}, ${t("step")} ${this.series.steps[0].step}-${last.step}`);
    let average = NaN;
    for (const value of this.series.smoothed(this.smoothing)) average = value;
    const validation = this.series.validations.pop()?.validation;
    const parts = [
      [t("step"), `${last.step} / ${this.total}`, ""],
      [t("loss"), average.toPrecision(4), "loss"],
      [t("validation"), validation?.toPrecision(4), "validation"],
      [t("learning_rate"), last.learning_rate?.toExponential(2), "rate"],
      [t("left"), this.left === null ? "" : clock(this.left), ""],
    ].filter(([, value]) => value);
    this.line.replaceChildren(
      ...parts.map(([name, value, kind]) => el("span", kind && `lyco-of-${kind}`, `${name} `, el("b", "", value ?? ""))),
    );
  }
}

/** @param {import("./node.mjs").GraphNode} node */
export function addTrainCard(node) {
  const card = new TrainCard(node);
  cards.set(node, card);
  after(node, "onExecuted", (/** @type {{lyco_train?: import("./curve.mjs").Step[][]}} */ output) => {
    if (output.lyco_train) card.finish(output.lyco_train[0]);
  });
  after(node, "onConfigure", () => queueMicrotask(() => resume(node, card)));
}

/**
 * Take up a training that goes on, else what the last one gave.
 * @param {import("./node.mjs").GraphNode} node
 * @param {TrainCard} card
 */
async function resume(node, card) {
  const running = await api.fetchApi("/lyco/training").then((answer) => answer.json()).catch(() => ({}));
  if (running.node && running.node === executionId(node)) return card.takeUp(running);
  if (card.series.last) return;
  const output = await lastOutput(node);
  if (output?.lyco_train && !card.series.last) card.finish(output.lyco_train[0]);
}

/** @param {News} news of the server's own message */
export function hear(news) {
  cards.get(nodeOf(news.node) ?? {})?.hear(news);
}

/** Follow what else the server tells; once, when the page is set up. */
export function listen() {
  for (const end of ["execution_interrupted", "execution_error"]) {
    api.addEventListener(/** @type {any} */ (end), (/** @type {any} */ { detail }) => {
      cards.get(nodeOf(String(detail.node_id ?? "")) ?? {})?.stopped();
    });
  }
  api.addEventListener("progress_text", (/** @type {any} */ { detail }) => {
    const node = nodeOf(String(detail.nodeId ?? ""));
    if (node && cards.has(node)) queueMicrotask(() => dropCoreText(node));
  });
}

/** @param {import("./node.mjs").GraphNode} node */
function dropCoreText(node) {
  const widget = node.widgets?.find(({ name }) => name === CORE_TEXT);
  if (widget) node.removeWidget(widget);
}
