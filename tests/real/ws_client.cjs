// Node's ws through the gate: `node ws_client.cjs ws://host:port KEY` prints what came of each way to show the key.
"use strict";
const WebSocket = require("ws");
const [base, key] = process.argv.slice(2);

const ways = {
  header: () => new WebSocket(`${base}/ws`, { headers: { "X-API-Key": key } }),
  bearer: () => new WebSocket(`${base}/ws`, { headers: { Authorization: `Bearer ${key}` } }),
  query: () => new WebSocket(`${base}/ws?api_key=${key}`),
  subprotocol: () => new WebSocket(`${base}/ws`, ["app.v1", `keygate.key.${key}`]),
};

function talk(socket) {
  return new Promise((resolve, reject) => {
    const result = { echo: false, binary: false, pong: false };
    const bytes = Buffer.alloc(100000, 7);
    socket.on("error", reject);
    socket.on("open", () => {
      socket.ping("are you there");
      socket.send("hello");
      socket.send(bytes);
    });
    socket.on("pong", (data) => { result.pong = data.toString() === "are you there"; });
    socket.on("message", (data, isBinary) => {
      if (!isBinary) { result.echo = data.toString() === "hello"; return; }
      result.binary = data.equals(bytes);
      socket.send("close:4002:bye");
    });
    socket.on("close", (code, reason) => resolve({ ...result, code, reason: reason.toString() }));
  });
}

function refused(socket) {
  return new Promise((resolve, reject) => {
    socket.on("open", () => reject(new Error("let in without a key")));
    socket.on("unexpected-response", (_request, response) => {
      const connection = response.socket; // kept open after a refusal, and then this script's to close
      let body = "";
      response.on("data", (part) => { body += part; });
      response.on("end", () => {
        resolve({ status: response.statusCode, message: JSON.parse(body).message });
        connection.destroy();
      });
    });
  });
}

(async () => {
  const results = {};
  for (const [name, open] of Object.entries(ways)) results[name] = await talk(open());
  results.refused = await refused(new WebSocket(`${base}/ws?api_key=kg_nobody`));
  console.log(JSON.stringify(results));
})().catch((error) => { console.error(error); process.exit(1); });
