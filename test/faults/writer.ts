// A process that writes to the log without a pause until it is killed, or asked to end by SIGTERM. Arguments: the
// address, the database, the address of NATS if the writers let one of them append for all or "-", the seed of its choices,
// the first number that it gives to a request, and the requests that an earlier process has left open. It prints "try ID ." before it sends a request, and "ack ID POSITION ." once it is answered.
import { setTimeout as pause } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { MongoError } from "mongodb";
import { Refusal, Unavailable } from "../../src/domain/refusal.ts";
import { EventSchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createTransactor } from "../../src/log/transact.ts";
import { createUnchangedCommands } from "../../src/log/unchanged-commands.ts";
import { openLog, openSharedLog } from "../support/open-log.ts";
import { createRandom } from "./random.ts";

const LANES = 64;
const STREAMS = 100;
const DUPLICATE_KEY = 11000;

const [url = "", database = "", natsUrl = "", seed = "", firstNumber = "", ...leftOpen] = process.argv.slice(2);
const random = createRandom(Number(seed));
const log = natsUrl === "-" ? openLog(url, database, { patienceMs: 3000 }) : openSharedLog(url, database, natsUrl, { patienceMs: 3000 });
const now = () => new Date();
const transactor = createTransactor<number>(
  { streamOf: (id) => `order-${id}`, evolve: (count) => (count ?? 0) + 1 },
  log.appender,
  log.reader,
  createUnchangedCommands(log.db, now),
  { cachedStreams: 1000, now },
);
let next = Number(firstNumber);
let ending = false;
process.once("SIGTERM", () => {
  ending = true;
});
// Whoever started it holds the other end: when that is gone, nobody is left to end it.
process.stdin.once("end", () => process.exit(1)).resume();

await Promise.all(Array.from({ length: LANES }, lane));
await log[Symbol.asyncDispose]();
process.stdin.destroy();

async function lane(): Promise<void> {
  while (!ending || leftOpen.length > 0) {
    // What a request does follows from its identifier, so that a later process can send the same one again.
    const id = leftOpen.pop() ?? `${next++}.${random(STREAMS)}`;
    say(`try ${id} .`);
    say(`ack ${id} ${await send(id)} .`);
  }
}

async function send(id: string): Promise<number> {
  const [number, stream = ""] = id.split(".");
  const kind = Number(number) % 3 === 0 ? "pickingResumed" : "pickingStarted";
  for (;;) {
    try {
      const { position } = await transactor.transact(stream, {
        method: "test.Service/Method",
        requestId: id,
        correlationId: "",
        actor: { role: Role.SERVICE, subject: "writer" },
        door: Door.GRPC,
        decide: () => [create(EventSchema, { kind: { case: kind, value: {} } })],
      });
      return position;
    } catch (error) {
      if (!mayPass(error)) throw error;
      await pause(20);
    }
  }
}

/** Whether a caller would try again. That a duplicate key shows itself is a fault of the log. */
function mayPass(error: unknown): boolean {
  if (error instanceof Refusal) return error.reason === "CONFLICT" || error.reason === "OVERLOADED";
  return error instanceof Unavailable || (error instanceof MongoError && error.code !== DUPLICATE_KEY);
}

/** Prints a line. On pipes that is synchronous: what a killed process has said is with its parent. */
function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
