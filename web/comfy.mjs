// The page's own objects, as ComfyUI's scripts/app.js and scripts/api.js give them on. Those would be two more requests,
// begun only when ours are there.
export const { app } = window.comfyAPI.app;
export const { api } = window.comfyAPI.api;
