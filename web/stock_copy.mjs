// A copy of an adapter for ComfyUI's own loaders, and for packs that load as they do: written by a click, named afterwards.
import { api, app } from "./comfy.mjs";
import { button, el } from "./dom.mjs";
import { t } from "./words.mjs";
import { wrong } from "./wrong.mjs";

/**
 * @typedef {object} StockCopy
 * @property {string} name of the copy, for the loaders
 * @property {boolean} there whether it was made already
 */

/**
 * @param {string} file in models/loras
 * @param {StockCopy} copy
 */
export function stockCopy(file, { name, there }) {
  if (there) return el("div", "lyco-hint", t("copy_there", name));
  const place = el("div", "lyco-stock");
  const save = button("lyco-save-copy", t("save_copy"), name, async () => {
    save.disabled = true;
    save.textContent = t("saving");
    const error = await written(file);
    save.disabled = false;
    save.textContent = t("save_copy");
    if (error) place.replaceChildren(save, error);
    else await app.refreshComboInNodes(); // the cards are drawn anew with the lists of files, and say the name
  });
  place.append(save);
  return place;
}

/**
 * @param {string} file
 * @returns {Promise<HTMLElement | null>} why it was not written
 */
async function written(file) {
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await api.fetchApi(`/lyco/copy?adapter=${encodeURIComponent(file)}`, { method: "POST", headers });
    return answer.ok ? null : await wrong((await answer.json()).error);
  } catch {
    return el("div", "lyco-error", t("unreachable"));
  }
}
