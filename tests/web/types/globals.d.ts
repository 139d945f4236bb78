// What the page has as globals; the published types do not declare them.
declare const LiteGraph: { vueNodesMode?: boolean };
