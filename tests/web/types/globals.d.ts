// What the page has as globals; the published types do not declare them.
import type { ComfyApi, ComfyApp } from "@comfyorg/comfyui-frontend-types";

declare global {
  const LiteGraph: {
    vueNodesMode?: boolean;
    NODE_TITLE_HEIGHT: number;
    ContextMenu: new (entries: string[], options: object) => object;
    LGraphCanvas: { active_canvas?: object };
    LGraphNode: { prototype: object & { getInputLink: (slot: number) => { origin_id: unknown; origin_slot: number } } };
    isValidConnection: (from: unknown, to: unknown) => boolean;
  };
  interface Window {
    comfyAPI: { app: { app: ComfyApp }; api: { api: ComfyApi } };
  }
}
