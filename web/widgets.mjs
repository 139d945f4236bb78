// A node's widgets, which hold its values: whatever a card shows or changes is theirs.
import { app } from "./comfy.mjs";

/** @typedef {import("./node.mjs").GraphNode} GraphNode */

/**
 * @param {GraphNode} node
 * @param {string} name
 * @returns {any}
 */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/**
 * Change a value as ComfyUI's own widget does when a person changes it.
 * @param {GraphNode} node
 * @param {string} name
 * @param {unknown} value
 */
export function setValue(node, name, value) {
  const [widget, canvas] = [widgetOf(node, name), app.canvas];
  if (!widget || widget.value === value) return;
  if (widget.setValue) return widget.setValue(value, { e: new PointerEvent("pointerup"), node, canvas });
  widget.value = value;
  widget.callback?.(value, canvas, node);
}

/** Have ComfyUI record what was changed, for undo; it does by itself only before a click is heard. */
export function record() {
  /** @type {any} */ (app.extensionManager)?.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.();
}
