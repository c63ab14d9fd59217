// Serves the time as JSON on 8080; a `ready` line once it listens.
"use strict";
const http = require("node:http");

const port = Number(process.env.PORT || 8080);
const server = http.createServer((request, response) => {
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ path: request.url, time: new Date().toISOString() }) + "\n");
});
server.listen(port, () => console.log(JSON.stringify({ event: "ready", node: process.version, port })));
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
