// A process that refreshes a session without a pause until it is killed. It prints "try TOKEN REQUEST_ID ." before each
// refresh, and "got ." after it. Arguments: the address, the database, and what to ask for first.
import { randomUUID } from "node:crypto";
import { MongoClient } from "mongodb";
import { createRevocations } from "../../src/access/revocations.ts";
import { createSessions } from "../../src/access/sessions.ts";
import { createLogger } from "../../src/logger.ts";

const [url = "", database = "", firstToken = "", firstRequestId = ""] = process.argv.slice(2);
// Whoever started it holds the other end: when that is gone, nobody is left to end it.
process.stdin.once("end", () => process.exit(1)).resume();
const client = await MongoClient.connect(url);
const now = () => new Date();
const db = client.db(database);
const sessions = createSessions(db, createRevocations(db, now, createLogger("silent")), now);

let token = firstToken;
let requestId = firstRequestId;
for (;;) {
  process.stdout.write(`try ${token} ${requestId} .\n`);
  token = (await sessions.refresh(token, requestId)).refreshToken;
  process.stdout.write("got .\n");
  requestId = randomUUID();
}
