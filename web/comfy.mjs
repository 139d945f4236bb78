// The page's own objects, as ComfyUI's scripts/app.js and scripts/api.js give them on. Those would be two more requests,
// begun only when ours are there.
export const { app } = window.comfyAPI.app;
export const { api } = window.comfyAPI.api;

/**
 * Call `added` after what is there.
 * @param {Record<string, any>} object
 * @param {string} name of a method
 * @param {(...values: any[]) => void} added
 */
export function after(object, name, added) {
  const existing = object[name];
  object[name] = function (/** @type {any[]} */ ...values) {
    const result = existing?.apply(this, values);
    added(...values);
    return result;
  };
}
