// The page's own objects, as ComfyUI's scripts/app.js and scripts/api.js give them on. Those are two more requests, which
// begin only when ours are there: 30 ms of the page's load.
export const { app } = window.comfyAPI.app;
export const { api } = window.comfyAPI.api;
