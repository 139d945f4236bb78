// What the page has as globals; the published types do not declare them.
import type { ComfyApi, ComfyApp } from "@comfyorg/comfyui-frontend-types";

declare global {
  const LiteGraph: { vueNodesMode?: boolean; NODE_TITLE_HEIGHT: number };
  interface Window {
    comfyAPI: { app: { app: ComfyApp }; api: { api: ComfyApi } };
  }
}
