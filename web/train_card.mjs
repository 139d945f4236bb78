// The card of Train Adapter: the loss while it trains, and how it ended, also on a page that was loaded meanwhile.
import { after, api, app } from "./comfy.mjs";
import { SPAN, Series, draw } from "./curve.mjs";
import { clock, el } from "./dom.mjs";
import { addFailure } from "./failure.mjs";
import { lastOutput } from "./last_output.mjs";
import { tellNeeds } from "./needs.mjs";
import { addCard, everyNode, nodeOf } from "./node.mjs";
import { Samples } from "./samples.mjs";
import { FURTHER, changed, ending, values } from "./train_end.mjs";
import { pathsTo, same } from "./would_run.mjs";
import { t } from "./words.mjs";

const CORE_TEXT = "$$node-text-preview"; // ComfyUI's own line of progress, which says the same
const SPANS = [1, 2, 5, 10, 20, 50, SPAN, 200, 500, 1000];

/**
 * @typedef {object} Message
 * @property {string} node
 * @property {string | null} run the id of the prompt
 * @property {number | null} seconds_left
 * @property {number} loss the mean of the last `mean_of` steps
 * @property {number} mean_of
 * @property {import("./curve.mjs").Step[]} steps those that are new
 * @property {import("./needs.mjs").Needs | null} [needs]
 * @property {import("./samples.mjs").Sample[]} samples those that are new
 * @property {import("./samples.mjs").Unsampled | null} unsampled
 *
 * @typedef {object} Asked only of all that the server knows of the last training
 * @property {Record<string, any> | null} prompt
 * @property {string | null} workflow
 *
 * @typedef {Message & import("./train_end.mjs").End} News
 */

/** @type {WeakMap<object, TrainCard>} */
const cards = new WeakMap();

