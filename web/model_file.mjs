// The file of the model that goes into a node, where a loader's widget names it.
import { pathsTo, sourceOf } from "./would_run.mjs";

/** Widgets by which loaders choose a model, ComfyUI-GGUF's too -> the folder of models that they list. */
const LOADERS = /** @type {[string, (name: string) => string][]} */ ([
  ["unet_name", (name) => (/\.gguf$/i.test(name) ? "unet_gguf" : "diffusion_models")],
  ["ckpt_name", () => "checkpoints"],
]);
const READ = /\.(safetensors|sft|gguf)$/i;
const FARTHEST = 50; // nodes that change a model one after the other

/**
 * @param {import("./node.mjs").GraphNode} node
 * @returns {string} `folder/name`; nothing where no one file is known: two models are merged before it, say
 */
export function modelFile(node) {
  const [first, ...others] = pathsTo(node).map(fileInto);
  return others.every((file) => file === first) ? (first ?? "") : "";
}

/** @param {import("./would_run.mjs").Path} path */
function fileInto(path) {
  for (let far = 0; far < FARTHEST; far++) {
    const inputs = path.at(-1).inputs.filter((/** @type {any} */ { type }) => type === "MODEL");
    const from = inputs.length === 1 ? sourceOf(path, inputs[0].name)?.from : undefined;
    if (!from) return "";
    for (const [widget, folder] of LOADERS) {
      const name = sourceOf(from, widget)?.value;
      if (typeof name === "string" && READ.test(name)) return `${folder(name)}/${name}`;
    }
    path = from;
  }
  return "";
}
