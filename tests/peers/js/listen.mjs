// The official Socket.IO client: prints each event as a line of JSON, resumes by its cursor, and
// reconnects when it is told to on standard input.
import { io } from "socket.io-client";
import readline from "node:readline";

const [url, token, first] = process.argv.slice(2);
let lastSeq = first === "" ? null : Number(first);

const socket = io(url, {
  transports: ["websocket"],
  auth: (send) => send(lastSeq === null ? { token } : { token, last_seq: lastSeq }),
});
const print = (name, message) => process.stdout.write(JSON.stringify({ name, message }) + "\n");
socket.onAny((name, message) => {
  if (message?.seq) lastSeq = message.seq;
  if (name === "ready") lastSeq = message.last_seq;
  print(name, message);
});
socket.on("connect_error", (error) => print("refused", error.message));
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "down") socket.disconnect();
  if (line === "up") socket.connect();
  if (line === "end") process.exit(0);
});