class TrainCard {
  /** @param {import("./node.mjs").GraphNode} node */
  constructor(node) {
    this.node = node;
    this.series = new Series();
    this.samples = new Samples();
    /** @type {News | null} */
    this.news = null;
    /** @type {News[] | null} what is heard while the card asks what was before */
    this.unmet = null;
    /** @type {string | null | undefined} a run of another workflow, which has a node of the same id */
    this.others = undefined;
    /** @type {Record<string, unknown>} the values that the training has */
    this.ran = {};
    this.span = SPAN;
    this.drawing = false;
    this.canvas = /** @type {HTMLCanvasElement} */ (el("canvas", "lyco-curve"));
    this.canvas.role = "img";
    this.line = el("div", "lyco-line", t("waiting"));
    this.memory = el("div", "lyco-memory");
    this.end = el("div");
    this.content = addCard(node);
    this.content.append(this.line, this.memory);
    addFailure(node, this.content);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  /** @param {News} news as the server sends them */
  hear(news) {
    if (this.unmet) this.unmet.push(news);
    else if (news.run === this.news?.run) this.add(news);
    else if (news.run !== this.others) void this.ask();
  }

  /** Take up what the server has of a training of this node, then what was heard meanwhile. */
  async ask() {
    this.unmet ??= [];
    const told = await api.fetchApi("/lyco/training").then((answer) => answer.json()).catch(() => ({}));
    const exact = this.wouldRun(told);
    const ours = exact || (inside(told.node) === String(this.node.id) && told.workflow === (app.rootGraph ?? app.graph).id);
    const output = ours && (exact || !told.end) ? null : await lastOutput(this.node);
    if (output?.lyco_train) this.finish(output);
    else if (ours) this.takeUp(told, told.prompt?.[told.node]?.inputs ?? {});
    else this.others = told.run;
    const unmet = told.node ? this.unmet : []; // a server that does not answer is not asked once more for each
    this.unmet = null;
    for (const news of unmet) this.hear(news);
  }

  /**
   * Whether the node would run the training that the server tells of, be it further.
   * @param {Message & Asked} told
   */
  wouldRun({ node, prompt }) {
    const ran = prompt?.[node];
    if (!ran) return false;
    const further = Object.entries(values(this.node)).filter(([name]) => FURTHER.has(name));
    const now = { ...prompt, [node]: { ...ran, inputs: { ...ran.inputs, ...Object.fromEntries(further) } } };
    return pathsTo(this.node).some((path) => same(path, node, now));
  }

  /**
   * @param {News} news everything so far of one training
   * @param {Record<string, unknown>} ran the values that it has
   */
  takeUp(news, ran) {
    this.series = new Series();
    this.samples.cut(0);
    this.ran = ran;
    this.add(news);
  }

  /** @param {News} news of the training that is shown */
  add(news) {
    // A training that goes on from a state replaces what was drawn from there on.
    const first = news.steps[0]?.step ?? Infinity;
    if (first <= (this.series.last?.step ?? -1)) {
      this.series.cut(first);
      this.samples.cut(first);
    }
    this.samples.add(news.samples, news.unsampled);
    this.series.add(news.steps);
    this.news = news;
    if (news.needs) tellNeeds(this.memory, news.needs);
    this.show();
  }

  /** Nothing more comes: it was stopped, or failed. */
  stopped() {
    if (this.news) this.news.seconds_left = null;
    this.draw();
  }

  /** @param {{lyco_train: import("./curve.mjs").Step[][], lyco_trained: News[]}} output of a whole training */
  finish({ lyco_train: [steps], lyco_trained: [news] }) {
    if (news.run === this.news?.run) return this.add({ ...news, steps: [] }); // each step was heard
    this.takeUp({ ...news, steps }, values(this.node));
  }

  show() {
    if (!this.canvas.isConnected) this.content.replaceChildren(this.canvas, this.line, this.memory, this.samples.wrong, this.samples.element, this.end, this.slider());
    this.node.hideOutputImages = true; // the same curve, as a picture for pages without this extension
    this.draw();
  }

  slider() {
    const slider = /** @type {HTMLInputElement} */ (el("input"));
    const last = SPANS.length - 1;
    Object.assign(slider, { type: "range", min: "0", max: String(last), value: String(SPANS.indexOf(this.span)) });
    const text = el("span", "", t("mean_of", this.span));
    slider.addEventListener("input", () => {
      this.span = SPANS[Number(slider.value)];
      text.textContent = t("mean_of", this.span);
      this.draw();
    });
    return el("label", "lyco-smoothing", t("smoothing"), slider, text);
  }

  /** Draw once before the next frame, however much has been heard by then. */
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.describe();
      draw(this.canvas, this.series, this.span);
    });
  }

  describe() {
    const [news, last] = [this.news, this.series.last];
    if (!news || !last) return;
    // For those who cannot see it.
    this.canvas.setAttribute("aria-label", `${t("loss")}, ${t("step")} ${this.series.steps[0].step}-${last.step}`);
    const validation = this.series.validations.pop()?.validation;
    const mean = news.mean_of > 1 ? ` (${t("mean_of", news.mean_of)})` : "";
    const parts = [
      [t("step"), `${last.step} / ${news.total}`, "", ""],
      [t("loss"), news.loss?.toFixed(4), "loss", mean],
      [t("validation"), validation?.toPrecision(4), "validation", ""],
      [t("learning_rate"), last.learning_rate?.toExponential(2), "rate", ""],
      [t("left"), news.seconds_left === null ? "" : clock(news.seconds_left), "", ""],
    ].filter(([, value]) => value);
    this.line.replaceChildren(
      ...parts.map(([name, value, kind, more]) =>
        el("span", kind && `lyco-of-${kind}`, `${name} `, el("b", "", value ?? ""), more ?? ""),
      ),
    );
    const others = changed(this.node, this.ran);
    const end = el("div", "", ...(news.end ? [ending(this.node, news, last.step)] : []));
    if (others.length) end.append(el("div", "lyco-other-values", t("other_values", others.join(", "))));
    if (!end.isEqualNode(this.end)) this.end.replaceChildren(...end.childNodes); // else somebody may be at its button
  }
}

/** @param {string | undefined} id as the server has it; its part inside of a subgraph stays when one is made */
function inside(id) {
  return id?.split(":").pop();
}

/** @param {import("./node.mjs").GraphNode} node */
export function addTrainCard(node) {
  const card = new TrainCard(node);
  cards.set(node, card);
  after(node, "onExecuted", (/** @type {any} */ output) => {
    if (output?.lyco_train) card.finish(output);
  });
  after(node, "onConfigure", () => queueMicrotask(() => void card.ask()));
  after(node, "onConnectionsChange", () => card.draw());
  for (const widget of node.widgets ?? []) after(widget, "callback", () => card.draw());
}

/** @param {News} news of the server's own message */
export function hear(news) {
  cards.get(nodeOf(news.node) ?? {})?.hear(news);
}

/** @param {{node: string, needs: import("./needs.mjs").Needs}} told before the first step */
export function hearNeeds({ node, needs }) {
  const card = cards.get(nodeOf(node) ?? {});
  if (card) tellNeeds(card.memory, needs);
}

/** Follow what else the server tells; once, when the page is set up. */
export function listen() {
  for (const end of ["execution_interrupted", "execution_error"]) {
    api.addEventListener(/** @type {any} */ (end), (/** @type {any} */ { detail }) => {
      cards.get(nodeOf(String(detail.node_id ?? "")) ?? {})?.stopped();
    });
  }
  // What a subgraph chooses for a node inside is no change of that node.
  api.addEventListener("graphChanged", () => {
    for (const [node] of everyNode()) cards.get(node)?.draw();
  });
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
