// Node's ws with compressed messages. `node ws_deflate.cjs serve` echoes and prints its port; `... talk ws://host:port KEY COUNT`
// exchanges messages until it is closed, prints `going` after COUNT of them and at last what came of it.
"use strict";
const { createHash } = require("crypto");
const WebSocket = require("ws");
const [what, base, key, count] = process.argv.slice(2);

// Text that holds nothing twice: only with the messages before it does it become small.
let noise = "";
for (let at = 0; at < 32; at++) noise += createHash("sha256").update(String(at)).digest("hex");

if (what === "serve") {
  const server = new WebSocket.Server({ host: "127.0.0.1", port: 0, perMessageDeflate: true });
  server.on("listening", () => console.log(`port ${server.address().port}`));
  server.on("connection", (socket) => {
    console.log(`extensions ${socket.extensions}`);
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
    socket.on("close", (code) => console.log(`closed ${code}`));
  });
} else {
  const socket = new WebSocket(`${base}/ws`, { headers: { "X-API-Key": key }, perMessageDeflate: true });
  let exchanged = 0;
  const send = () => socket.send(`${noise}${exchanged}`);
  socket.on("open", send);
  socket.on("message", (data) => {
    if (data.toString() !== `${noise}${exchanged}`) throw new Error(`echo ${exchanged} is not what was sent`);
    exchanged += 1;
    if (exchanged === Number(count)) console.log("going");
    send();
  });
  socket.on("error", (error) => { console.error(error); process.exit(1); });
  socket.on("close", (code, reason) => {
    console.log(JSON.stringify({ extensions: socket.extensions, exchanged, code, reason: reason.toString() }));
  });
}
